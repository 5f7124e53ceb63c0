//! Batches: many records in one request.

use aerospike::operations::scalar;
use aerospike::{
    BasePolicy, BatchDeletePolicy, BatchOperation, BatchPolicy, BatchReadPolicy, BatchWritePolicy, Bins,
    RecordExistsAction, Value, expressions as exp,
};

use crate::support::{MEMORY, NAMESPACE, Setup, bin, key};

fn codes(rows: &[BatchOperation]) -> Vec<Option<u8>> {
    rows.iter().map(|row| row.result_code().map(Into::into)).collect()
}

#[tokio::test]
async fn rows_write_read_and_delete_on_all_nodes() {
    let setup = Setup::new(3).await;
    let policy = BatchPolicy::default();
    let value = |n: i64| bin("n", n);
    let mut writes: Vec<_> = (0..500)
        .map(|n| BatchOperation::write(&BatchWritePolicy::default(), key("s", n), [scalar::put(&value(n))]))
        .collect();
    setup.client.batch(&policy, &mut writes).await.unwrap();
    assert!(codes(&writes).iter().all(|code| *code == Some(0)));
    let mut mixed: Vec<_> = (0..501)
        .map(|n| match n % 3 {
            0 => BatchOperation::read(&BatchReadPolicy::default(), key("s", n), Bins::All),
            1 => BatchOperation::delete(&BatchDeletePolicy::default(), key("s", n)),
            _ => {
                BatchOperation::write(&BatchWritePolicy::default(), key("s", n), [scalar::add(&value(1000))])
            }
        })
        .collect();
    setup.client.batch(&policy, &mut mixed).await.unwrap();
    assert!(codes(&mixed).iter().all(|code| *code == Some(0)));
    assert_eq!(mixed[33].record().unwrap().bins["n"], Value::from(33));
    let knobs = setup.server.knobs();
    assert_eq!(knobs.objects(NAMESPACE), Some(501 - 167));
    assert_eq!(knobs.counts().batch_rows, 1001);
    for node in 0..3 {
        assert!(knobs.counts_of(node).unwrap().batch_rows > 200);
    }
}

#[tokio::test]
async fn each_row_has_its_own_result() {
    let setup = Setup::new(2).await;
    setup.fill("s", 2).await;
    let create = BatchWritePolicy {
        record_exists_action: RecordExistsAction::CreateOnly,
        ..BatchWritePolicy::default()
    };
    let put = scalar::put(&bin("n", 7));
    let filtered = BatchReadPolicy {
        filter_expression: Some(exp::gt(exp::int_bin("n"), exp::int_val(100))),
        ..BatchReadPolicy::default()
    };
    let mut rows = [
        BatchOperation::write(&create, key("s", 0), [put.clone()]),
        BatchOperation::write(&create, key("s", "new"), [put]),
        BatchOperation::read(&BatchReadPolicy::default(), key("s", "none"), Bins::All),
        BatchOperation::read(&filtered, key("s", 1), Bins::All),
        BatchOperation::read(&BatchReadPolicy::default(), key("s", 1), Bins::from(["n"])),
    ];
    setup.client.batch(&BatchPolicy::default(), &mut rows).await.unwrap();
    assert_eq!(codes(&rows), [Some(5), Some(0), Some(2), Some(27), Some(0)]);
}

#[tokio::test]
async fn a_filter_of_the_whole_batch_holds_for_rows_without_one() {
    let setup = Setup::new(1).await;
    setup.fill("s", 10).await;
    let base_policy = BasePolicy {
        filter_expression: Some(exp::lt(exp::int_bin("n"), exp::int_val(4))),
        ..BasePolicy::default()
    };
    let policy = BatchPolicy { base_policy, ..BatchPolicy::default() };
    let mut rows: Vec<_> =
        (0..10).map(|n| BatchOperation::read(&BatchReadPolicy::default(), key("s", n), Bins::All)).collect();
    setup.client.batch(&policy, &mut rows).await.unwrap();
    assert_eq!(codes(&rows).iter().filter(|code| **code == Some(0)).count(), 4);
    assert_eq!(codes(&rows).iter().filter(|code| **code == Some(27)).count(), 6);
}

#[tokio::test]
async fn rows_may_be_of_several_namespaces() {
    let builder = abs_devserver::DevServer::builder().namespace(NAMESPACE, MEMORY).namespace("other", MEMORY);
    let setup = Setup::from(builder).await;
    let other = aerospike::Key::new("other", "s", 1.into()).unwrap();
    let write = |key| BatchOperation::write(&BatchWritePolicy::default(), key, [scalar::put(&bin("n", 1))]);
    let mut rows = [write(key("s", 1)), write(other), write(key("s", 2))];
    setup.client.batch(&BatchPolicy::default(), &mut rows).await.unwrap();
    assert_eq!(codes(&rows), [Some(0); 3]);
    assert_eq!(setup.server.knobs().objects("other"), Some(1));
    assert_eq!(setup.server.knobs().objects(NAMESPACE), Some(2));
}
