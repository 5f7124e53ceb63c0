//! Queries by partition: whole namespaces, sets, filters, ranges; and how they stop, resume and are limited.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aerospike::query::Filter;
use aerospike::{
    BasePolicy, Bins, CollectionIndexType, PartitionFilter, QueryPolicy, Statement, Value, expressions as exp,
};

use abs_devserver::{PARTITIONS, partition_of};

use crate::raw::{self, Connection, Message};
use crate::support::{NAMESPACE, Setup, bin, code, key, numbers};

fn all(set: &str) -> Statement {
    Statement::new(NAMESPACE, set, Bins::All)
}

fn filtered(expression: exp::Expression) -> QueryPolicy {
    let base_policy = BasePolicy { filter_expression: Some(expression), ..BasePolicy::default() };
    QueryPolicy { base_policy, ..QueryPolicy::default() }
}

#[tokio::test]
async fn a_scan_finds_every_record_once() {
    let setup = Setup::new(3).await;
    setup.fill("s", 1000).await;
    setup.fill("other", 10).await;
    let found = setup.query(all("s")).await.unwrap();
    assert_eq!(numbers(&found), (0..1000).collect::<Vec<_>>());
    assert_eq!(setup.query(all("")).await.unwrap().len(), 1010);
    assert_eq!(setup.query(all("none")).await.unwrap().len(), 0);
    assert_eq!(setup.server.knobs().counts().query_records, 2010);
}

#[tokio::test]
async fn a_scan_may_leave_out_bins() {
    let setup = Setup::new(1).await;
    setup.put(&key("s", 1), &[bin("a", 1), bin("b", 2)]).await.unwrap();
    setup.put(&key("s", 2), &[bin("a", 3)]).await.unwrap();
    let some = setup.query(Statement::new(NAMESPACE, "s", Bins::from(["b"]))).await.unwrap();
    // A record without any of the bins is left out.
    assert_eq!(some.len(), 1);
    assert_eq!(some[0].bins.keys().collect::<Vec<_>>(), ["b"]);
    let none = setup.query(Statement::new(NAMESPACE, "s", Bins::None)).await.unwrap();
    assert_eq!(none.len(), 2);
    assert!(none.iter().all(|record| record.bins.is_empty() && record.generation == 1));
}

#[tokio::test]
async fn filters_choose_records() {
    let setup = Setup::new(2).await;
    setup.fill("s", 100).await;
    setup.put(&key("t", "x"), &[bin("text", "x"), bin("f", 0.5)]).await.unwrap();
    let n = || exp::int_bin("n");
    let int = exp::int_val;
    let second = 1_000_000_000;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
    for (expression, count) in [
        (exp::and(vec![exp::ge(n(), int(10)), exp::lt(n(), int(20))]), 10),
        (exp::or(vec![exp::eq(n(), int(1)), exp::gt(n(), int(97)), exp::bin_exists("f")]), 4),
        (exp::not(exp::bin_exists("n")), 1),
        (exp::eq(exp::bin_type("text"), int(3)), 1),
        (exp::eq(exp::string_bin("text"), exp::string_val("x")), 1),
        (exp::lt(exp::float_bin("f"), exp::float_val(0.75)), 1),
        (exp::eq(exp::set_name(), exp::string_val("t")), 1),
        (exp::gt(exp::last_update(), int(now - 60 * second)), 101),
        (exp::gt(exp::last_update(), int(now + 60 * second)), 0),
        (exp::lt(exp::since_update(), int(60_000)), 101),
        (exp::eq(exp::ttl(), int(-1)), 101),
        (exp::eq(exp::void_time(), int(-1)), 101),
        (exp::gt(exp::record_size(), int(10)), 101),
        (exp::key_exists(), 0),
        (exp::is_tombstone(), 0),
        (exp::eq(exp::num_mod(n(), int(10)), int(3)), 10),
        (exp::in_list(n(), exp::list_val(vec![Value::from(5), Value::from(500)])), 1),
    ] {
        let shown = format!("{expression:?}");
        let found = setup.query_with(&filtered(expression), all("")).await.unwrap();
        assert_eq!(found.len(), count, "{shown}");
    }
    let modulo = |rest| filtered(exp::eq(exp::digest_modulo(3), int(rest)));
    let mut sum = 0;
    for rest in 0..3 {
        sum += setup.query_with(&modulo(rest), all("")).await.unwrap().len();
    }
    assert_eq!(sum, 101);
}

#[tokio::test]
async fn a_filter_that_is_none_is_refused() {
    let setup = Setup::new(1).await;
    let number = filtered(exp::int_val(1));
    assert_eq!(code(setup.query_with(&number, all("s")).await), 4);
}

#[tokio::test]
async fn a_scan_resumes_after_a_digest() {
    let setup = Setup::new(1).await;
    let partition = 77;
    let keys: Vec<_> =
        (0..).map(|n| key("s", n)).filter(|key| partition_of(&key.digest()) == partition).take(20).collect();
    for key in &keys {
        setup.put(key, &[bin("n", 1)]).await.unwrap();
    }
    let mut connection = Connection::to(setup.server.addresses()[0]).await;
    let whole = connection.query(&raw::query(NAMESPACE, &[partition as u16], &[])).await;
    let digests: Vec<_> = whole.iter().filter_map(Message::digest).collect();
    assert_eq!(digests.len(), 20);
    let ordered: BTreeSet<_> = digests.iter().collect();
    assert!(ordered.into_iter().eq(&digests), "records come in the order of their digests");
    for (at, digest) in digests.iter().enumerate() {
        let rest = connection.query(&raw::query(NAMESPACE, &[], &[(raw::DIGEST_ARRAY, digest)])).await;
        assert_eq!(rest.iter().filter_map(Message::digest).collect::<Vec<_>>(), digests[at + 1..]);
    }
    let last_key = keys.iter().find(|key| key.digest() == digests[17]).unwrap();
    let after = PartitionFilter::by_key(last_key);
    let found = setup.query_part(&QueryPolicy::default(), after, all("s")).await.unwrap();
    assert_eq!(found.len(), 2);
}

#[tokio::test]
async fn only_the_partitions_asked_for_are_read() {
    let setup = Setup::new(2).await;
    setup.fill("s", 500).await;
    let mut sum = 0;
    for begin in (0..PARTITIONS).step_by(1024) {
        let part = PartitionFilter::by_range(begin, 1024);
        let found = setup.query_part(&QueryPolicy::default(), part, all("s")).await.unwrap();
        let inside = |record: &aerospike::Record| {
            (begin..begin + 1024).contains(&record.key.as_ref().unwrap().partition_id())
        };
        assert!(found.iter().all(inside));
        sum += found.len();
    }
    assert_eq!(sum, 500);
}

#[tokio::test]
async fn a_sample_ends_early_and_a_rate_takes_its_time() {
    let setup = Setup::new(1).await;
    setup.fill("s", 300).await;
    let partitions: Vec<u16> = (0..PARTITIONS as u16).collect();
    let mut connection = Connection::to(setup.server.addresses()[0]).await;
    let most = 17_u64.to_be_bytes();
    let sample = connection.query(&raw::query(NAMESPACE, &partitions, &[(raw::SAMPLE_MAX, &most)])).await;
    assert_eq!(sample.iter().filter_map(Message::digest).count(), 17);
    let rate = 300_u32.to_be_bytes();
    let start = Instant::now();
    let slow = connection.query(&raw::query(NAMESPACE, &partitions, &[(raw::RECS_PER_SEC, &rate)])).await;
    assert_eq!(slow.iter().filter_map(Message::digest).count(), 300);
    let took = start.elapsed();
    assert!((Duration::from_millis(800)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn large_results_come_in_blocks() {
    let setup = Setup::new(1).await;
    for n in 0..40 {
        setup.put(&key("s", n), &[bin("b", vec![7_u8; 100_000])]).await.unwrap();
    }
    let mut connection = Connection::to(setup.server.addresses()[0]).await;
    let partitions: Vec<u16> = (0..PARTITIONS as u16).collect();
    connection.send(&raw::query(NAMESPACE, &partitions, &[])).await;
    let mut blocks = Vec::new();
    while blocks.last().is_none_or(|len| *len != 22) {
        blocks.push(connection.block().await.unwrap().len());
    }
    assert_eq!(blocks.len(), 5, "{blocks:?}");
    assert!(blocks[..3].iter().all(|len| (1 << 20..1_200_000).contains(len)), "{blocks:?}");
}

#[tokio::test]
async fn ranges_find_numbers_strings_and_members_of_collections() {
    use CollectionIndexType::{List, MapKeys, MapValues};
    let setup = Setup::new(2).await;
    for n in 0..50_i64 {
        let list = Value::from(vec![Value::from(n), Value::from(n + 100)]);
        let map = std::collections::HashMap::from([(Value::from(format!("k{n}")), Value::from(n))]);
        let bins = [bin("n", n), bin("s", format!("s{}", n % 5)), bin("l", list), bin("m", Value::from(map))];
        setup.put(&key("s", n), &bins).await.unwrap();
    }
    for (filter, count) in [
        (Filter::range("n", 10, 19), 10),
        (Filter::equal("n", 7), 1),
        (Filter::equal("s", "s3"), 10),
        (Filter::contains("l", 120, List), 1),
        (Filter::contains_range("l", 0, 4, List), 5),
        (Filter::contains("m", "k8", MapKeys), 1),
        (Filter::contains_range("m", 40, 60, MapValues), 10),
    ] {
        let shown = format!("{filter:?}");
        let mut statement = all("s");
        statement.set_filter(filter);
        // Without an index the real server finds nothing to look in.
        assert_eq!(code(setup.query(statement.clone()).await), 201, "{shown}");
        crate::admin::index_everything(&setup).await;
        assert_eq!(setup.query(statement).await.unwrap().len(), count, "{shown}");
        crate::admin::drop_everything(&setup).await;
    }
}
