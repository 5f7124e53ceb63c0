//! What tests do to actors.

use actix::{Context, Handler, Message};

use super::SupervisorActor;
use super::jobs::Job;
use crate::job::BackupJobActor;
use crate::messages::JobId;
use crate::routine::RoutineActor;

/// Makes an actor panic.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Strike {
    Routine(String),
    Job(JobId),
}

/// Panics.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Panic;

impl Handler<Strike> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, strike: Strike, _: &mut Self::Context) {
        match strike {
            Strike::Routine(name) => self.routines[&name].actor.do_send(Panic),
            Strike::Job(id) => match &self.jobs[&id] {
                Job::SingleBackup { actor, .. } | Job::Run { actor, .. } => actor.do_send(Panic),
                other => panic!("{other:?}"),
            },
        }
    }
}

macro_rules! panics {
    ($($actor:ty),*) => {$(
        impl Handler<Panic> for $actor {
            type Result = ();

            fn handle(&mut self, _: Panic, _: &mut Context<Self>) {
                panic!("as the test wishes");
            }
        }
    )*};
}

panics!(RoutineActor, BackupJobActor);
