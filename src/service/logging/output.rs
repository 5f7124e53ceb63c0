//! Where the lines of the log go.

use std::io::{self, Write};
use std::path::Path;

use abs_config::{LogFormat, LoggerSettings};
use slog::{OwnedKVList, Record};

use super::rotating_file::RotatingFile;
use super::{LogError, line};

/// The standard output and the file, as the settings say.
pub(super) struct Output {
    format: LogFormat,
    stdout: Option<Destination<Stdout>>,
    file: Option<Destination<RotatingFile>>,
}

/// Something that takes lines.
pub(super) trait Lines {
    /// Writes a line, which ends in a line feed.
    fn write_line(&mut self, line: &[u8]) -> Result<(), LogError>;
}

struct Stdout;

impl Lines for Stdout {
    fn write_line(&mut self, line: &[u8]) -> Result<(), LogError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(line)
            .and_then(|()| stdout.flush())
            .map_err(|source| LogError::Write { to: "the standard output".to_owned(), source })
    }
}

/// Takes lines and remembers whether it could write them.
struct Destination<L> {
    lines: L,
    failing: bool,
}

impl<L: Lines> Destination<L> {
    fn new(lines: L) -> Self {
        Self { lines, failing: false }
    }

    /// Writes a line. What is wrong is returned once, until a line is written without fault again.
    fn write(&mut self, line: &[u8]) -> Option<LogError> {
        let error = self.lines.write_line(line).err();
        let known = std::mem::replace(&mut self.failing, error.is_some());
        error.filter(|_| !known)
    }
}

impl Output {
    /// Opens what the settings name.
    pub(super) fn open(settings: &LoggerSettings) -> Result<Self, LogError> {
        Ok(Self {
            format: settings.format,
            stdout: settings.stdout.then(|| Destination::new(Stdout)),
            file: settings.file.clone().map(RotatingFile::open).transpose()?.map(Destination::new),
        })
    }

    /// Writes a record everywhere. What cannot be written is lost, and said on the standard error.
    pub(super) fn write(&mut self, record: &Record<'_>, values: &OwnedKVList) {
        let line = line::line(self.format, record, values);
        let line = line.as_bytes();
        let stdout = self.stdout.as_mut().and_then(|stdout| stdout.write(line));
        let file = self.file.as_mut().and_then(|file| file.write(line));
        stdout.iter().chain(&file).for_each(complain);
    }
}

/// Says what is wrong with the log where it can still be said.
pub(super) fn complain(error: &LogError) {
    // There is no other place to say that this failed.
    let _ = writeln!(io::stderr().lock(), "abs: {error}");
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Flaky(Vec<bool>);

    impl Lines for Flaky {
        fn write_line(&mut self, _: &[u8]) -> Result<(), LogError> {
            if self.0.remove(0) {
                return Ok(());
            }
            Err(LogError::Write { to: "it".to_owned(), source: io::ErrorKind::StorageFull.into() })
        }
    }

    #[test]
    fn a_fault_is_said_once_until_it_is_over() {
        let mut destination = Destination::new(Flaky(vec![true, false, false, true, false, false]));
        let said: Vec<bool> = (0..6).map(|_| destination.write(b"x\n").is_some()).collect();
        assert_eq!(said, [false, true, false, false, true, false]);
    }
}
