//! The process that writes to a folder, and whether it still runs.

use std::fmt;

use rustix::process::{Pid, test_kill_process};

/// A process of a running system. Its number alone would not do: numbers are used again, and each container has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimant {
    /// The system since its last start, on no other machine the same.
    boot: String,
    /// The space of process numbers, which each container has for itself.
    space: String,
    process: i32,
    /// When the process began, in ticks since the system did.
    since: u64,
}

impl Claimant {
    /// This process; none where the system does not tell.
    pub(crate) fn this() -> Option<Self> {
        let process = std::process::id() as i32;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let (_, since) = state(process)?;
        Some(Self { boot, space: space()?, process, since })
    }

    /// The claimant in a text that ends with one.
    pub(crate) fn at_the_end_of(text: &str) -> Option<Self> {
        let mut words = text.trim_end().rsplit(' ');
        let since = words.next()?.parse().ok()?;
        let process = words.next()?.parse().ok()?;
        let (space, boot) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { boot, space, process, since })
    }

    /// What can be known here of the process.
    pub(crate) fn life(&self) -> Life {
        let Some(this) = Self::this() else { return Life::Unknown };
        if (&this.boot, &this.space) != (&self.boot, &self.space) {
            return Life::Unknown;
        }
        match state(self.process) {
            Some((_, since)) if since != self.since => Life::Ended,
            Some((state, _)) => match state.as_str() {
                // One that has ended may wait for its parent.
                "Z" | "X" => Life::Ended,
                // One that is stopped may be forever.
                "T" | "t" => Life::Unknown,
                _ => Life::Running,
            },
            // Processes of others may be hidden.
            None => match Pid::from_raw(self.process).map(test_kill_process) {
                Some(Err(rustix::io::Errno::SRCH)) => Life::Ended,
                _ => Life::Unknown,
            },
        }
    }
}

/// What can be known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It is one of this system, and runs.
    Running,
    /// It was one of this system, and has ended.
    Ended,
    /// It is one of another system, or is stopped.
    Unknown,
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.boot, self.space, self.process, self.since)
    }
}

fn space() -> Option<String> {
    std::fs::read_link("/proc/self/ns/pid").ok()?.to_str().map(str::to_owned)
}

/// The state of a process, and when it began; none if none of this number is to be seen.
fn state(process: i32) -> Option<(String, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the name in brackets, may hold anything; the state follows, and the time is the 22nd.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.nth(18)?.parse().ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_this_system_can_be_known_to_be_gone() {
        let this = Claimant::this().unwrap();
        let again = Claimant::at_the_end_of(&format!("written here by {this}\n")).unwrap();
        assert_eq!(again, this);
        assert_eq!(this.life(), Life::Running);
        let reused = Claimant { since: this.since + 1, ..this.clone() };
        assert_eq!(reused.life(), Life::Ended, "its number was used again");
        for (boot, space) in [("other", &*this.space), (&*this.boot, "pid:[1]")] {
            let other = Claimant { boot: boot.into(), space: space.into(), process: i32::MAX, since: 1 };
            assert_eq!(other.life(), Life::Unknown);
        }
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let claimant =
            Claimant { process: child.id() as i32, since: state(child.id() as i32).unwrap().1, ..this };
        let becomes = |life| {
            (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                claimant.life() == life
            })
        };
        assert!(becomes(Life::Running));
        rustix::process::kill_process(Pid::from_child(&child), rustix::process::Signal::STOP).unwrap();
        assert!(becomes(Life::Unknown));
        child.kill().unwrap();
        assert!(becomes(Life::Ended), "its parent has not waited for it yet");
        child.wait().unwrap();
        assert!(becomes(Life::Ended));
        for text in ["", "a backup that began at some time is being written here\n", "a b c d"] {
            assert_eq!(Claimant::at_the_end_of(text), None);
        }
    }
}
