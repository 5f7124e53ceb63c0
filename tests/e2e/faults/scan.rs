//! Scans that break.

use std::time::Duration;

use abs_devserver::{Fault, Kind};
use abs_engine::BackupPlan;

use super::{Data, Numbers, backup, left_in, plan_backup};
use crate::support::{Dump, Server, same};

/// A scan whose connection is cut after any number of bytes gives what the uncut scan gives, no record lost, none
/// twice. Protects: the cursor of each partition against the block that was under way, at every byte of envelope,
/// header, fields and bins.
#[test]
fn a_scan_cut_at_any_byte_loses_and_repeats_nothing() {
    let server = Server::embedded(1);
    // Several blocks of a mebibyte, whose borders lie inside partitions.
    let data = Data { records: 170, partitions: 40, size: 20_000 };
    data.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    // One scan covers all partitions that have records.
    let plan = BackupPlan { parallel: 1, parallel_write: 1, ..plan_backup(&server) };
    let uncut = folder.path().join("uncut");
    backup(&server, &uncut, &plan, async |_| {}).unwrap();
    let uncut = Dump::read(&uncut);
    assert_eq!(uncut.records.len(), 170);
    let mut numbers = Numbers(1);
    for after in (0..100).chain((0..120).map(|_| numbers.below(data.bytes()))) {
        server.dev().knobs().inject(Fault::cut_reply(Kind::Query, after).once());
        let cut = folder.path().join("cut");
        let report = backup(&server, &cut, &plan, async |_| {}).unwrap();
        assert_eq!(report.retries, 1, "cut after {after} bytes");
        assert_eq!(report.metadata.record_count, 170, "cut after {after} bytes");
        same(&Dump::read(&cut), &uncut);
        std::fs::remove_dir_all(&cut).unwrap();
    }
}

/// The same with several nodes and workers, replies of many blocks, and cuts that come one after the other.
#[test]
fn scans_of_several_nodes_cut_again_and_again_lose_and_repeat_nothing() {
    let server = Server::embedded(3);
    let data = Data { records: 900, partitions: 700, size: 12_000 };
    data.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let plan = BackupPlan { parallel: 4, parallel_write: 2, ..plan_backup(&server) };
    let uncut = folder.path().join("uncut");
    backup(&server, &uncut, &plan, async |_| {}).unwrap();
    let uncut = Dump::read(&uncut);
    let mut numbers = Numbers(2);
    for round in 0..25 {
        // Less than the first scan of a node sends, so that every fault strikes.
        for node in 0..3 {
            let after = numbers.below(data.bytes() / 4);
            server.dev().knobs().inject(Fault::cut_reply(Kind::Query, after).on_node(node).times(2));
        }
        let cut = folder.path().join("cut");
        let report = backup(&server, &cut, &plan, async |_| {}).unwrap();
        assert!(report.retries >= 3, "{} retries in round {round}", report.retries);
        same(&Dump::read(&cut), &uncut);
        std::fs::remove_dir_all(&cut).unwrap();
        server.dev().knobs().clear();
    }
}

/// A partition that moves to another node in the middle of its records goes on there, behind the last one that came.
#[test]
fn a_partition_that_moves_in_mid_scan_goes_on_where_it_was() {
    let server = Server::embedded(2);
    // Partition 0 alone fills several blocks.
    let data = Data { records: 300, partitions: 1, size: 30_000 };
    data.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let (still, moved) = (folder.path().join("still"), folder.path().join("moved"));
    let plan = plan_backup(&server);
    backup(&server, &still, &plan, async |_| {}).unwrap();
    let knobs = server.dev().knobs();
    let (from, to) = (knobs.master_of(0).unwrap(), 1 - knobs.master_of(0).unwrap());
    knobs.inject(Fault::delay_reply(Kind::Query, Duration::from_millis(20)));
    let before = knobs.counts_of(to).unwrap().query_records;
    let report = backup(&server, &moved, &plan, async |job| {
        while job.backup().await.records_read == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        knobs.move_partition(0, to).unwrap();
    })
    .unwrap();
    let from_new = knobs.counts_of(to).unwrap().query_records - before;
    assert!((1..300).contains(&from_new), "{from_new} of 300 records came from the new owner");
    assert!(report.retries > 0);
    assert_ne!(from, to);
    same(&Dump::read(&moved), &Dump::read(&still));
}

/// A partition that no node serves for a while is read when one does.
#[test]
fn a_partition_that_is_refused_for_a_while_is_read_later() {
    let server = Server::embedded(2);
    Data { records: 400, partitions: 100, size: 50 }.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let (whole, late) = (folder.path().join("whole"), folder.path().join("late"));
    backup(&server, &whole, &plan_backup(&server), async |_| {}).unwrap();
    let knobs = server.dev().knobs();
    knobs.refuse_partition(7, true).unwrap();
    knobs.refuse_partition(8, true).unwrap();
    backup(&server, &late, &plan_backup(&server), async |job| {
        while job.backup().await.retries < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        knobs.clear();
    })
    .unwrap();
    same(&Dump::read(&late), &Dump::read(&whole));
}

/// A partition that nobody ever serves fails the backup in one line that names it, and nothing is left behind: half a
/// backup must not look like one. Protects: the end of retries, the cleaning up, the exit code.
#[test]
fn a_partition_that_is_refused_forever_fails_the_backup() {
    let server = Server::embedded(2);
    Data { records: 400, partitions: 100, size: 20_000 }.fill(&server);
    server.dev().knobs().refuse_partition(77, true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    server
        .backup(folder.path(), &["--file-limit", "1"])
        .fails(1, &["namespace source-ns2, partition 77", "partition unavailable", "11 attempts"]);
    assert_eq!(left_in(folder.path()), [""; 0]);
}

/// A node that takes a scan and never says a word is given up after the socket timeout, tried again, and fails the
/// backup in the end, in one line. Protects: no wait without a limit.
#[test]
fn a_node_that_never_answers_a_scan_fails_the_backup() {
    let server = Server::embedded(1);
    Data { records: 100, partitions: 100, size: 50 }.fill(&server);
    server.dev().knobs().inject(Fault::delay_request(Kind::Query, Duration::from_hours(1)));
    let folder = tempfile::tempdir().unwrap();
    server
        .backup(folder.path(), &["--socket-timeout", "100"])
        .fails(1, &["namespace source-ns2, partition ", "nothing for 100ms", "11 attempts"]);
    assert_eq!(left_in(folder.path()), [""; 0]);
}

/// A node that says nothing for a while, in the middle of a scan too, costs time only.
#[test]
fn a_node_that_is_silent_for_a_while_costs_time_only() {
    let server = Server::embedded(2);
    Data { records: 900, partitions: 200, size: 5_000 }.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let (whole, late) = (folder.path().join("whole"), folder.path().join("late"));
    backup(&server, &whole, &plan_backup(&server), async |_| {}).unwrap();
    let plan = BackupPlan { socket_timeout: Duration::from_millis(100), ..plan_backup(&server) };
    let hour = Duration::from_hours(1);
    server.dev().knobs().inject(Fault::delay_request(Kind::Query, hour).times(3));
    server.dev().knobs().inject(Fault::delay_reply(Kind::Query, hour).times(3));
    let report = backup(&server, &late, &plan, async |_| {}).unwrap();
    assert!(report.retries >= 3, "{} retries", report.retries);
    same(&Dump::read(&late), &Dump::read(&whole));
}
