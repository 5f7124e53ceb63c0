//! What this process has used up, for summaries that scripts and benchmarks read.

use serde_json::{Value, json};

/// CPU seconds of all threads and the peak of resident memory in bytes, as the system counts them; null where it
/// does not say.
pub(super) fn add_to(summary: &mut Value) {
    summary["cpu-seconds"] = json!(cpu_seconds());
    summary["peak-memory-bytes"] = json!(peak_memory());
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name in parentheses, which may hold anything: user and system time are words 12 and 13.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = words.next()?.parse().ok()?;
    let system: f64 = words.next()?.parse().ok()?;
    // Linux shows these in hundredths of a second whatever the kernel's own tick.
    Some((user + system) / 100.0)
}

fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
