//! What a running job shows: a bar on a terminal, a line now and then elsewhere. Both go to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::Failure;

const REDRAW: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One look at a job.
pub(super) struct Look {
    /// How far it is and how far it has to go; a total of 0 is not known.
    pub done: u64,
    pub total: u64,
    pub records: u64,
    pub bytes: u64,
    pub elapsed: Duration,
}

/// Shows a job until `job` ends, and returns its result.
pub(super) async fn watch<T>(
    verb: &'static str,
    look: impl AsyncFn() -> Option<Look>,
    job: impl Future<Output = T>,
) -> T {
    tokio::pin!(job);
    let bar = std::io::stderr().is_terminal().then(|| bar(verb));
    let mut ticks = tokio::time::interval(if bar.is_some() { REDRAW } else { LINE_EVERY });
    // The first tick is immediate.
    ticks.tick().await;
    loop {
        tokio::select! {
            biased;
            result = &mut job => {
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                return result;
            }
            _ = ticks.tick() => {
                let Some(now) = look().await else { continue };
                match &bar {
                    Some(bar) => draw(bar, &now),
                    None => complain(&line(verb, &now)),
                }
            }
        }
    }
}

fn bar(verb: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3} % {msg} {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.set_prefix(verb);
    bar
}

fn draw(bar: &ProgressBar, now: &Look) {
    bar.set_length(now.total.max(now.done).max(1));
    bar.set_position(now.done);
    bar.set_message(rates(now));
}

fn line(verb: &str, now: &Look) -> String {
    let share = match now.total {
        0 => String::new(),
        total => format!(" {} %,", (now.done * 100 / total).min(100)),
    };
    let left = match now.done {
        0 => String::new(),
        done => {
            let seconds = now.elapsed.as_secs_f64() * now.total.saturating_sub(done) as f64 / done as f64;
            format!(", {seconds:.0} s left")
        }
    };
    format!("{verb}:{share} {}{left}", rates(now))
}

fn rates(now: &Look) -> String {
    let seconds = now.elapsed.as_secs_f64().max(1e-3);
    format!(
        "{}, {} records/s, {}/s",
        count(now.records, "record"),
        HumanCount((now.records as f64 / seconds) as u64),
        HumanBytes((now.bytes as f64 / seconds) as u64)
    )
}

/// Prints to standard output. A reader that has gone, as `head` does, is no failure.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(format!("{text}\n").as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Job(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints to standard error, if there is one.
pub(super) fn complain(text: &str) {
    // There is no other place to say that this failed.
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Text of foreign origin on one line, harmless to a terminal: control characters as `\n`, `\u{1b}`.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// `1 record`, `2,000 records`; `thing` is one of them.
pub(super) fn count(number: u64, thing: &str) -> String {
    let ending = match (number, thing) {
        (1, _) => "",
        (_, "index") => "es",
        _ => "s",
    };
    format!("{} {thing}{ending}", HumanCount(number))
}

/// `RECORDS, 1 index and 2 UDF modules`.
pub(super) fn contents(records: &str, indexes: u64, udfs: u64) -> String {
    format!("{records}, {} and {}", count(indexes, "index"), count(udfs, "UDF module"))
}

/// A summary line's amounts: records and bytes over a time.
pub(super) fn amounts(records: u64, bytes: u64, elapsed: Duration) -> String {
    let now = Look { done: 0, total: 0, records, bytes, elapsed };
    format!("{} in {:.2} s ({})", HumanBytes(bytes), elapsed.as_secs_f64(), rates(&now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_foreign_text_are_readable() {
        assert_eq!(contents(&count(1, "record"), 1, 1), "1 record, 1 index and 1 UDF module");
        assert_eq!(contents(&count(2000, "record"), 0, 2), "2,000 records, 0 indexes and 2 UDF modules");
        assert_eq!(shown("a b\\ключ\n\u{1b}[31m"), "a b\\ключ\\n\\u{1b}[31m");
    }
}
