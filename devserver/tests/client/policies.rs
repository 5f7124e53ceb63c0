//! Conditions of writes: what exists, which generation, which filter.

use aerospike::{
    BasePolicy, Expiration, GenerationPolicy, ReadPolicy, RecordExistsAction, WritePolicy, expressions as exp,
};

use crate::support::{Setup, bin, code, key};

fn exists(action: RecordExistsAction) -> WritePolicy {
    WritePolicy { record_exists_action: action, ..WritePolicy::default() }
}

fn generation(policy: GenerationPolicy, generation: u32) -> WritePolicy {
    WritePolicy { generation_policy: policy, ..WritePolicy::new(generation, Expiration::NamespaceDefault) }
}

#[tokio::test]
async fn writes_ask_what_exists() {
    use RecordExistsAction::{CreateOnly, Replace, ReplaceOnly, UpdateOnly};
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    let put = async |action, name| setup.client.put(&exists(action), &key, &[bin(name, 1)]).await;
    assert_eq!(code(put(UpdateOnly, "a").await), 2);
    assert_eq!(code(put(ReplaceOnly, "a").await), 2);
    put(CreateOnly, "a").await.unwrap();
    assert_eq!(code(put(CreateOnly, "b").await), 5);
    put(UpdateOnly, "b").await.unwrap();
    assert_eq!(setup.get(&key).await.unwrap().bins.len(), 2);
    put(Replace, "c").await.unwrap();
    assert_eq!(setup.get(&key).await.unwrap().bins.keys().collect::<Vec<_>>(), ["c"]);
    put(ReplaceOnly, "d").await.unwrap();
    let record = setup.get(&key).await.unwrap();
    assert_eq!(record.bins.keys().collect::<Vec<_>>(), ["d"]);
    assert_eq!(record.generation, 4);
}

#[tokio::test]
async fn writes_ask_for_a_generation() {
    use GenerationPolicy::{ExpectGenEqual, ExpectGenGreater};
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    let put =
        async |policy, expected| setup.client.put(&generation(policy, expected), &key, &[bin("n", 1)]).await;
    // A greater generation than that of no record is any.
    put(ExpectGenGreater, 7).await.unwrap();
    assert_eq!(setup.get(&key).await.unwrap().generation, 1);
    assert_eq!(code(put(ExpectGenEqual, 2).await), 3);
    put(ExpectGenEqual, 1).await.unwrap();
    assert_eq!(code(put(ExpectGenGreater, 2).await), 3);
    put(ExpectGenGreater, 3).await.unwrap();
    assert_eq!(setup.get(&key).await.unwrap().generation, 3);
    assert_eq!(code(setup.client.delete(&generation(ExpectGenEqual, 1), &key).await), 3);
    assert!(setup.client.delete(&generation(ExpectGenEqual, 3), &key).await.unwrap());
}

#[tokio::test]
async fn a_filter_expression_decides_over_reads_and_writes() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    setup.put(&key, &[bin("n", 5)]).await.unwrap();
    let base = |limit| BasePolicy {
        filter_expression: Some(exp::gt(exp::int_bin("n"), exp::int_val(limit))),
        ..BasePolicy::default()
    };
    let read = |limit| ReadPolicy { base_policy: base(limit) };
    let write = |limit| WritePolicy { base_policy: base(limit), ..WritePolicy::default() };
    setup.client.get(&read(4), &key, aerospike::Bins::All).await.unwrap();
    assert_eq!(code(setup.client.get(&read(5), &key, aerospike::Bins::All).await), 27);
    assert_eq!(code(setup.client.put(&write(5), &key, &[bin("n", 9)]).await), 27);
    setup.client.put(&write(4), &key, &[bin("n", 9)]).await.unwrap();
    assert_eq!(code(setup.client.delete(&write(9), &key).await), 27);
    assert!(setup.client.delete(&write(8), &key).await.unwrap());
}

#[tokio::test]
async fn an_unknown_expression_is_a_parameter_error() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    setup.put(&key, &[bin("s", "abc")]).await.unwrap();
    let regex = exp::regex_compare("a.*", aerospike::RegexFlags::NONE, exp::string_bin("s"));
    let base = BasePolicy { filter_expression: Some(regex), ..BasePolicy::default() };
    let policy = ReadPolicy { base_policy: base };
    assert_eq!(code(setup.client.get(&policy, &key, aerospike::Bins::All).await), 4);
}
