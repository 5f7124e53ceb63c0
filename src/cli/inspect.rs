//! `abs inspect`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use abs_engine::{FileReport, FolderReport};
use abs_storage::{Local, ObjectPath};
use clap::Args;
use indicatif::HumanBytes;

use super::Failure;
use super::options::Decryption;
use super::place::{OtherStorage, Place, within};
use super::view::{contents, count, say, shown};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folders and .asb files.
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    place: OtherStorage,
    #[command(flatten)]
    decryption: Decryption,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let keys = arguments.decryption.keys()?;
    let other = arguments.place.open()?;
    let mut reports = Vec::new();
    for path in &arguments.paths {
        // The name of the root of the storage, too: files are told by the names that the user knows them by.
        let (Place { storage, path: object, name }, root) = match &other {
            Some(storage) => (within(Arc::clone(storage), path)?, storage.describe()),
            None => locate(path)?,
        };
        let mut report = abs_engine::inspect(&storage, &object, &keys).await.map_err(Failure::job)?;
        for file in &mut report.files {
            file.file = Path::new(&root).join(&file.file).display().to_string();
        }
        reports.push((name, report));
    }
    if arguments.json {
        let reports: Vec<&FolderReport> = reports.iter().map(|(_, report)| report).collect();
        say(&serde_json::to_string(&reports).map_err(Failure::job)?)?;
    } else {
        for (name, report) in &reports {
            say(&lines(name, report).join("\n"))?;
        }
    }
    let problems: usize = reports
        .iter()
        .map(|(_, r)| r.problems.len() + r.files.iter().filter(|f| f.problem.is_some()).count())
        .sum();
    match problems {
        0 => Ok(()),
        n => Err(Failure::Job(format!("{} found", count(n as u64, "problem")))),
    }
}

/// A folder is a storage of its own; a file is an object of its folder's. And the folder's name.
fn locate(path: &Path) -> Result<(Place, String), Failure> {
    if !path.exists() {
        return Err(Failure::Usage(format!("{} does not exist", path.display())));
    }
    let name = path.display().to_string();
    if path.is_dir() {
        let place =
            Place { storage: Arc::new(Local::new(path)), path: ObjectPath::root(), name: name.clone() };
        return Ok((place, name));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let file = ObjectPath::new(&file).map_err(Failure::usage)?;
    let root = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Ok((Place { storage: Arc::new(Local::new(root)), path: file, name }, folder.display().to_string()))
}

fn lines(name: &str, report: &FolderReport) -> Vec<String> {
    let problem = |what: &String| format!("  problem: {}", shown(what));
    let mut lines = Vec::new();
    for file in &report.files {
        lines.push(shown(&line(file)));
        lines.extend(file.problem.as_ref().map(problem));
    }
    let sum = |count: fn(&FileReport) -> usize| report.files.iter().map(count).sum::<usize>() as u64;
    let contents =
        contents(&count(report.records(), "record"), sum(|f| f.indexes.len()), sum(|f| f.udfs.len()));
    let bytes = HumanBytes(report.files.iter().map(|f| f.bytes).sum());
    let files = count(report.files.len() as u64, "file");
    lines.push(format!("{name}: {files}, {bytes}, {contents}"));
    lines.extend(report.problems.iter().map(problem));
    lines
}

fn line(file: &FileReport) -> String {
    let mut parts = vec![HumanBytes(file.bytes).to_string()];
    if !file.version.is_empty() {
        parts.push(format!("version {}", file.version));
    }
    if file.compression != "none" {
        parts.push(format!("{} ({} of text)", file.compression, HumanBytes(file.text_bytes)));
    }
    if file.encrypted {
        parts.push("encrypted".to_owned());
    }
    for (namespace, records) in &file.records {
        parts.push(format!("{} of namespace {namespace}", count(*records, "record")));
    }
    if !file.sets.is_empty() {
        parts.push(format!("sets {}", file.sets.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    if !file.indexes.is_empty() {
        parts.push(format!("indexes {}", file.indexes.join(", ")));
    }
    if !file.udfs.is_empty() {
        parts.push(format!("UDF modules {}", file.udfs.join(", ")));
    }
    format!("{}: {}", file.file, parts.join("; "))
}
