//! Requests about the configuration.

use std::sync::Arc;

use abs_config::Problems;
use actix::{ActorFutureExt as _, Handler, MessageResult, ResponseActFuture, WrapFuture as _};
use slog::info;

use super::SupervisorActor;
use crate::config::Configuration;
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
}

impl Handler<ChangeConfig> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, ChangeConfig(change): ChangeConfig, _: &mut Self::Context) -> Self::Result {
        let changing = Arc::clone(&self.changing);
        let turn = async move { changing.lock_owned().await };
        Box::pin(turn.into_actor(self).then(|turn, actor, _| {
            let planned = match &actor.service {
                Some(service) => service
                    .configuration
                    .with(change)
                    .map(|configuration| (configuration, Arc::clone(&service.source))),
                None => Err(RequestError::Stopping),
            };
            let runtime = actor.shared.runtime.clone();
            let written = async move {
                let (configuration, source) = planned?;
                let text = configuration.text();
                let writing = runtime.spawn(async move { source.write(&text).await });
                match writing.await {
                    Ok(Ok(())) => Ok(configuration),
                    Ok(Err(e)) => Err(RequestError::Failed(format!("the change was not made: {e}"))),
                    Err(e) => Err(RequestError::Failed(format!("the change was not made: {e}"))),
                }
            };
            written.into_actor(actor).map(|written, actor, context| {
                actor.adopt(written?, context);
                info!(actor.shared.log, "configuration changed");
                drop(turn);
                Ok(())
            })
        }))
    }
}

impl Handler<ReloadConfig> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, _: ReloadConfig, _: &mut Self::Context) -> Self::Result {
        let changing = Arc::clone(&self.changing);
        let turn = async move { changing.lock_owned().await };
        Box::pin(turn.into_actor(self).then(|turn, actor, _| {
            let source = actor
                .service
                .as_ref()
                .map(|service| (Arc::clone(&service.source), service.environment.clone()));
            let runtime = actor.shared.runtime.clone();
            let read = async move {
                let (source, environment) = source.ok_or(RequestError::Stopping)?;
                let reading = runtime.spawn(async move { source.read().await });
                let text = match reading.await {
                    Ok(Ok(text)) => text,
                    Ok(Err(e)) => return Err(RequestError::Invalid(e)),
                    Err(e) => return Err(RequestError::Failed(e.to_string())),
                };
                let invalid = |problems: Problems| RequestError::Invalid(problems.to_string());
                Configuration::load(&text, &environment).map_err(invalid)
            };
            read.into_actor(actor).map(|read, actor, context| {
                actor.adopt(read?, context);
                info!(actor.shared.log, "configuration loaded again");
                drop(turn);
                Ok(())
            })
        }))
    }
}
