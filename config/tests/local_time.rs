//! Local times where the clocks are put forward and back. A process reads its time zone once, so the zone is that of a
//! process of its own.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use abs_config::Timestamp;

const MARK: &str = "ABS_TEST_IN_ZONE";

#[test]
fn local_times_follow_the_clocks() {
    if std::env::var_os(MARK).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "local_times_follow_the_clocks", "--nocapture"]);
        // Central Europe: forward on the last Sunday of March at 2:00, back on that of October at 3:00.
        let output = command.env(MARK, "1").env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3").output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    for (local, utc) in [
        ("2024-01-01_12:00:00", "2024-01-01T11:00:00Z"),
        ("2024-07-01_12:00:00", "2024-07-01T10:00:00Z"),
        ("2024-03-31_01:59:59", "2024-03-31T00:59:59Z"),
        ("2024-03-31_03:00:00", "2024-03-31T01:00:00Z"),
    ] {
        assert_eq!(local.parse::<Timestamp>().unwrap().to_string(), utc);
    }
    let gone = "2024-03-31_02:30:00".parse::<Timestamp>().unwrap_err().to_string();
    assert!(gone.ends_with("does not exist here: the clocks were put forward then"), "{gone}");
    let twice = "2024-10-27_02:30:00".parse::<Timestamp>().unwrap_err().to_string();
    assert!(twice.contains("happened twice here"), "{twice}");
}
