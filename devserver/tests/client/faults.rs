//! The faults that tests inject.

use std::time::{Duration, Instant};

use abs_devserver::{Fault, Kind, PARTITIONS, ResultCode};
use aerospike::operations::scalar;
use aerospike::{
    BatchOperation, BatchPolicy, BatchReadPolicy, BatchWritePolicy, Bins, ReadPolicy, WritePolicy,
};

use crate::raw::{self, Connection, Message};
use crate::support::{NAMESPACE, Setup, bin, code, key, once};

/// All of a namespace in one query.
fn scan() -> Vec<u8> {
    let partitions: Vec<u16> = (0..PARTITIONS as u16).collect();
    raw::query(NAMESPACE, &partitions, &[])
}

#[tokio::test]
async fn a_reply_is_cut_after_so_many_bytes() {
    let setup = Setup::new(1).await;
    for n in 0..30 {
        setup.put(&key("s", n), &[bin("b", vec![7_u8; 100_000])]).await.unwrap();
    }
    let knobs = setup.server.knobs();
    let address = setup.server.addresses()[0];
    for after in [0, 1, 8, 5000, 1_500_000] {
        knobs.inject(Fault::cut_reply(Kind::Query, after).once());
        let mut connection = Connection::to(address).await;
        connection.send(&scan()).await;
        assert_eq!(connection.bytes_to_end().await as u64, after);
    }
    // Used up; and replies that are shorter pass.
    let fault = knobs.inject(Fault::cut_reply(Kind::Query, 100_000_000));
    let mut connection = Connection::to(address).await;
    let found = connection.query(&scan()).await;
    assert_eq!(found.iter().filter_map(Message::digest).count(), 30);
    knobs.lift(fault);
}

#[tokio::test]
async fn a_cut_request_is_not_executed_and_a_cut_reply_is() {
    let setup = Setup::new(1).await;
    let knobs = setup.server.knobs();
    let policy = WritePolicy { base_policy: once(), ..WritePolicy::default() };
    knobs.inject(Fault::cut_request(Kind::Write).once());
    setup.client.put(&policy, &key("s", 1), &[bin("n", 1)]).await.unwrap_err();
    assert_eq!(knobs.objects(NAMESPACE), Some(0));
    knobs.inject(Fault::cut_reply(Kind::Write, 5).once());
    setup.client.put(&policy, &key("s", 1), &[bin("n", 1)]).await.unwrap_err();
    assert_eq!(knobs.objects(NAMESPACE), Some(1));
    assert_eq!(knobs.counts().writes, 1 + 1);
    setup.client.put(&policy, &key("s", 1), &[bin("n", 1)]).await.unwrap();
}

#[tokio::test]
async fn the_rows_of_a_batch_are_executed_even_if_nobody_hears_the_answers() {
    let setup = Setup::new(1).await;
    // The answers take more than one block; the first one is cut.
    let count = 8000;
    let row =
        |n| BatchOperation::write(&BatchWritePolicy::default(), key("s", n), [scalar::put(&bin("n", n))]);
    let mut rows: Vec<_> = (0..count).map(row).collect();
    let knobs = setup.server.knobs();
    knobs.inject(Fault::cut_reply(Kind::Batch, 1000).once());
    let policy = BatchPolicy { base_policy: once(), ..BatchPolicy::default() };
    setup.client.batch(&policy, &mut rows).await.unwrap_err();
    assert_eq!(knobs.objects(NAMESPACE), Some(8000));
}

#[tokio::test]
async fn requests_and_replies_wait() {
    let setup = Setup::new(1).await;
    let knobs = setup.server.knobs();
    let wait = Duration::from_millis(200);
    for fault in [Fault::delay_request(Kind::Write, wait), Fault::delay_reply(Kind::Write, wait)] {
        let fault = knobs.inject(fault);
        let start = Instant::now();
        setup.put(&key("s", 1), &[bin("n", 1)]).await.unwrap();
        assert!(start.elapsed() >= wait);
        knobs.lift(fault);
    }
}

#[tokio::test]
async fn refused_writes_do_nothing() {
    let setup = Setup::new(1).await;
    setup.fill("s", 1).await;
    let knobs = setup.server.knobs();
    let fault = knobs.inject(Fault::refuse_writes(ResultCode::OUT_OF_SPACE).times(3));
    let policy = WritePolicy { base_policy: once(), ..WritePolicy::default() };
    assert_eq!(code(setup.client.put(&policy, &key("s", 0), &[bin("n", 9)]).await), 8);
    assert_eq!(code(setup.client.delete(&policy, &key("s", 0)).await), 8);
    let row = BatchOperation::write(&BatchWritePolicy::default(), key("s", 0), [scalar::put(&bin("n", 9))]);
    let mut rows = [row];
    setup.client.batch(&BatchPolicy::default(), &mut rows).await.unwrap();
    assert_eq!(rows[0].result_code().map(u8::from), Some(8));
    assert_eq!(setup.value(&key("s", 0), "n").await, Some(0.into()));
    // Used up after three.
    setup.put(&key("s", 0), &[bin("n", 9)]).await.unwrap();
    knobs.lift(fault);
}

#[tokio::test]
async fn one_row_of_a_batch_fails() {
    let setup = Setup::new(1).await;
    let knobs = setup.server.knobs();
    knobs.inject(Fault::fail_row(3, ResultCode(18)).once());
    let row =
        |n| BatchOperation::write(&BatchWritePolicy::default(), key("s", n), [scalar::put(&bin("n", n))]);
    let mut rows: Vec<_> = (0..6).map(row).collect();
    let policy = BatchPolicy { base_policy: once(), ..BatchPolicy::default() };
    setup.client.batch(&policy, &mut rows).await.unwrap();
    let codes: Vec<_> = rows.iter().map(|row| row.result_code().map(u8::from)).collect();
    assert_eq!(codes, [Some(0), Some(0), Some(0), Some(18), Some(0), Some(0)]);
    assert!(!setup.exists(&key("s", 3)).await);
}

#[tokio::test]
async fn a_refused_partition_answers_so_everywhere() {
    let setup = Setup::new(2).await;
    setup.fill("s", 50).await;
    let knobs = setup.server.knobs();
    let refused = key("s", 7);
    let partition = refused.partition_id();
    knobs.refuse_partition(partition, true).unwrap();
    let read = ReadPolicy { base_policy: once() };
    assert_eq!(code(setup.client.get(&read, &refused, Bins::All).await), 11);
    let write = WritePolicy { base_policy: once(), ..WritePolicy::default() };
    assert_eq!(code(setup.client.put(&write, &refused, &[bin("n", 1)]).await), 11);
    let mut rows = [BatchOperation::read(&BatchReadPolicy::default(), refused.clone(), Bins::All)];
    let policy = BatchPolicy { base_policy: once(), ..BatchPolicy::default() };
    let _ = setup.client.batch(&policy, &mut rows).await;
    assert_eq!(rows[0].result_code().map(u8::from), Some(11));
    let master = setup.server.addresses()[knobs.master_of(partition).unwrap()];
    let messages = Connection::to(master).await.query(&scan()).await;
    let refusal =
        messages.iter().find(|message| message.generation == partition as u32 && message.result == 11);
    assert_eq!(refusal.unwrap().info3, raw::PARTITION_DONE);
    assert!(messages.last().unwrap().is_last());
    knobs.refuse_partition(partition, false).unwrap();
    assert_eq!(setup.value(&refused, "n").await, Some(7.into()));
}

#[tokio::test]
async fn counters_tell_what_was_asked() {
    let setup = Setup::new(1).await;
    let knobs = setup.server.knobs();
    let before = knobs.counts();
    setup.fill("s", 3).await;
    setup.exists(&key("s", 1)).await;
    let mut connection = Connection::to(setup.server.addresses()[0]).await;
    let messages = connection.query(&scan()).await;
    assert_eq!(messages.len(), 4);
    let after = knobs.counts();
    assert_eq!(after.writes - before.writes, 3);
    assert_eq!(after.reads - before.reads, 1);
    assert_eq!(after.queries - before.queries, 1);
    assert_eq!(after.query_partitions - before.query_partitions, 4096);
    assert_eq!(after.query_records - before.query_records, 3);
    assert!(after.bytes_sent > before.bytes_sent);
}
