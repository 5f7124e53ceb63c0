//! Tells the build what it is of: the commit and the time, without git and without network.
//!
//! `ABS_COMMIT` names the commit (packagers set it); otherwise it is read from the `.git` folder, if there is one.
//! `SOURCE_DATE_EPOCH` gives the time in seconds since 1970, so that builds can be repeated byte for byte.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=ABS_COMMIT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let commit = env::var("ABS_COMMIT").ok().or_else(head).unwrap_or_default();
    println!("cargo::rustc-env=ABS_COMMIT={}", commit.trim());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let time = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or_else(now);
    println!("cargo::rustc-env=ABS_BUILD_EPOCH={time}");
}

/// The commit that is checked out.
fn head() -> Option<String> {
    let git = Path::new(".git");
    let head = read(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ").map(str::trim) else { return Some(head) };
    read(&git.join(name)).or_else(|| {
        let packed = read(&git.join("packed-refs"))?;
        packed.lines().find_map(|line| line.strip_suffix(name)).map(str::to_owned)
    })
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text)
}
