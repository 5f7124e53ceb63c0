//! `abs health`

use std::time::Duration;

use clap::Args;
use ureq::http::Uri;

use super::Failure;
use super::view::say;
use crate::service::client::agent;

/// How long a service that is alive may take to say so.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to ask: `/health`, behind the context path if there is one; `/ready` tells whether storage and clusters can
    /// be reached.
    #[arg(default_value = "http://127.0.0.1:8080/health")]
    url: Uri,
}

pub(super) async fn run(Arguments { url }: Arguments) -> Result<(), Failure> {
    let get = move || {
        agent(url.scheme_str() == Some("https"), TIMEOUT).get(url).call()?.body_mut().read_to_string()
    };
    let answer = tokio::task::spawn_blocking(get).await.map_err(Failure::job)?;
    say(&answer.map_err(|e| Failure::Job(format!("no good answer: {e}")))?)
}
