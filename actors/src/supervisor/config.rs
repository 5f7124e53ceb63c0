//! Requests about the configuration.

use std::sync::Arc;

use actix::{ActorFutureExt as _, Handler, MessageResult, ResponseActFuture, WrapFuture as _};
use slog::info;

use super::SupervisorActor;
use crate::config::{ConfigSource, Configuration};
use crate::messages::{ChangeConfig, ConfigSnapshot, GetConfig, ReloadConfig, RequestError};

type Answer = ResponseActFuture<SupervisorActor, Result<(), RequestError>>;

impl Handler<GetConfig> for SupervisorActor {
    type Result = MessageResult<GetConfig>;

    fn handle(&mut self, _: GetConfig, _: &mut Self::Context) -> Self::Result {
        let snapshot = match &self.service {
            Some(service) => service.configuration.snapshot(),
            None => ConfigSnapshot::default(),
        };
        MessageResult(snapshot)
    }
}

impl SupervisorActor {
    fn adopt(&mut self, configuration: Configuration, context: &mut actix::Context<Self>) {
        if let Some(service) = &mut self.service {
            service.configuration = configuration;
        }
        self.adopt_routines(context);
    }

    /// Makes another configuration of the one in force, one after the other, and adopts it. It is made on the runtime:
    /// here a large document would hold up everybody, and a panic would end the service.
    fn change<F>(
        &self,
        done: &'static str,
        make: impl FnOnce(Configuration, Arc<dyn ConfigSource>) -> F + 'static,
    ) -> Answer
    where
        F: Future<Output = Result<Configuration, RequestError>> + Send + 'static,
    {
        let changing = Arc::clone(&self.changing);
        let turn = async move { changing.lock_owned().await };
        Box::pin(turn.into_actor(self).then(move |turn, actor, _| {
            let service = actor.service.as_ref();
            let service = service.map(|service| (service.configuration.clone(), Arc::clone(&service.source)));
            let runtime = actor.shared.runtime.clone();
            let made = async move {
                let (configuration, source) = service.ok_or(RequestError::Stopping)?;
                let making = runtime.spawn(make(configuration, source));
                making.await.map_err(|e| RequestError::Failed(format!("a worker failed: {e}")))?
            };
            made.into_actor(actor).map(move |made, actor, context| {
                actor.adopt(made?, context);
                info!(actor.shared.log, "{done}");
                drop(turn);
                Ok(())
            })
        }))
    }
}

impl Handler<ChangeConfig> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, ChangeConfig(change): ChangeConfig, _: &mut Self::Context) -> Self::Result {
        self.change("configuration changed", |configuration, source| async move {
            let configuration = configuration.with(change)?;
            let written = source.write(&configuration.text()).await;
            written.map_err(|e| RequestError::Failed(format!("the change was not made: {e}")))?;
            Ok(configuration)
        })
    }
}

impl Handler<ReloadConfig> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, _: ReloadConfig, _: &mut Self::Context) -> Self::Result {
        self.change("configuration loaded again", |configuration, source| async move {
            let text = source.read().await.map_err(RequestError::Invalid)?;
            configuration.reload(&text).map_err(|problems| RequestError::Invalid(problems.to_string()))
        })
    }
}
