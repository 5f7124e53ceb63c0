//! Time to live.

use std::time::Duration;

use aerospike::{Expiration, Statement, WritePolicy};

use crate::support::{NAMESPACE, Setup, bin, code, key};

fn lives(expiration: Expiration) -> WritePolicy {
    WritePolicy::new(0, expiration)
}

/// Seconds until the record expires, as the server's void time has it.
async fn ttl(setup: &Setup, n: i64) -> Option<u64> {
    setup.get(&key("s", n)).await.unwrap().time_to_live().map(|ttl| ttl.as_secs())
}

#[tokio::test]
async fn records_live_as_long_as_their_last_write_says() {
    let builder = abs_devserver::DevServer::builder().namespace_with_ttl(NAMESPACE, 1 << 20, 1000);
    let setup = Setup::from(builder).await;
    let put = async |n, expiration| {
        setup.client.put(&lives(expiration), &key("s", n), &[bin("n", n)]).await.unwrap();
    };
    put(1, Expiration::NamespaceDefault).await;
    put(2, Expiration::Seconds(50)).await;
    put(3, Expiration::Never).await;
    put(4, Expiration::Seconds(50)).await;
    put(4, Expiration::DontUpdate).await;
    put(5, Expiration::Seconds(50)).await;
    put(5, Expiration::NamespaceDefault).await;
    for (n, expected) in [(1, Some(1000)), (2, Some(50)), (3, None), (4, Some(50)), (5, Some(1000))] {
        let ttl = ttl(&setup, n).await;
        let fits = match (ttl, expected) {
            (Some(ttl), Some(expected)) => (expected - 2..=expected).contains(&ttl),
            (ttl, expected) => ttl == expected,
        };
        assert!(fits, "record {n} lives {ttl:?}, not {expected:?}");
    }
}

#[tokio::test]
async fn expired_records_are_gone_for_reads_queries_and_counts() {
    let setup = Setup::new(1).await;
    setup.client.put(&lives(Expiration::Seconds(50)), &key("s", 1), &[bin("n", 1)]).await.unwrap();
    setup.client.put(&lives(Expiration::Seconds(500)), &key("s", 2), &[bin("n", 2)]).await.unwrap();
    setup.put(&key("s", 3), &[bin("n", 3)]).await.unwrap();
    let knobs = setup.server.knobs();
    knobs.advance_clock(Duration::from_mins(1));
    assert_eq!(code(setup.get(&key("s", 1)).await), 2);
    let statement = Statement::new(NAMESPACE, "s", aerospike::Bins::All);
    assert_eq!(setup.query(statement).await.unwrap().len(), 2);
    // A touch without a time to live takes the namespace's, which is none.
    setup.client.touch(&WritePolicy::default(), &key("s", 2)).await.unwrap();
    knobs.advance_clock(Duration::from_mins(10));
    assert!(setup.exists(&key("s", 2)).await);
    assert_eq!(code(setup.client.touch(&WritePolicy::default(), &key("s", 1)).await), 2);
    // Written again, it is a new record.
    setup.put(&key("s", 1), &[bin("n", 1)]).await.unwrap();
    assert_eq!(setup.get(&key("s", 1)).await.unwrap().generation, 1);
    assert_eq!(knobs.objects(NAMESPACE), Some(3));
}

#[tokio::test]
async fn the_sweep_removes_expired_records() {
    let setup = Setup::new(1).await;
    setup.client.put(&lives(Expiration::Seconds(5)), &key("s", 1), &[bin("n", 1)]).await.unwrap();
    let knobs = setup.server.knobs();
    knobs.advance_clock(Duration::from_mins(1));
    let gone = async {
        while knobs.objects(NAMESPACE) != Some(0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}
