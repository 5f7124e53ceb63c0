//! The one who owns everything that lives.
//!
//! Beside what it is asked from outside ([`messages`](crate::messages)) it hears:
//!
//! | message | from | answer |
//! |---|---|---|
//! | [`StartRun`](crate::routine::StartRun) | a routine | the new job, or why there is none |
//! | [`RestartRun`](crate::job::backup::RestartRun) | the steps of a run whose job actor crashed | whether another job continues it |
//! | [`VerifyRuns`](crate::routine::VerifyRuns) | a routine | |
//! | `ReserveNamespaces` | a restore | whether it may write to them |
//! | [`JobEnded`](crate::job::JobEnded) | a job | |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abs_config::{RoutineSettings, Verify};
use abs_engine::Owner;
use actix::{Actor, Addr, Arbiter, AsyncContext as _, Context, System};
use chrono::{DateTime, Utc};
use slog::{Logger, error, o};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};

use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigSource, Configuration};
use crate::journal::Journal;
use crate::messages::system::{Event, RoutineChange};
use crate::messages::{JobId, RequestError, RestoreStatus};
use crate::routine::{Adopt, ApplyRetention, Beginning, ClockSet, Configure, Memory, Retire, RoutineActor};
use crate::shared::{Jumps, Shared};
use crate::supervise::{Step, Supervision};

mod backups;
mod config;
mod jobs;
mod planner;
mod restores;
mod runs;
mod system;
#[cfg(test)]
pub(crate) mod testing;
mod verifications;

use jobs::Job;
use verifications::EndedVerification;

/// How often the supervisor looks whether its actors live, and whether the clock was set.
const WATCH: Duration = Duration::from_secs(1);

/// What a service is started with.
#[derive(Debug)]
pub struct Service {
    /// The configuration to begin with.
    pub configuration: Configuration,
    /// Where it is kept.
    pub source: Arc<dyn ConfigSource>,
    /// What its claims say.
    pub owner: Owner,
}

/// Owns the actors of all routines and jobs.
#[derive(Debug)]
pub struct SupervisorActor {
    shared: Arc<Shared>,
    service: Option<Service>,
    /// Changes of the configuration come one after the other.
    changing: Arc<Mutex<()>>,
    routines: BTreeMap<String, Routine>,
    jobs: HashMap<JobId, Job>,
    ended_restores: BTreeMap<JobId, RestoreStatus>,
    ended_verifications: BTreeMap<JobId, EndedVerification>,
    /// How many runs, restores and verifications there are.
    running: watch::Sender<usize>,
    stopping: bool,
    /// The jumps of the clock that were reported to the routines.
    jumps: Jumps,
}

#[derive(Debug)]
struct Routine {
    actor: Addr<RoutineActor>,
    settings: Arc<RoutineSettings>,
    memory: Arc<std::sync::Mutex<Memory>>,
    /// The runs that wait for their verification.
    unverified: BTreeSet<DateTime<Utc>>,
    /// The time of its last run.
    created: DateTime<Utc>,
    /// When it was last known to live.
    alive: DateTime<Utc>,
    supervision: Supervision,
}

/// Starts a supervisor on an arbiter of its own; jobs work on `runtime`, a multi-threaded one.
///
/// # Errors
/// When the system refuses a thread.
pub fn supervise(runtime: Handle) -> std::io::Result<Addr<SupervisorActor>> {
    let log = Logger::root(slog::Discard, o!());
    start(shared(runtime, Arc::new(SystemClock), log, Owner::default(), None)?, None)
}

/// Starts a supervisor with the routines of a configuration, and continues what its journal says was interrupted.
///
/// # Errors
/// When the system refuses a thread.
pub fn serve(
    runtime: Handle,
    clock: Arc<dyn Clock>,
    log: Logger,
    service: Service,
    journal: Option<Journal>,
) -> std::io::Result<Addr<SupervisorActor>> {
    start(shared(runtime, clock, log, service.owner.clone(), journal)?, Some(service))
}

fn shared(
    runtime: Handle,
    clock: Arc<dyn Clock>,
    log: Logger,
    owner: Owner,
    journal: Option<Journal>,
) -> std::io::Result<Arc<Shared>> {
    Shared::new(runtime, clock, log, owner, journal).map(Arc::new).map_err(std::io::Error::other)
}

pub(crate) fn start(shared: Arc<Shared>, service: Option<Service>) -> std::io::Result<Addr<SupervisorActor>> {
    let supervisor = SupervisorActor {
        shared,
        service,
        changing: Arc::default(),
        routines: BTreeMap::new(),
        jobs: HashMap::new(),
        ended_restores: BTreeMap::new(),
        ended_verifications: BTreeMap::new(),
        running: watch::Sender::new(0),
        stopping: false,
        jumps: Jumps::default(),
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("actors".to_owned()).spawn(move || {
        let system = System::new();
        system.block_on(async {
            let arbiter = Arbiter::current();
            // The caller waits for the address, so the channel is open.
            let _ = sender.send(SupervisorActor::start_in_arbiter(&arbiter, |_| supervisor));
        });
        // Runs until the process ends.
        let _ = system.run();
    })?;
    receiver.recv().map_err(std::io::Error::other)
}

impl SupervisorActor {
    /// Takes on a job of the service.
    fn add(&mut self, id: JobId, job: Job) {
        self.jobs.insert(id, job);
        self.running.send_modify(|jobs| *jobs += 1);
    }

    /// Lets go of a job of the service.
    fn remove(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        self.running.send_modify(|jobs| *jobs -= 1);
        Some(job)
    }

    fn routine(&self, name: &str) -> Result<&Routine, RequestError> {
        self.routines.get(name).ok_or_else(|| RequestError::not_found("routine", name))
    }

    /// Makes the routines those of the configuration.
    fn adopt_routines(&mut self, context: &mut Context<Self>) {
        let Some(service) = &self.service else { return };
        let settings = Arc::clone(service.configuration.settings());
        let gone: Vec<_> =
            self.routines.keys().filter(|name| !settings.routines.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(routine) = self.routines.remove(&name) {
                routine.actor.do_send(Retire);
                self.shared.metrics.forget(&name);
                self.announce(name, RoutineChange::Removed);
            }
        }
        for (name, new) in &settings.routines {
            let change = match self.routines.get_mut(name) {
                Some(routine) if routine.settings == *new => continue,
                Some(routine) => {
                    let change = match (routine.settings.disabled, new.disabled) {
                        (false, true) => RoutineChange::Disabled,
                        (true, false) => RoutineChange::Enabled,
                        _ => RoutineChange::Changed,
                    };
                    if new.policy.verify == Verify::None || new.storage != routine.settings.storage {
                        routine.unverified.clear();
                    }
                    routine.settings = Arc::clone(new);
                    routine.actor.do_send(Configure(Arc::clone(new)));
                    change
                }
                None => {
                    self.shared.metrics.routine_added(name);
                    let memory = Arc::default();
                    let (created, alive) = (DateTime::UNIX_EPOCH, self.shared.clock.now());
                    let beginning = Beginning {
                        settings: Arc::clone(new),
                        memory: Arc::clone(&memory),
                        created,
                        is_first: true,
                        start_after: alive,
                    };
                    let actor = self.start_routine(beginning, context);
                    let (settings, supervision) = (Arc::clone(new), Supervision::new(Instant::now()));
                    let unverified = BTreeSet::new();
                    let routine =
                        Routine { actor, settings, memory, unverified, created, alive, supervision };
                    self.routines.insert(name.clone(), routine);
                    RoutineChange::Added
                }
            };
            self.announce(name.clone(), change);
        }
        let used = |storage: &abs_config::StorageSettings| settings.storage.values().any(|s| **s == *storage);
        self.shared.catalogs.retain(used);
    }

    /// Warns of routines whose namespaces their clusters do not have.
    fn warn_of_missing_namespaces(&self) {
        let Some(service) = &self.service else { return };
        let (shared, settings) = (Arc::clone(&self.shared), Arc::clone(service.configuration.settings()));
        self.shared.runtime.spawn(async move {
            let none = abs_config::Settings::default();
            for missing in config::check_namespaces(&shared, &none, &settings).await {
                slog::warn!(shared.log, "{missing}");
            }
        });
    }

    /// Nothing is read any more that was: retention need not wait for it.
    fn reading_ended(&self) {
        // A restore by path does not name the routine whose backup it read.
        for routine in self.routines.values() {
            routine.actor.do_send(ApplyRetention);
        }
    }

    fn start_routine(&self, beginning: Beginning, context: &Context<Self>) -> Addr<RoutineActor> {
        let settings = Arc::clone(&beginning.settings);
        let (shared, supervisor) = (Arc::clone(&self.shared), context.address());
        let routine =
            RoutineActor::new(shared, supervisor.clone().recipient(), supervisor.recipient(), beginning)
                .start();
        // What still runs of it, or of one of its name that was removed, counts for its admission and retention.
        for (id, job) in &self.jobs {
            if let Job::Run { settings: of, kind, created, actor } = job
                && of.name == settings.name
            {
                let (id, kind, created) = (*id, *kind, *created);
                routine.do_send(Adopt { id, settings: Arc::clone(of), kind, created, actor: actor.clone() });
            }
        }
        routine
    }

    fn announce(&self, routine: String, change: RoutineChange) {
        slog::info!(self.shared.log, "routine {}", match change {
            RoutineChange::Added => "added",
            RoutineChange::Changed => "changed",
            RoutineChange::Enabled => "enabled",
            RoutineChange::Disabled => "disabled",
            RoutineChange::Removed => "removed",
        }; "routine" => &routine);
        self.shared.publish(|at| Event::RoutineChanged { at, routine, change });
    }

    /// Looks whether the clock was set, and whether the routines live; restarts those that have failed.
    fn watch(&mut self, context: &mut Context<Self>) {
        let jumps = self.shared.look_at_clock();
        if std::mem::replace(&mut self.jumps, jumps) != jumps {
            for routine in self.routines.values() {
                routine.actor.do_send(ClockSet);
            }
        }
        let (now, time) = (Instant::now(), self.shared.clock.now());
        let mut restarts = Vec::new();
        for (name, routine) in &mut self.routines {
            let alive = routine.actor.connected();
            if alive {
                routine.alive = time;
            }
            match routine.supervision.look(alive, now) {
                Step::Nothing => {}
                Step::Failed(wait) => {
                    let generation = routine.supervision.generation;
                    error!(self.shared.log, "the routine failed and will be restarted";
                        "routine" => name, "generation" => generation, "in" => ?wait);
                }
                Step::Restart { had_lived } => {
                    // What became due after it failed is started, unless the actor fails of it each time.
                    let start_after = if had_lived { routine.alive.max(routine.created) } else { time };
                    let beginning = Beginning {
                        settings: Arc::clone(&routine.settings),
                        memory: Arc::clone(&routine.memory),
                        created: routine.created,
                        is_first: false,
                        start_after,
                    };
                    restarts.push((name.clone(), beginning));
                }
            }
        }
        for (name, beginning) in restarts {
            let actor = self.start_routine(beginning, context);
            self.shared.metrics.routine_restarted(&name);
            if let Some(routine) = self.routines.get_mut(&name) {
                routine.actor = actor;
            }
        }
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Before a backup that is due may want their namespaces.
        self.resume_restores(context);
        self.adopt_routines(context);
        self.warn_of_missing_namespaces();
        context.run_interval(WATCH, Self::watch);
    }
}
