//! Panics in the log.

use std::panic;

use slog::{Logger, error};

/// From now on a panic is one line of the log, and nothing on the standard error.
pub fn log_all(log: Logger) {
    panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        error!(log, "a panic: {}", panic.payload_as_str().unwrap_or("no message");
            "thread" => thread.name(), "place" => place);
    }));
}
