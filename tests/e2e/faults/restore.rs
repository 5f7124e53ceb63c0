//! Batches of a restore that break or are refused.

use std::path::Path;
use std::time::Duration;

use abs_actors::StartRestore;
use abs_config::Retry;
use abs_devserver::{Fault, Kind, ResultCode};
use abs_engine::{EngineError, RestorePlan, RestoreReport};
use abs_storage::ObjectPath;

use super::{Data, Numbers, RestoreFailed, adds_up, backup, empty, plan_backup, plan_restore, restore};
use crate::raw;
use crate::support::{Dump, HANGS, Server, same};

/// A server whose namespace has been backed up to the folder, and what the backup holds.
fn backed_up(nodes: usize, data: Data, folder: &Path) -> (Server, Dump) {
    let server = Server::embedded(nodes);
    data.fill(&server);
    backup(&server, folder, &plan_backup(&server), async |_| {}).unwrap();
    (server, Dump::read(folder))
}

/// Insists that the namespace holds what `expected` says, but for generations: a row sent twice may count two.
#[track_caller]
fn holds(server: &Server, expected: &Dump) {
    let again = tempfile::tempdir().unwrap();
    backup(server, again.path(), &plan_backup(server), async |_| {}).unwrap();
    same(&Dump::read(again.path()).restored(), expected);
}

/// Insists on an error of one line that contains all of `parts`.
#[track_caller]
fn says(result: Result<RestoreReport, RestoreFailed>, parts: &[&str]) {
    let error = result.expect_err("the restore goes well").to_string();
    assert!(parts.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{error}");
}

const SMALL: Data = Data { records: 200, partitions: 90, size: 80 };

/// A connection that is cut in the middle of a batch's answers costs nothing: every record is there in the end, once, and
/// rows whose answer was lost are counted as in doubt, no more and no fewer. Protects: the counters, and the sending again
/// of exactly the rows without an answer.
#[test]
fn an_answer_cut_at_any_byte_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, expected) = backed_up(1, SMALL, folder.path());
    let plan = RestorePlan { parallel: 2, batch_size: 30, max_async_batches: 4, ..plan_restore(&server) };
    let mut numbers = Numbers(3);
    for after in (0..70).chain((0..60).map(|_| numbers.below(30 * 22))) {
        empty(&server);
        server.dev().knobs().inject(Fault::cut_reply(Kind::Batch, after).once());
        let (result, c) = restore(&server, folder.path(), &plan);
        result.unwrap();
        adds_up(&c);
        assert_eq!((c.read, c.inserted + c.fresher), (200, 200), "cut after {after} bytes: {c:?}");
        // The server did what it could not tell: sent again, those rows find themselves stored.
        assert_eq!(c.in_doubt, c.fresher, "cut after {after} bytes: {c:?}");
        assert!((1..=30).contains(&c.in_doubt) && c.retries == 1, "cut after {after} bytes: {c:?}");
        assert_eq!(server.objects(), 200);
    }
    holds(&server, &expected);
}

/// Answers that came before the cut stand: only the rows behind it are sent again, and none when all were answered.
#[test]
fn answers_before_a_cut_are_not_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    // A single batch, answered in two blocks of at most 128 KiB, at 22 bytes a row, and an end.
    let data = Data { records: 6500, partitions: 4000, size: 16 };
    let (server, expected) = backed_up(1, data, folder.path());
    let plan = RestorePlan { parallel: 1, batch_size: 6500, ..plan_restore(&server) };
    let first = (128 << 10) / 22 + 1;
    for (after, in_doubt) in [(70_000, 6500), (135_000, 6500 - first), (143_020, 0)] {
        empty(&server);
        server.dev().knobs().inject(Fault::cut_reply(Kind::Batch, after).once());
        let (result, c) = restore(&server, folder.path(), &plan);
        result.unwrap();
        adds_up(&c);
        assert_eq!((c.inserted + c.fresher, c.in_doubt), (6500, in_doubt), "cut after {after} bytes");
        assert!(c.fresher <= in_doubt, "cut after {after} bytes: {c:?}");
        assert_eq!(c.retries, u64::from(in_doubt > 0));
    }
    holds(&server, &expected);
}

/// The same when the connection goes before the server did anything, for batches and for single writes.
#[test]
fn a_request_cut_before_it_is_done_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, expected) = backed_up(2, SMALL, folder.path());
    for (disable_batch_writes, kind) in [(false, Kind::Batch), (true, Kind::Write)] {
        for times in [1, 2, 7] {
            empty(&server);
            server.dev().knobs().inject(Fault::cut_request(kind).times(times));
            let plan = RestorePlan { disable_batch_writes, batch_size: 30, ..plan_restore(&server) };
            let (result, c) = restore(&server, folder.path(), &plan);
            result.unwrap();
            adds_up(&c);
            assert_eq!((c.read, c.inserted, c.fresher), (200, 200, 0), "{c:?}");
            assert!(c.in_doubt >= times && c.retries == times, "{times} times: {c:?}");
            holds(&server, &expected);
        }
    }
}

/// Every policy comes through cuts on several nodes with counters that add up.
#[test]
fn counters_add_up_under_every_policy_while_connections_break() {
    let folder = tempfile::tempdir().unwrap();
    let data = Data { records: 1500, partitions: 500, size: 700 };
    let (server, expected) = backed_up(3, data, folder.path());
    let mut numbers = Numbers(4);
    for policy in ["default", "no-generation", "unique", "replace", "singly"] {
        empty(&server);
        let knobs = server.dev().knobs();
        let kind = if policy == "singly" { Kind::Write } else { Kind::Batch };
        for node in 0..3 {
            knobs.inject(Fault::cut_reply(kind, numbers.below(20)).on_node(node).times(4));
            knobs.inject(Fault::cut_request(kind).on_node(node).times(3));
        }
        let plan = RestorePlan {
            no_generation: policy == "no-generation",
            unique: policy == "unique",
            replace: policy == "replace",
            disable_batch_writes: policy == "singly",
            batch_size: 32,
            max_async_batches: 8,
            ..plan_restore(&server)
        };
        let (result, c) = restore(&server, folder.path(), &plan);
        result.unwrap();
        adds_up(&c);
        assert_eq!(c.read, 1500, "{policy}: {c:?}");
        assert!(c.retries >= 7 && c.in_doubt >= 7, "{policy}: {c:?}");
        let (own, other) = if policy == "unique" { (c.existed, c.fresher) } else { (c.fresher, c.existed) };
        assert!(own <= c.in_doubt && other == 0, "{policy}: {c:?}");
        assert!(policy != "no-generation" || c.inserted == 1500, "{policy}: {c:?}");
        knobs.clear();
        holds(&server, &expected);
    }
}

/// A row that the server refuses for the moment is sent again alone; nothing is in doubt, nothing is written twice.
#[test]
fn a_row_that_is_refused_for_the_moment_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, expected) = backed_up(1, SMALL, folder.path());
    for code in [ResultCode::DEVICE_OVERLOAD, ResultCode::KEY_BUSY, ResultCode::UNAVAILABLE] {
        for row in [0, 17, 29] {
            empty(&server);
            server.dev().knobs().inject(Fault::fail_row(row, code).times(3));
            let plan = RestorePlan { batch_size: 30, ..plan_restore(&server) };
            let (result, c) = restore(&server, folder.path(), &plan);
            result.unwrap();
            adds_up(&c);
            assert_eq!((c.inserted, c.in_doubt, c.retries), (200, 0, 3), "row {row}, {code}: {c:?}");
        }
    }
    holds(&server, &expected);
}

/// A row that the server refuses for good fails the job in one line that says which record, in which namespace, and why.
/// With `--ignore-record-error` it is counted and the rest is restored.
#[test]
fn a_row_that_is_refused_for_good_fails_the_job_or_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (server, expected) = backed_up(2, SMALL, folder.path());
    let knobs = server.dev().knobs();
    for code in [ResultCode::RECORD_TOO_BIG, ResultCode::BIN_NAME, ResultCode::KEY_MISMATCH] {
        empty(&server);
        knobs.inject(Fault::fail_row(20, code).once());
        let outcome = server.restore(&server.namespace, folder.path(), &["--batch-size", "30"]);
        let error = outcome.fails(1, &["namespace source-ns2", &format!("(code {})", code.0)]).stderr;
        let named = expected.records.keys().filter(|digest| error.contains(*digest)).count();
        assert_eq!(named, 1, "{error}");
        knobs.clear();

        empty(&server);
        knobs.inject(Fault::fail_row(20, code).times(2));
        let options = ["--batch-size", "30", "--ignore-record-error", "--json"];
        let summary = server.restore(&server.namespace, folder.path(), &options).ok().json();
        let counts = ["read-records", "inserted-records", "ignored-records"].map(|key| &summary[key]);
        assert_eq!(counts, [200, 198, 2], "{summary}");
        let refused = &summary["refused-records"];
        assert_eq!(refused[code.0.to_string()]["count"], 2, "{summary}");
        assert_eq!(refused.as_object().map(serde_json::Map::len), Some(1), "{summary}");
        assert_eq!(server.objects(), 198);
    }
}

/// Protects: `--ignore-record-error` hides no refusal that is about the namespace, the user or the request instead of a
/// record: such a restore would lose every record and call that a success.
#[test]
fn what_is_not_about_a_record_is_never_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = backed_up(2, SMALL, folder.path());
    let knobs = server.dev().knobs();
    let plan = RestorePlan { ignore_record_error: true, batch_size: 30, ..plan_restore(&server) };
    let lasting = [
        (ResultCode::FORBIDDEN, "nsup-period"),
        (ResultCode::PARAMETER, "disallow-null-setname"),
        (ResultCode(81), "privilege"),
        (ResultCode(150), "disable-batch-writes"),
        (ResultCode(151), "batch-max-requests"),
        (ResultCode::NAMESPACE, "no such namespace"),
    ];
    for (code, remedy) in lasting {
        empty(&server);
        knobs.inject(Fault::fail_row(20, code));
        let (result, c) = restore(&server, folder.path(), &plan);
        says(result, &["writing record", "namespace source-ns2", &format!("(code {})", code.0), remedy]);
        assert!(c.ignored == 0 && c.refused.iter().any(|(refused, count)| refused.0 == code.0 && *count > 0));
        knobs.clear();
    }
    // Writes may come back when records have expired: they are tried again, and then fail the restore.
    empty(&server);
    knobs.inject(Fault::refuse_writes(ResultCode::OUT_OF_SPACE));
    let (result, c) = restore(&server, folder.path(), &plan);
    says(result, &["12 attempts", "stopped writes (code 8)", "stop-writes"]);
    assert!(c.ignored == 0 && c.refused.keys().any(|code| code.0 == 8), "{c:?}");
    knobs.clear();
    knobs.inject(Fault::refuse_writes(ResultCode::OUT_OF_SPACE).times(40));
    let (result, c) = restore(&server, folder.path(), &plan);
    result.unwrap();
    assert_eq!((c.inserted, c.ignored, c.refused.len()), (200, 0, 0), "{c:?}");
}

/// Protects: the real conditions behind two such refusals, by the binary: records that expire where nothing removes them,
/// and records without a set where one is asked for. Those without a fault are restored when the cause is mended.
#[test]
fn a_namespace_that_refuses_a_kind_of_record_fails_the_restore_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::embedded(1);
    let setting = |setting: &str| {
        let namespace = &server.namespace;
        assert_eq!(
            server.info(&format!("set-config:context=namespace;namespace={namespace};{setting}")),
            "ok"
        );
    };
    let text = |number: u64, set: &str, expiration: u32| {
        let (namespace, digest) = (&server.namespace, raw::Raw::new(number).name());
        format!("+ n {namespace}\n+ d {digest}\n{set}+ g 1\n+ t {expiration}\n+ b 1\n- I v {number}\n")
    };
    let write = |text: &str| {
        let header = format!("Version 3.1\n# namespace {}\n", server.namespace);
        std::fs::write(folder.path().join("a.asb"), header + text).unwrap();
    };
    let restored = |options: &[&str]| server.restore(&server.namespace, folder.path(), options);
    write(&(text(1, "+ s s\n", 0) + &text(2, "+ s s\n", 1_500_000_000)));
    setting("nsup-period=0");
    for options in [&[][..], &["--ignore-record-error"], &["--ignore-record-error", "--disable-batch-writes"]]
    {
        restored(options).fails(1, &["operation forbidden (code 22)", "nsup-period"]);
    }
    setting("allow-ttl-without-nsup=true");
    assert_eq!(restored(&["--json"]).ok().json()["refused-records"], serde_json::json!({}));

    write(&(text(3, "+ s s\n", 0) + &text(4, "", 0)));
    setting("disallow-null-setname=true");
    restored(&["--ignore-record-error"]).fails(1, &["parameter error (code 4)", "disallow-null-setname"]);
    setting("disallow-null-setname=false");
    restored(&[]).ok();
}

/// Protects: rows that are refused for the moment are sent again at once and then after short waits; the policy's waits,
/// which are long, come after those.
#[test]
fn a_refusal_that_passes_does_not_wait_as_the_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let (server, expected) = backed_up(3, SMALL, folder.path());
    empty(&server);
    let knobs = server.dev().knobs();
    let hour = Retry { base: Duration::from_hours(1), multiplier: 1.0, max_retries: 5 };
    let plan = RestorePlan { batch_size: 30, retry: hour, ..plan_restore(&server) };
    knobs.inject(Fault::fail_row(0, ResultCode::UNAVAILABLE).times(11));
    let (result, c) = restore(&server, folder.path(), &plan);
    result.unwrap();
    adds_up(&c);
    assert_eq!((c.inserted, c.retries), (200, 11), "{c:?}");
    holds(&server, &expected);
}

/// Protects: rows that wait for long keep no slot: all others are written meanwhile, even through a single slot.
#[test]
fn rows_that_wait_let_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = backed_up(1, SMALL, folder.path());
    empty(&server);
    let knobs = server.dev().knobs();
    // The first row of each batch is refused until it waits as the policy says.
    knobs.inject(Fault::fail_row(0, ResultCode::KEY_BUSY));
    let hour = Retry { base: Duration::from_hours(1), multiplier: 1.0, max_retries: 5 };
    let plan = RestorePlan {
        batch_size: 30,
        parallel: 1,
        max_async_batches: 1,
        resend: Retry::NEVER,
        retry: hour,
        ..plan_restore(&server)
    };
    let start = StartRestore {
        cluster: server.cluster.clone(),
        storage: super::local(folder.path()),
        links: vec![ObjectPath::root().into()],
        plan,
    };
    server.runtime.block_on(async {
        let job = super::Running { server: &server, id: server.supervisor().send(start).await.unwrap() };
        let others = async {
            while knobs.objects(&server.namespace) != Some(193) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(HANGS, others).await.expect("the others wait, too");
        job.cancel().await;
        job.wait_for_restore().await;
    });
}

/// Protects: a row that the server wrote although it says that its time ran out is counted as in doubt, so that the
/// records which the second attempt finds written are explained.
#[test]
fn a_timeout_of_the_server_leaves_a_row_in_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let (server, expected) = backed_up(1, SMALL, folder.path());
    for unique in [false, true] {
        empty(&server);
        server.dev().knobs().inject(Fault::time_out_row(7).times(5));
        server.dev().knobs().inject(Fault::cut_reply(Kind::Batch, 100).times(2));
        let plan = RestorePlan { batch_size: 30, unique, ..plan_restore(&server) };
        let (result, c) = restore(&server, folder.path(), &plan);
        result.unwrap();
        adds_up(&c);
        assert!(c.fresher + c.existed > 5, "{c:?}");
        assert!(c.fresher + c.existed <= c.in_doubt, "{c:?}");
        server.dev().knobs().clear();
    }
    holds(&server, &expected);
}

/// A failed restore counts what it wrote: the rows of the batch beside the refused one too.
#[test]
fn a_failed_restore_knows_what_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = backed_up(1, SMALL, folder.path());
    empty(&server);
    server.dev().knobs().inject(Fault::fail_row(20, ResultCode::FORBIDDEN).once());
    // One batch at a time, so that no other is under way.
    let plan = RestorePlan { batch_size: 60, max_async_batches: 1, parallel: 1, ..plan_restore(&server) };
    let (result, c) = restore(&server, folder.path(), &plan);
    assert!(result.as_ref().is_err_and(|e| matches!(**e, EngineError::Row { .. })), "{result:?}");
    assert_eq!(c.inserted, server.objects(), "{c:?}");
    assert!(c.inserted >= 59, "{c:?}");
}

/// Protects: what a failed restore says that it wrote is what it wrote: answers that come after the failure are counted, and
/// rows whose answers do not come are in doubt.
#[test]
fn a_failed_restore_counts_what_was_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = backed_up(2, SMALL, folder.path());
    let knobs = server.dev().knobs();
    let fail = |delay| {
        empty(&server);
        knobs.clear();
        knobs.inject(Fault::delay_reply(Kind::Batch, delay).on_node(1));
        // By then all batches have been sent.
        knobs.inject(Fault::delay_reply(Kind::Batch, Duration::from_millis(500)).on_node(0));
        knobs.inject(Fault::fail_row(5, ResultCode::FORBIDDEN).on_node(0).once());
    };
    let plan = RestorePlan { batch_size: 10, ..plan_restore(&server) };
    for (delay, is_answered) in [(Duration::from_secs(1), true), (Duration::from_hours(1), false)] {
        fail(delay);
        let (result, c) = restore(&server, folder.path(), &plan);
        assert!(result.as_ref().is_err_and(|e| matches!(**e, EngineError::Row { .. })), "{result:?}");
        let objects = server.objects();
        assert_eq!(c.in_doubt == 0, is_answered, "{c:?}");
        assert_eq!(c.inserted + c.in_doubt, objects, "{c:?}");
    }
    fail(Duration::from_hours(1));
    let options = ["--batch-size", "10"];
    let failed = server.restore(&server.namespace, folder.path(), &options);
    failed.fails(1, &["forbidden", "records were written", "records may have been: no answer came"]);
}

/// A node that refuses writes for good is given up, with the reason, in one line.
#[test]
fn writes_that_stay_refused_fail_the_restore() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = backed_up(2, SMALL, folder.path());
    empty(&server);
    server.dev().knobs().inject(Fault::refuse_writes(ResultCode::DEVICE_OVERLOAD));
    for disable_batch_writes in [false, true] {
        let plan = RestorePlan { disable_batch_writes, ..plan_restore(&server) };
        let (result, c) = restore(&server, folder.path(), &plan);
        says(result, &["namespace source-ns2", "12 attempts", "device overload (code 18)"]);
        assert_eq!((c.inserted, c.in_doubt), (0, 0), "{c:?}");
    }
    assert_eq!(server.objects(), 0);
}

/// A node that takes batches and says nothing costs time when it is for a while, and fails the job in one line when it is
/// forever.
#[test]
fn a_node_that_does_not_answer_batches_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (server, expected) = backed_up(2, SMALL, folder.path());
    empty(&server);
    let hour = Duration::from_hours(1);
    server.dev().knobs().inject(Fault::delay_request(Kind::Batch, hour).times(2));
    server.dev().knobs().inject(Fault::delay_reply(Kind::Batch, hour).times(2));
    let plan =
        RestorePlan { batch_size: 30, socket_timeout: Duration::from_millis(150), ..plan_restore(&server) };
    let (result, c) = restore(&server, folder.path(), &plan);
    result.unwrap();
    adds_up(&c);
    assert!(c.in_doubt >= 4 && c.retries >= 4, "{c:?}");
    holds(&server, &expected);

    empty(&server);
    server.dev().knobs().inject(Fault::delay_request(Kind::Batch, hour));
    let (result, c) = restore(&server, folder.path(), &plan);
    says(result, &["namespace source-ns2", "12 attempts", "nothing for 150ms"]);
    assert!(c.in_doubt > 0 && c.inserted == 0, "{c:?}");
}

/// Partitions that move while a restore writes to them, and one that is not served for a while, cost no record; one that
/// is never served fails the job.
#[test]
fn partitions_that_move_or_are_not_served_are_written_to_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let data = Data { records: 2000, partitions: 100, size: 200 };
    let (server, expected) = backed_up(3, data, folder.path());
    empty(&server);
    let knobs = server.dev().knobs();
    knobs.inject(Fault::delay_reply(Kind::Batch, Duration::from_millis(5)));
    knobs.refuse_partition(42, true).unwrap();
    let mover = knobs.clone();
    let moving = server.runtime.spawn(async move {
        for round in 0..30 {
            for partition in 0..100 {
                mover.move_partition(partition, (partition + round) % 3).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        mover.refuse_partition(42, false).unwrap();
    });
    let patient = Retry { base: Duration::from_millis(50), ..super::FAST };
    let plan = RestorePlan { batch_size: 20, max_async_batches: 6, resend: patient, ..plan_restore(&server) };
    let (result, c) = restore(&server, folder.path(), &plan);
    result.unwrap();
    adds_up(&c);
    assert_eq!((c.read, c.inserted, c.in_doubt), (2000, 2000, 0), "{c:?}");
    assert!(c.retries > 0);
    server.runtime.block_on(moving).unwrap();
    knobs.clear();
    holds(&server, &expected);

    knobs.refuse_partition(42, true).unwrap();
    let (result, c) = restore(&server, folder.path(), &plan_restore(&server));
    says(result, &["namespace source-ns2", "12 attempts", "partition unavailable (code 11)"]);
    assert!(c.inserted + c.fresher < c.read, "{c:?}");
}
