//! Single records: written, read, changed, deleted.

use aerospike::{Bins, Key, ReadPolicy, Value, WritePolicy, operations};

use crate::support::{NAMESPACE, Setup, bin, code, key};

#[tokio::test]
async fn every_scalar_comes_back_as_it_was_written() {
    let setup = Setup::new(3).await;
    let values: [Value; 8] = [
        i64::MIN.into(),
        (-1_i64).into(),
        1.5.into(),
        true.into(),
        "".into(),
        "日本語 \0 ✓".into(),
        vec![0_u8, 255, 10].into(),
        Value::GeoJson(r#"{"type":"Point","coordinates":[-122.1,37.4]}"#.into()),
    ];
    for (n, value) in values.into_iter().enumerate() {
        let key = key("scalars", n);
        setup.put(&key, &[bin("v", value.clone())]).await.unwrap();
        assert_eq!(setup.value(&key, "v").await, Some(value));
    }
}

#[tokio::test]
async fn keys_of_all_types_name_different_records() {
    let setup = Setup::new(3).await;
    let keys = [key("s", 1), key("s", "1"), key("s", vec![b'1']), key("", 1), key("other", 1)];
    for (n, key) in keys.iter().enumerate() {
        setup.put(key, &[bin("n", n)]).await.unwrap();
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(setup.value(key, "n").await, Some(n.into()), "{key:?}");
        let by_digest = Key::with_digest(NAMESPACE, key.set_name(), None, key.digest());
        assert_eq!(setup.value(&by_digest, "n").await, Some(n.into()), "{key:?}");
    }
    assert_eq!(setup.server.knobs().objects(NAMESPACE), Some(5));
}

#[tokio::test]
async fn a_read_gives_all_bins_some_bins_or_the_header() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    setup.put(&key, &[bin("a", 1), bin("b", "two"), bin("c", 3.0)]).await.unwrap();
    let policy = ReadPolicy::default();
    let get = async |bins| setup.client.get(&policy, &key, bins).await.unwrap();
    assert_eq!(get(Bins::All).await.bins.len(), 3);
    let some = get(Bins::from(["c", "a", "none"])).await;
    assert_eq!(some.bins.keys().collect::<Vec<_>>(), ["c", "a"]);
    let header = get(Bins::None).await;
    assert!(header.bins.is_empty());
    assert_eq!(header.generation, 1);
}

#[tokio::test]
async fn a_write_changes_the_bins_it_names_and_nil_removes_one() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    setup.put(&key, &[bin("a", 1), bin("b", 2)]).await.unwrap();
    setup.put(&key, &[bin("b", 3), bin("c", 4)]).await.unwrap();
    let record = setup.get(&key).await.unwrap();
    assert_eq!(record.bins.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(record.generation, 2);
    setup.put(&key, &[bin("a", Value::Nil)]).await.unwrap();
    assert_eq!(setup.get(&key).await.unwrap().bins.len(), 2);
    // A record whose last bin goes is gone.
    setup.put(&key, &[bin("b", Value::Nil), bin("c", Value::Nil)]).await.unwrap();
    assert!(!setup.exists(&key).await);
}

#[tokio::test]
async fn a_deleted_record_is_gone_and_a_new_one_begins_at_generation_1() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    let policy = WritePolicy::default();
    assert_eq!(code(setup.get(&key).await), 2);
    assert!(!setup.client.delete(&policy, &key).await.unwrap());
    setup.put(&key, &[bin("a", 1)]).await.unwrap();
    setup.put(&key, &[bin("a", 2)]).await.unwrap();
    assert!(setup.client.delete(&policy, &key).await.unwrap());
    assert!(!setup.exists(&key).await);
    setup.put(&key, &[bin("a", 3)]).await.unwrap();
    assert_eq!(setup.get(&key).await.unwrap().generation, 1);
}

#[tokio::test]
async fn numbers_add_and_strings_grow_at_both_ends() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    let policy = WritePolicy::default();
    setup.client.add(&policy, &key, &[bin("n", 40)]).await.unwrap();
    setup.client.add(&policy, &key, &[bin("n", 2)]).await.unwrap();
    setup.client.append(&policy, &key, &[bin("s", "b")]).await.unwrap();
    setup.client.append(&policy, &key, &[bin("s", "c")]).await.unwrap();
    setup.client.prepend(&policy, &key, &[bin("s", "a")]).await.unwrap();
    assert_eq!(setup.value(&key, "n").await, Some(42.into()));
    assert_eq!(setup.value(&key, "s").await, Some("abc".into()));
    assert_eq!(code(setup.client.append(&policy, &key, &[bin("n", "x")]).await), 12);
    assert_eq!(code(setup.client.add(&policy, &key, &[bin("s", 1)]).await), 12);
}

#[tokio::test]
async fn operations_of_one_request_see_each_other() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    setup.put(&key, &[bin("n", 1)]).await.unwrap();
    let add = bin("n", 5);
    let other = bin("o", "new");
    let ops = [
        operations::scalar::add(&add),
        operations::scalar::put(&other),
        operations::scalar::get_bin("n"),
        operations::scalar::touch(),
    ];
    let record = setup.client.operate(&WritePolicy::default(), &key, &ops).await.unwrap();
    assert_eq!(record.generation, 2);
    assert!(matches!(record.bins.get("n"), Some(Value::Int(6) | Value::MultiResult(_))));
    assert_eq!(setup.value(&key, "n").await, Some(6.into()));
    assert_eq!(setup.value(&key, "o").await, Some("new".into()));
}

#[tokio::test]
async fn the_user_key_is_kept_only_when_it_was_sent() {
    let setup = Setup::new(1).await;
    let sends = WritePolicy { send_key: true, ..WritePolicy::default() };
    setup.client.put(&sends, &key("s", "kept"), &[bin("n", 1)]).await.unwrap();
    setup.put(&key("s", "not kept"), &[bin("n", 2)]).await.unwrap();
    let records = setup.query(aerospike::Statement::new(NAMESPACE, "s", Bins::All)).await.unwrap();
    let keys: Vec<_> = records.iter().filter_map(|record| record.key.as_ref()?.user_key().cloned()).collect();
    assert_eq!(keys, [Value::from("kept")]);
    assert_eq!(records.len(), 2);
}

#[tokio::test]
async fn namespaces_know_nothing_of_each_other() {
    let builder = abs_devserver::DevServer::builder().namespace("one", 1 << 20).namespace("two", 1 << 20);
    let setup = Setup::from(builder).await;
    let key = |namespace| Key::new(namespace, "s", 1.into()).unwrap();
    setup.put(&key("one"), &[bin("n", 1)]).await.unwrap();
    assert_eq!(code(setup.get(&key("two")).await), 2);
    setup.put(&key("two"), &[bin("n", 2)]).await.unwrap();
    assert_eq!(setup.value(&key("one"), "n").await, Some(1.into()));
    assert_eq!(setup.server.knobs().objects("one"), Some(1));
    assert_eq!(setup.server.knobs().objects("none"), None);
}
