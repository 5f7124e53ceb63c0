//! `abs verify`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use abs_engine::{Depth, RestoreProgress, Verdict, Verification, VerifiedBackup};
use clap::Args;
use indicatif::HumanBytes;
use serde_json::json;

use super::Failure;
use super::options::Decryption;
use super::place::OtherStorage;
use super::view::{Look, count, say, shown, watch};

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 whole, 1 damaged, 2 not everything could be looked at.")]
pub(super) struct Arguments {
    /// The folder of a backup; of several backups below it each is verified.
    #[arg(short, long, value_name = "DIR")]
    directory: PathBuf,
    /// Only look whether the manifest is right and every file is there and has its size.
    #[arg(long)]
    quick: bool,
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
    let place = arguments.place.existing_folder(&arguments.directory)?;
    let root = if arguments.place.is_this_machine() { place.name.clone() } else { place.storage.describe() };
    let depth = if arguments.quick { Depth::Quick } else { Depth::Full };
    let progress = Arc::new(RestoreProgress::default());
    let look = async || {
        let now = progress.snapshot();
        let (done, total) = (now.bytes_read, now.total_bytes);
        Some(Look { done, total, records: now.read, bytes: done, elapsed: now.elapsed })
    };
    let verified = abs_engine::verify(&place.storage, &place.path, &keys, depth, &progress);
    // Whatever keeps from looking, or from telling, is not a damage.
    let mut found = watch("verifying", look, verified).await.map_err(Failure::usage)?;
    for folder in found.backups.iter_mut().map(|backup| &mut backup.folder).chain(&mut found.unfinished) {
        let name = Path::new(&root).join(&*folder).display().to_string();
        name.trim_end_matches('/').clone_into(folder);
    }
    let text = if arguments.json { document(&found).to_string() } else { lines(&found).join("\n") };
    say(&text).map_err(Failure::usage)?;
    let number = |verdict| found.backups.iter().filter(|backup| backup.verdict() == verdict).count() as u64;
    match found.verdict() {
        Verdict::Whole => Ok(()),
        Verdict::Damaged => {
            Err(Failure::Job(format!("{} damaged", count(number(Verdict::Damaged), "backup"))))
        }
        Verdict::NotVerifiable => {
            Err(Failure::Usage(format!("{} not verifiable", count(number(Verdict::NotVerifiable), "backup"))))
        }
    }
}

fn lines(found: &Verification) -> Vec<String> {
    let mut lines = Vec::new();
    for backup in &found.backups {
        lines.extend(backup.problems.iter().map(|what| format!("  problem: {}", shown(what))));
        lines.extend(backup.obstacles.iter().map(|what| format!("  not verifiable: {}", shown(what))));
        lines.push(shown(&line(backup, found.depth)));
    }
    lines.extend(found.unfinished.iter().map(|folder| {
        shown(&format!(
            "{folder}: left out: it is being written, or was not written to its end (in-progress)"
        ))
    }));
    lines
}

/// The result of one backup.
fn line(backup: &VerifiedBackup, depth: Depth) -> String {
    let verdict = match backup.verdict() {
        Verdict::Whole => "whole",
        Verdict::Damaged => "damaged",
        Verdict::NotVerifiable => "not verifiable",
    };
    let mut parts = vec![count(backup.files, "file"), HumanBytes(backup.bytes).to_string()];
    parts.extend(backup.records.map(|records| count(records, "record")));
    let mut line = format!("{}: {verdict}: {}", backup.folder, parts.join(", "));
    if depth == Depth::Quick {
        line.push_str("; quick: no file was read");
    }
    if backup.structure_only {
        line.push_str("; structure only: it has no manifest.json");
    }
    line
}

fn document(found: &Verification) -> serde_json::Value {
    let backup = |backup: &VerifiedBackup| {
        json!({
            "folder": backup.folder,
            "namespace": backup.namespace,
            "verdict": backup.verdict(),
            "structure-only": backup.structure_only,
            "files": backup.files,
            "bytes": backup.bytes,
            "records": backup.records,
            "problems": backup.problems,
            "not-verifiable": backup.obstacles,
        })
    };
    json!({
        "depth": found.depth,
        "verdict": found.verdict(),
        "backups": found.backups.iter().map(backup).collect::<Vec<_>>(),
        "unfinished": found.unfinished,
    })
}
