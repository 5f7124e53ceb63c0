//! What the server refuses because it is too much.

use aerospike::{Key, Value};

use crate::raw::{self, Connection};
use crate::support::{NAMESPACE, Setup, bin, code, key};

#[tokio::test]
async fn a_full_namespace_refuses_writes_that_add_and_takes_those_that_do_not() {
    let builder = abs_devserver::DevServer::builder().namespace(NAMESPACE, 100_000);
    let setup = Setup::from(builder).await;
    let kib = || Value::Blob(vec![7; 1024]);
    let mut stored = 0;
    let refused = loop {
        match setup.put(&key("s", stored), &[bin("b", kib())]).await {
            Ok(()) => stored += 1,
            Err(error) => break error.result_code(),
        }
    };
    assert_eq!(refused, 8);
    assert!((85..=93).contains(&stored), "{stored}");
    setup.put(&key("s", 0), &[bin("b", kib())]).await.unwrap();
    setup.client.delete(&aerospike::WritePolicy::default(), &key("s", 0)).await.unwrap();
    setup.put(&key("s", "new"), &[bin("b", kib())]).await.unwrap();
}

#[tokio::test]
async fn a_record_may_have_8_mib() {
    let setup = Setup::new(1).await;
    let blob = |len| [bin("b", Value::Blob(vec![1; len]))];
    setup.put(&key("s", 1), &blob(8 * 1024 * 1024 - 1024)).await.unwrap();
    assert_eq!(code(setup.put(&key("s", 2), &blob(8 * 1024 * 1024)).await), 13);
}

#[tokio::test]
async fn names_have_limits() {
    let setup = Setup::new(1).await;
    setup.put(&key("s", 1), &[bin(&"b".repeat(15), 1)]).await.unwrap();
    // The client refuses longer ones by itself.
    let mut connection = Connection::to(setup.server.addresses()[0]).await;
    let long = raw::write(NAMESPACE, &key("s", 1).digest(), &"b".repeat(16));
    assert_eq!(connection.single(&long).await.result, 21);
    setup.put(&key(&"s".repeat(63), 1), &[bin("b", 1)]).await.unwrap();
    assert_eq!(code(setup.put(&key(&"s".repeat(64), 1), &[bin("b", 1)]).await), 4);
    let nowhere = Key::new("nowhere", "s", 1.into()).unwrap();
    assert!(setup.put(&nowhere, &[bin("b", 1)]).await.is_err());
}
