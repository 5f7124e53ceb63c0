//! The runs of routines.

use std::sync::{Arc, PoisonError};

use abs_config::Verify;
use abs_engine::catalog::BackupKind;
use actix::{Addr, AsyncContext as _, Context, Handler, MessageResult};
use slog::o;

use super::SupervisorActor;
use super::jobs::Job;
use crate::job::backup::{Backup, RestartRun, RoutineRun};
use crate::job::{BackupJobActor, JobEnded};
use crate::messages::JobId;
use crate::routine::{Adopt, NoRun, RunEnded, StartRun};

impl SupervisorActor {
    fn start_job(&self, id: JobId, run: RoutineRun, context: &Context<Self>) -> Addr<BackupJobActor> {
        let (routine, kind) = (run.settings.name.clone(), run.kind.as_str());
        let log = self.shared.log.new(o!("job" => id.0, "routine" => routine, "type" => kind));
        BackupJobActor::start(&self.shared, id, log, Backup::Run(run), context.address().recipient())
    }
}

impl Handler<StartRun> for SupervisorActor {
    type Result = MessageResult<StartRun>;

    fn handle(&mut self, start: StartRun, context: &mut Self::Context) -> Self::Result {
        if self.stopping {
            return MessageResult(Err(NoRun::Stopping));
        }
        let reserved = self.jobs.values().filter_map(|job| match job {
            Job::Restore { reserved, .. } => reserved.as_ref(),
            _ => None,
        });
        let conflict = reserved
            .into_iter()
            .find_map(|reserved| reserved.conflict(&start.settings, &self.shared.clusters));
        if let Some(namespace) = conflict {
            return MessageResult(Err(NoRun::Restoring(namespace.to_owned())));
        }
        let id = self.shared.new_id();
        let StartRun { settings, kind, created, continues } = start;
        if let Some(routine) = self.routines.get_mut(&settings.name) {
            routine.created = routine.created.max(created);
        }
        let (begun, parent) = (self.shared.clock.steady(), context.address().recipient());
        let run = RoutineRun {
            settings: Arc::clone(&settings),
            kind,
            created,
            begun,
            continues,
            generation: 1,
            parent,
        };
        let actor = self.start_job(id, run, context);
        self.add(id, Job::Run { settings, kind, created, actor: actor.clone() });
        MessageResult(Ok((id, actor)))
    }
}

impl Handler<RestartRun> for SupervisorActor {
    type Result = bool;

    fn handle(&mut self, RestartRun { id, run }: RestartRun, context: &mut Self::Context) -> bool {
        // When the service is stopping, its next start continues the run.
        if self.stopping || !self.jobs.contains_key(&id) {
            return false;
        }
        let run = RoutineRun { begun: self.shared.clock.steady(), ..run };
        let (settings, kind, created) = (Arc::clone(&run.settings), run.kind, run.created);
        let actor = self.start_job(id, run, context);
        self.shared.metrics.job_restarted(&settings.name);
        if let Some(routine) = self.routines.get(&settings.name) {
            routine.actor.do_send(Adopt {
                id,
                settings: Arc::clone(&settings),
                kind,
                created,
                actor: actor.clone(),
            });
        }
        self.jobs.insert(id, Job::Run { settings, kind, created, actor });
        true
    }
}

impl Handler<JobEnded<Backup>> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, JobEnded { id, result }: JobEnded<Backup>, context: &mut Self::Context) {
        if let Some(Job::SingleBackup { result: place, .. }) = self.jobs.get(&id) {
            // A job ends once.
            let _ = place.set(result);
            return;
        }
        let Some(Job::Run { settings, kind, created, .. }) = self.remove(id) else { return };
        match self.routines.get_mut(&settings.name) {
            Some(routine) => {
                let is_new = result.is_kept() && settings.storage == routine.settings.storage;
                if is_new && kind == BackupKind::Full {
                    // So that it is not forgotten if the actor has failed, or fails before it hears of this.
                    let mut memory = routine.memory.lock().unwrap_or_else(PoisonError::into_inner);
                    memory.retention_due = true;
                }
                if is_new && routine.settings.policy.verify == Verify::AfterBackup {
                    routine.unverified.insert(created);
                }
                let ended = RunEnded { id, settings: Arc::clone(&settings), kind, created, result };
                routine.actor.do_send(ended);
                self.verify_next(&settings.name, context);
            }
            // The routine went while this ran, and the end of the run brought its metrics back.
            None => self.shared.metrics.forget(&settings.name),
        }
    }
}
