//! Whether this service works on the routine: schedules it, deletes and marks its backups.
//!
//! ```text
//!            seek            gain            lost
//!   Resting ──────→ Claiming ──────→ Held ──────────→ Claiming
//!      ↑             │    ↑ fail      ↑
//!      │ let_go      │    └─┘         │ gain
//!     any            └───────────→ Standby
//!                      stand_by     ↑   │ stand_by, ten times per lease
//!                                   └───┘
//! ```
//!
//! In a storage whose routines the locks of the system keep apart, the routine is held from the start. In others it is
//! claimed, unless it is disabled: then another service may have it.

use std::sync::Arc;
use std::time::Duration;

use abs_engine::catalog::{Attempt, BackupKind, Catalog, CatalogError, Holder, RoutineClaim};
use actix::{
    ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture, SpawnHandle,
    WrapFuture as _,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;
use slog::{info, warn};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{ApplyRetention, RoutineActor};
use crate::messages::RequestError;
use crate::shared::PROBE;
use crate::supervise::Backoff;

/// Gives the routine up: the service ends. The answer comes when another service may have it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Release;

/// Whether this service works on the routine.
#[derive(Debug)]
enum State {
    /// No: it is disabled, or ends.
    Resting,
    /// It is not known yet; with an error, after an attempt that failed.
    Claiming { error: Option<String> },
    /// No: this service does.
    Standby { holder: Option<String> },
    /// Yes.
    Held(Permit),
}

/// Lets work be done that only one service may do.
#[derive(Clone, Debug)]
pub(super) enum Permit {
    /// Whatever other services do.
    Unclaimed,
    Claimed(Arc<RoutineClaim>),
    /// The routine is claimed for the work alone.
    OnDemand(Catalog, String),
}

impl Permit {
    /// Makes sure that it holds.
    pub(super) async fn check(&self) -> Result<(), CatalogError> {
        match self {
            Self::Claimed(claim) => claim.check().await,
            Self::Unclaimed | Self::OnDemand(..) => Ok(()),
        }
    }

    /// Does the work as long as it holds.
    pub(super) async fn guard<T>(
        &self,
        work: impl Future<Output = Result<T, CatalogError>>,
    ) -> Result<T, CatalogError> {
        match self {
            Self::Unclaimed => work.await,
            Self::Claimed(claim) => claim.guard(work).await,
            Self::OnDemand(catalog, routine) => match catalog.claim_routine(routine).await? {
                Attempt::Taken(claim) => {
                    let done = claim.guard(work).await;
                    // The work is done: what stays of the claim is free after a lease.
                    let _ = claim.release().await;
                    done
                }
                Attempt::Unsupported => work.await,
                Attempt::Held(_) => Err(CatalogError::NotHeld { routine: routine.clone() }),
            },
        }
    }
}

/// What the routine's actor knows of who works on the routine.
#[derive(Debug)]
pub(super) struct Hold {
    state: State,
    /// The attempt under way, the wait for the next one, or for the loss of the claim.
    task: Option<SpawnHandle>,
    /// The claim of the last attempt, whether anybody still waits for that or not.
    claim: Arc<Mutex<Option<Arc<RoutineClaim>>>>,
    /// What was held before is being given up.
    pub released: Option<JoinHandle<()>>,
    /// Canceled when it is known, after an attempt that failed, too.
    decided: CancellationToken,
    backoff: Backoff,
    /// Backups that became due since then are started as soon as this service has the routine.
    due_since: Option<DateTime<Utc>>,
}

impl Hold {
    pub(super) fn new() -> Self {
        Self {
            state: State::Resting,
            task: None,
            claim: Arc::default(),
            released: None,
            decided: CancellationToken::new(),
            backoff: Backoff::default(),
            due_since: None,
        }
    }
}

impl RoutineActor {
    /// Begins to claim the routine, if it has to be. Backups that became due since a time wait for that.
    pub(super) fn seek(&mut self, due_since: DateTime<Utc>, context: &mut Context<Self>) {
        self.hold.due_since = Some(due_since);
        if (self.shared.locks)(&self.settings.storage) {
            self.hold.due_since = None;
            self.decide(State::Held(Permit::Unclaimed));
        } else if self.settings.disabled {
            self.decide(State::Resting);
        } else {
            self.enter(State::Claiming { error: None });
            self.hold.decided = CancellationToken::new();
            self.attempt(context);
        }
    }

    /// Gives the routine up. Its metric is not touched: a routine that is removed has none.
    pub(super) fn let_go(&mut self, context: &mut Context<Self>) {
        if let Some(task) = self.hold.task.take() {
            context.cancel_future(task);
        }
        self.hold.state = State::Resting;
        self.hold.due_since = Some(self.shared.clock.now());
        // An attempt that is under way leaves its claim there.
        let (claim, log) = (std::mem::take(&mut self.hold.claim), self.log.clone());
        self.hold.released = Some(self.shared.runtime.spawn(async move {
            if let Some(claim) = claim.lock().await.take()
                && let Err(e) = claim.release().await
            {
                warn!(log, "the claim on the routine cannot be deleted: other services wait for a lease"; "error" => %e);
            }
        }));
    }

    fn enter(&mut self, state: State) {
        self.shared.metrics.routine_held(&self.settings.name, matches!(state, State::Held(_)));
        self.hold.state = state;
    }

    /// The same when it is known who has the routine, or that this cannot be known.
    fn decide(&mut self, state: State) {
        self.enter(state);
        self.hold.decided.cancel();
    }

    fn attempt(&mut self, context: &mut Context<Self>) {
        let catalog = self.shared.catalogs.of(&self.settings.storage);
        let (name, slot) = (self.settings.name.clone(), Arc::clone(&self.hold.claim));
        let released = self.hold.released.take();
        let attempt = self.shared.runtime.spawn(async move {
            if let Some(released) = released {
                let _ = released.await;
            }
            let mut slot = slot.lock().await;
            Ok(match catalog.claim_routine(&name).await.map_err(|e| e.to_string())? {
                Attempt::Taken(claim) => Ok(Permit::Claimed(Arc::clone(slot.insert(Arc::new(claim))))),
                Attempt::Unsupported => Ok(Permit::Unclaimed),
                Attempt::Held(holder) => Err(holder),
            })
        });
        self.hold.task = Some(context.spawn(attempt.into_actor(self).map(|done, actor, context| {
            match done.map_err(|e| format!("a worker failed: {e}")).flatten() {
                Ok(Ok(permit)) => actor.gain(permit, context),
                Ok(Err(holder)) => actor.stand_by(holder, context),
                Err(e) => actor.fail(e, context),
            }
        })));
    }

    /// This service has the routine.
    fn gain(&mut self, permit: Permit, context: &mut Context<Self>) {
        let storage = self.shared.catalogs.of(&self.settings.storage).storage().describe();
        if let Permit::Claimed(claim) = &permit {
            info!(self.log, "this service has the routine"; "storage" => storage);
            let claim = Arc::clone(claim);
            let over = async move { claim.over().await };
            self.hold.task =
                Some(context.spawn(over.into_actor(self).map(|(), actor, context| actor.lost(context))));
        } else if self.shared.is_news(format!("conditional writes {storage}")) {
            warn!(
                self.log, "the storage does not support conditional writes (If-None-Match): two services that have the same \
                           routine there do not notice each other, and an interrupted backup is continued by the same service only";
                "storage" => storage
            );
        }
        self.hold.backoff.reset();
        self.hold.due_since.get_or_insert(self.shared.clock.now());
        self.decide(State::Held(permit));
        context.notify(ApplyRetention);
        self.sweep(true, context);
    }

    /// Another service has taken the routine. Runs end by their own claims.
    fn lost(&mut self, context: &mut Context<Self>) {
        if !matches!(self.hold.state, State::Held(_)) {
            // It was given up: this may be polled once more before it is canceled.
            return;
        }
        warn!(
            self.log,
            "another service has taken the routine: this one did not renew its claim for a lease"
        );
        self.hold.task = None;
        self.let_go(context);
        self.seek(self.shared.clock.now(), context);
    }

    /// Another service has the routine: its claim is looked at until it is free.
    fn stand_by(&mut self, Holder { owner, idle }: Holder, context: &mut Context<Self>) {
        if !matches!(&self.hold.state, State::Standby { holder } if *holder == owner) {
            warn!(self.log, "another service has the routine: this one stands by"; "service" => &owner);
        }
        self.hold.backoff.reset();
        // It has started what became due while it gave signs of life.
        let idle = TimeDelta::from_std(idle).unwrap_or_default();
        self.hold.due_since = Some(self.shared.clock.now() - idle);
        self.decide(State::Standby { holder: owner });
        self.attempt_after(self.shared.catalogs.owner().lease() / 10, context);
    }

    /// It cannot be known who has the routine now.
    fn fail(&mut self, error: String, context: &mut Context<Self>) {
        let wait = self.hold.backoff.next_wait();
        self.attempt_after(wait, context);
        match &self.hold.state {
            // That service makes what is due, as far as is known.
            State::Standby { .. } => return,
            State::Claiming { error: Some(before) } if *before == error => return,
            _ => {}
        }
        warn!(self.log, "the routine cannot be claimed, so no backups are made; it is tried again"; "error" => &error);
        self.decide(State::Claiming { error: Some(error) });
        if let Some(since) = self.hold.due_since.take() {
            for kind in BackupKind::ALL {
                if self.was_due(kind, since) {
                    self.admit(kind, context);
                }
            }
        }
    }

    fn attempt_after(&mut self, wait: Duration, context: &mut Context<Self>) {
        let clock = Arc::clone(&self.shared.clock);
        let wait = async move { clock.sleep(wait).await };
        let next = wait.into_actor(self).map(|(), actor, context| actor.attempt(context));
        self.hold.task = Some(context.spawn(next));
    }

    /// Waits until it is known whether this service has the routine, but no longer than one who asks does.
    pub(super) fn decided(&self) -> impl Future<Output = ()> + 'static {
        let decided = timeout(PROBE, self.hold.decided.clone().cancelled_owned());
        decided.map(drop)
    }

    /// What lets this service work on the routine, or why it may not.
    pub(super) fn permit(&self) -> Result<Permit, String> {
        match &self.hold.state {
            State::Held(permit) => Ok(permit.clone()),
            State::Standby { holder: Some(owner) } => Err(format!("service {owner} has the routine")),
            State::Standby { holder: None } => Err("another service has the routine".to_owned()),
            State::Claiming { error: Some(e) } => Err(format!("the routine cannot be claimed: {e}")),
            State::Claiming { error: None } => Err("the routine is being claimed: try again".to_owned()),
            State::Resting => Err("the routine is disabled".to_owned()),
        }
    }

    /// The same for a request about backups; a disabled routine is claimed for it.
    pub(super) fn permit_request(&self) -> Result<Permit, RequestError> {
        let name = &self.settings.name;
        if let State::Resting = self.hold.state {
            let catalog = self.shared.catalogs.of(&self.settings.storage);
            return Ok(Permit::OnDemand(catalog, name.clone()));
        }
        self.permit().map_err(|reason| {
            let text = format!("routine {name}: {reason}");
            match self.hold.state {
                State::Standby { .. } => RequestError::Conflict(text),
                _ => RequestError::Failed(text),
            }
        })
    }

    /// Whether backups that are due wait until it is known what another service made.
    pub(super) fn defers(&self) -> bool {
        self.hold.due_since.is_some()
    }

    /// Starts what became due while another service had the routine and does not exist.
    pub(super) fn catch_up(&mut self, context: &mut Context<Self>) {
        if !self.defers() {
            return;
        }
        let load = self.load();
        context.spawn(load.into_actor(self).map(|lasts, actor, context| {
            match lasts {
                Ok(lasts) => actor.loaded(lasts),
                // It is logged by the reading that is repeated until the storage answers.
                Err(_) => actor.keep_loading(context),
            }
            // It may have been lost meanwhile.
            if actor.permit().is_ok()
                && let Some(since) = actor.hold.due_since.take()
            {
                for kind in BackupKind::ALL {
                    let last = actor.lane(kind).last;
                    actor.schedule_backups(kind, last.map_or(since, |last| last.max(since)), context);
                }
            }
        }));
    }
}

impl Handler<Release> for RoutineActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Release, context: &mut Self::Context) -> Self::Result {
        self.let_go(context);
        let released = self.hold.released.take();
        Box::pin(async move {
            if let Some(released) = released {
                // It cannot be joined only when it panicked.
                let _ = released.await;
            }
        })
    }
}
