//! A file that begins anew when it is full, and its old ones.
//!
//! Files are named and kept as the Go library natefinch/lumberjack does it, which the reference service uses: when
//! a line would make `abs.log` larger than it may be, the file is renamed to `abs-2006-01-02T15-04-05.000.log`, after the time in
//! UTC, and begins anew. Old files are then deleted by number and age, and compressed to `….log.gz`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use abs_config::LogFileSettings;
use chrono::{NaiveDateTime, TimeDelta, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::LogError;
use super::output::{Lines, complain, folder};

const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const COMPRESSED: &str = ".gz";
/// One at a time: after a change of the settings there may be two files of the same name for a moment.
static TIDYING: Mutex<()> = Mutex::new(());

/// The file of the log.
pub(super) struct RotatingFile {
    settings: LogFileSettings,
    file: File,
    /// In bytes.
    size: u64,
    /// The last line was written in part.
    torn: bool,
}

impl RotatingFile {
    /// Opens the file, to go on at its end, or makes it and its folder, and tidies up its old ones.
    pub(super) fn open(settings: LogFileSettings) -> Result<Self, LogError> {
        let path = &settings.path;
        let open = || {
            fs::create_dir_all(folder(path))?;
            let file = open(path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        let (file, size) = open().map_err(|source| LogError::Open { path: path.clone(), source })?;
        tidy_aside(&settings);
        Ok(Self { settings, file, size, torn: false })
    }

    /// Makes the file an old one and begins anew.
    fn rotate(&mut self) -> io::Result<()> {
        let path = &self.settings.path;
        match fs::rename(path, old_name(path)) {
            // Somebody else has moved it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = open(path)?;
        self.size = self.file.metadata()?.len();
        self.torn = false;
        tidy_aside(&self.settings);
        Ok(())
    }
}

impl Lines for RotatingFile {
    fn write_line(&mut self, line: &[u8]) -> Result<(), LogError> {
        let path = self.settings.path.clone();
        let limit = u64::from(self.settings.max_size_mb.get()) << 20;
        let full = self.size > 0 && self.size + line.len() as u64 > limit;
        // A line that finds no new file goes to the old one.
        let rotated = if full { self.rotate() } else { Ok(()) };
        let start: &[u8] = if self.torn { b"\n" } else { b"" };
        let written = self.file.write_all(&[start, line].concat());
        if written.is_ok() {
            self.torn = false;
            self.size += (start.len() + line.len()) as u64;
        } else {
            let size = self.file.metadata().map_or(self.size, |metadata| metadata.len());
            self.torn |= size > self.size;
            self.size = size;
        }
        written.map_err(|source| LogError::Write { to: path.display().to_string(), source })?;
        rotated.map_err(|source| LogError::Rotate { path, source })
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The name of a file before its last dot, and the rest.
fn halves(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, extension) = name.split_at(name.rfind('.').unwrap_or(name.len()));
    (format!("{stem}-"), extension.to_owned())
}

/// A free name for the file when it is an old one.
fn old_name(path: &Path) -> PathBuf {
    let (stem, extension) = halves(path);
    let mut time = Utc::now();
    loop {
        let name = format!("{stem}{}{extension}", time.format(TIME));
        let old = path.with_file_name(&name);
        if !old.exists() && !path.with_file_name(name + COMPRESSED).exists() {
            return old;
        }
        time += TimeDelta::milliseconds(1);
    }
}

/// Deletes and compresses old files on a thread of its own, so that no line waits for it. What is cut off by the end
/// of the process is done at the next start.
fn tidy_aside(settings: &LogFileSettings) {
    if settings.max_age_days.is_none() && settings.max_backups.is_none() && !settings.compress {
        return;
    }
    let settings = settings.clone();
    let tidying = std::thread::Builder::new().name("old logs".to_owned()).spawn(move || {
        let path = settings.path.clone();
        if let Err(source) = tidy(&settings) {
            complain(&LogError::Tidy { path, source });
        }
    });
    // A process that can have no more threads has other worries; the next time does.
    drop(tidying);
}

/// Deletes the old files that are too many or too old, and compresses the others.
fn tidy(settings: &LogFileSettings) -> io::Result<()> {
    let _alone = TIDYING.lock().unwrap_or_else(PoisonError::into_inner);
    let oldest =
        settings.max_age_days.map(|days| Utc::now().naive_utc() - TimeDelta::days(days.get().into()));
    let count = settings.max_backups.map_or(usize::MAX, |count| count.get() as usize);
    let mut kept = Vec::new();
    for (time, old) in old_files(&settings.path)? {
        // A file that was being compressed is there twice.
        if kept.last() != Some(&time) {
            kept.push(time);
        }
        if kept.len() > count || oldest.is_some_and(|oldest| time < oldest) {
            fs::remove_file(old)?;
        } else if settings.compress && !old.to_string_lossy().ends_with(COMPRESSED) {
            compress(&old)?;
        }
    }
    Ok(())
}

/// The old files of a file with their times, the newest first.
fn old_files(path: &Path) -> io::Result<Vec<(NaiveDateTime, PathBuf)>> {
    let (stem, extension) = halves(path);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let time = name.strip_suffix(COMPRESSED).unwrap_or(&name);
        let time = time.strip_prefix(stem.as_str()).and_then(|time| time.strip_suffix(extension.as_str()));
        if let Some(Ok(time)) = time.map(|time| NaiveDateTime::parse_from_str(time, TIME))
            && entry.file_type()?.is_file()
        {
            files.push((time, entry.path()));
        }
    }
    files.sort_by(|a, b| b.cmp(a));
    Ok(files)
}

fn compress(old: &Path) -> io::Result<()> {
    let mut compressed = old.as_os_str().to_owned();
    compressed.push(COMPRESSED);
    let compressed = PathBuf::from(compressed);
    let write = || {
        let target =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&compressed)?;
        let mut gzip = GzEncoder::new(target, Compression::default());
        io::copy(&mut File::open(old)?, &mut gzip)?;
        gzip.finish()?.sync_all()
    };
    write().inspect_err(|_| {
        // What was written is no use.
        let _ = fs::remove_file(&compressed);
    })?;
    fs::remove_file(old)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::num::NonZeroU32;

    use flate2::read::GzDecoder;

    use super::*;

    fn settings(path: &Path) -> LogFileSettings {
        LogFileSettings {
            path: path.to_owned(),
            max_size_mb: NonZeroU32::MIN,
            max_age_days: None,
            max_backups: None,
            compress: false,
        }
    }

    /// The names of the files of a folder, in order, with times as `T`.
    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn it_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/abs.log");
        for line in ["one\n", "two\n"] {
            RotatingFile::open(settings(&path)).unwrap().write_line(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_full_file_begins_anew_and_no_line_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abs.log");
        let mut file = RotatingFile::open(settings(&path)).unwrap();
        let line = [vec![b'x'; 299_999], vec![b'\n']].concat();
        for _ in 0..7 {
            file.write_line(&line).unwrap();
        }
        // Three of them fit into a megabyte.
        let sizes: Vec<u64> =
            old_files(&path).unwrap().iter().map(|(_, old)| old.metadata().unwrap().len()).collect();
        assert_eq!(sizes, [900_000, 900_000]);
        assert_eq!(fs::metadata(&path).unwrap().len(), 300_000);
        let old = &names(folder.path())[0];
        assert_eq!(old.len(), "abs-2006-01-02T15-04-05.000.log".len(), "{old}");
        // A line that is larger than a file may be has one of its own.
        file.write_line(&[vec![b'y'; 2 << 20], vec![b'\n']].concat()).unwrap();
        file.write_line(b"z\n").unwrap();
        assert_eq!(old_files(&path).unwrap().len(), 4);
        assert_eq!(fs::read_to_string(&path).unwrap(), "z\n");
    }

    #[test]
    fn a_file_that_was_full_at_the_start_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abs");
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        RotatingFile::open(settings(&path)).unwrap().write_line(b"y\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "y\n");
        assert_eq!(old_files(&path).unwrap().len(), 1);
    }

    #[test]
    fn old_files_are_deleted_by_number_and_age() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abs.log");
        let days_ago = |days| (Utc::now() - TimeDelta::days(days)).format(TIME).to_string();
        let old: Vec<String> = [1, 2, 4, 8].map(|days| format!("abs-{}.log", days_ago(days))).into();
        let strangers = ["abs-notes.log", "abs.txt", "other-2020-01-01T00-00-00.000.log", "abs.log"];
        for name in old.iter().map(String::as_str).chain(strangers) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let left = |settings: &LogFileSettings| {
            tidy(settings).unwrap();
            old.iter().map(|name| folder.path().join(name).exists()).collect::<Vec<_>>()
        };
        assert_eq!(left(&settings(&path)), [true; 4]);
        let by_age = LogFileSettings { max_age_days: NonZeroU32::new(7), ..settings(&path) };
        assert_eq!(left(&by_age), [true, true, true, false]);
        let by_number = LogFileSettings { max_backups: NonZeroU32::new(2), ..settings(&path) };
        assert_eq!(left(&by_number), [true, true, false, false]);
        assert!(strangers.iter().all(|name| folder.path().join(name).exists()));
    }

    #[test]
    fn old_files_are_compressed_even_if_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abs.log");
        let old = ["abs-2026-01-01T00-00-00.000.log", "abs-2026-01-02T00-00-00.000.log"];
        for name in old {
            fs::write(folder.path().join(name), name).unwrap();
        }
        // What a process left when it was killed.
        fs::write(folder.path().join(format!("{}.gz", old[0])), [0x1f, 0x8b]).unwrap();
        let settings = LogFileSettings { max_backups: NonZeroU32::new(2), compress: true, ..settings(&path) };
        tidy(&settings).unwrap();
        assert_eq!(names(folder.path()), old.map(|name| format!("{name}.gz")));
        for name in old {
            let mut text = String::new();
            let file = File::open(folder.path().join(format!("{name}.gz"))).unwrap();
            GzDecoder::new(file).read_to_string(&mut text).unwrap();
            assert_eq!(text, name);
        }
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_next_line_is_whole() {
        let mut file = RotatingFile::open(settings(Path::new("/dev/full"))).unwrap();
        let error = file.write_line(b"x\n").unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot write the log to /dev/full: No space left on device (os error 28): lines are lost until it can be written again"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abs.log");
        let mut file = RotatingFile::open(settings(&path)).unwrap();
        file.write_line(b"one\n").unwrap();
        // As after a write that the disk had room for in part only.
        file.file.write_all(b"tw").unwrap();
        file.torn = true;
        file.write_line(b"three\n").unwrap();
        file.write_line(b"four\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntw\nthree\nfour\n");
    }

    #[test]
    fn a_file_that_cannot_begin_anew_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/abs.log");
        let mut file = RotatingFile::open(settings(&path)).unwrap();
        file.write_line(&[vec![b'x'; (1 << 20) - 1], vec![b'\n']].concat()).unwrap();
        // The folder is gone, so there is no place for a new file; the old one is open still.
        fs::rename(folder.path().join("logs"), folder.path().join("moved")).unwrap();
        let error = file.write_line(b"y\n").unwrap_err().to_string();
        assert!(
            error.starts_with("cannot begin the log file ") && error.ends_with(": it goes on growing"),
            "{error}"
        );
        assert_eq!(fs::metadata(folder.path().join("moved/abs.log")).unwrap().len(), (1 << 20) + 2);
        // When it is back, the next line finds a new file.
        fs::create_dir(folder.path().join("logs")).unwrap();
        file.write_line(b"z\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "z\n");
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let path = file.join("abs.log");
        let error = RotatingFile::open(settings(&path)).err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot open the log file {}: ", path.display())), "{error}");
        assert!(!error.contains('\n'));
    }
}
