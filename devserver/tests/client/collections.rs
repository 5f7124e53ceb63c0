//! Lists, maps and HyperLogLog bins: what operations make of them, byte for byte where a real server's bytes
//! are known.

use std::collections::HashMap;

use aerospike::operations::hll::{self, HllPolicy};
use aerospike::operations::lists::{self, ListOrderType};
use aerospike::operations::maps::{self, MapOrder};
use aerospike::operations::{MapPolicy, Operation, cdt_context::CdtContext};
use aerospike::{
    Key, ListPolicy, ListReturnType, ListWriteFlags, MapReturnType, MapWriteFlags, Value, WritePolicy,
    as_list, as_val,
};
use base64_simd::STANDARD as BASE64;

use crate::raw::{self, Connection};
use crate::support::{NAMESPACE, Setup, bin, code, key};

async fn operate(setup: &Setup, key: &Key, ops: &[Operation]) -> Result<aerospike::Record, aerospike::Error> {
    setup.client.operate(&WritePolicy::default(), key, ops).await
}

/// The bytes of a record's first bin.
async fn particle(setup: &Setup, key: &Key) -> (u8, String) {
    let mut connection = Connection::to(setup.server.addresses()[0]).await;
    let request = raw::request(
        raw::READ | raw::GET_ALL,
        0,
        &[(raw::NAMESPACE, NAMESPACE.as_bytes()), (raw::DIGEST, &key.digest())],
    );
    let reply = connection.single(&request).await;
    let (particle, _, value) = reply.bins.into_iter().next().unwrap();
    (particle, BASE64.encode_to_string(value))
}

fn golden_map() -> HashMap<Value, Value> {
    let nested = HashMap::from([(Value::from("n"), Value::from(4))]);
    HashMap::from([
        ("z".into(), 1.into()),
        ("a".into(), 2.into()),
        ("m".into(), as_list!(3, Value::from(nested))),
    ])
}

/// The expected bytes are those of the golden backups, made of a real server.
#[tokio::test]
async fn collections_are_stored_as_the_real_server_stores_them() {
    let setup = Setup::new(1).await;
    let key = |name: &str| key("golden", name);
    let ordered = ListPolicy::new(ListOrderType::Ordered, ListWriteFlags::DEFAULT);
    let values = [5, 3, 9, 1].map(Value::from).to_vec();
    operate(&setup, &key("list"), &[lists::append_items(&ordered, "v", values)]).await.unwrap();
    assert_eq!(particle(&setup, &key("list")).await, (20, "lccAAQEDBQk=".into()));
    for (name, order, bytes) in [
        ("k", MapOrder::KeyOrdered, "hMcAAcCiA2ECogNtkgOBogNuBKIDegE="),
        ("kv", MapOrder::KeyValueOrdered, "hMcAA8CiA2ECogNtkgOBogNuBKIDegE="),
    ] {
        let policy = MapPolicy::new(order, MapWriteFlags::DEFAULT);
        operate(&setup, &key(name), &[maps::put_items(&policy, "v", golden_map())]).await.unwrap();
        assert_eq!(particle(&setup, &key(name)).await, (19, bytes.into()), "{name}");
    }
    let values = (0..1000).map(|n| Value::from(format!("v{n}"))).collect();
    operate(&setup, &key("hll"), &[hll::add_with_index(&HllPolicy::default(), "v", values, 8)])
        .await
        .unwrap();
    let golden = "AAgAAAAAAAAAAAAIIQIYcYIMMMUEQIMIQUEQQUQQIIAMMQUEQQMIMIYEMIUEkIEEcQEMYgQMIIIEEEIIEMIIUMIYQQIMIQ\
                  EEYQMYUMIIEMMMUwUMUIQYMY0QIIIQEQMQAIQEAIQIIIMIgQQQMQMMEUYEEMIcQMMIUEMUIEAEMMMEEIMMMMQoIIIEIUIMIcEM\
                  MMcMcIEgUMMQYcgQUcQUYEYAQEMMQQUIIYUUUQIgUUQQMIIMQgUEQIMQQMUUUUIUMQIIQEUMUEIAIQI=";
    assert_eq!(particle(&setup, &key("hll")).await, (18, golden.into()));
}

#[tokio::test]
async fn lists_grow_shrink_and_answer() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    let policy = ListPolicy::default();
    let one = async |op| operate(&setup, &key, &[op]).await.map(|record| record.bins["l"].clone());
    assert_eq!(one(lists::append(&policy, "l", 5.into())).await.unwrap(), 1.into());
    let more = [1, 9, 5].map(Value::from).to_vec();
    assert_eq!(one(lists::append_items(&policy, "l", more)).await.unwrap(), 4.into());
    assert_eq!(one(lists::size("l")).await.unwrap(), 4.into());
    assert_eq!(one(lists::get("l", -2)).await.unwrap(), 9.into());
    assert_eq!(code(one(lists::get("l", 9)).await), 26);
    let values = ListReturnType::VALUES;
    assert_eq!(one(lists::get_by_rank_range_count("l", -2, 2, values)).await.unwrap(), as_list!(5, 9));
    let indexes = one(lists::get_by_value("l", 5.into(), ListReturnType::INDEX)).await.unwrap();
    assert_eq!(indexes, as_list!(0, 3));
    assert_eq!(one(lists::remove_by_value("l", 5.into(), ListReturnType::COUNT)).await.unwrap(), 2.into());
    assert_eq!(setup.value(&key, "l").await, Some(as_list!(1, 9)));
    setup.put(&key, &[bin("l", "text")]).await.unwrap();
    assert_eq!(code(one(lists::size("l")).await), 12);
}

#[tokio::test]
async fn maps_put_get_and_remove_by_key_index_rank_and_value() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    let policy = MapPolicy::new(MapOrder::KeyOrdered, MapWriteFlags::DEFAULT);
    let one = async |op| operate(&setup, &key, &[op]).await.map(|record| record.bins["m"].clone());
    for (name, value, size) in [("c", 1, 1), ("a", 3, 2), ("b", 2, 3)] {
        let op = maps::put(&policy, "m", name.into(), value.into());
        assert_eq!(one(op).await.unwrap(), size.into());
    }
    let keys = MapReturnType::KEY;
    assert_eq!(one(maps::get_by_index("m", 0, keys)).await.unwrap(), "a".into());
    assert_eq!(one(maps::get_by_rank("m", 0, keys)).await.unwrap(), "c".into());
    assert_eq!(one(maps::get_by_key("m", "b".into(), MapReturnType::VALUE)).await.unwrap(), 2.into());
    let range = maps::get_by_value_range("m", 2.into(), 4.into(), keys);
    assert_eq!(one(range).await.unwrap(), as_list!("a", "b"));
    assert_eq!(one(maps::increment_value(&policy, "m", "b".into(), 5.into())).await.unwrap(), 7.into());
    let create_only = MapPolicy::new(MapOrder::KeyOrdered, MapWriteFlags::CREATE_ONLY);
    assert_eq!(code(one(maps::put(&create_only, "m", "b".into(), 0.into())).await), 24);
    assert_eq!(one(maps::remove_by_key("m", "b".into(), MapReturnType::VALUE)).await.unwrap(), 7.into());
    assert_eq!(one(maps::size("m")).await.unwrap(), 2.into());
}

#[tokio::test]
async fn operations_reach_into_nested_collections() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    let inner = HashMap::from([(Value::from("list"), as_list!(1, 2))]);
    setup.put(&key, &[bin("v", as_list!(0, Value::from(inner)))]).await.unwrap();
    let path = [aerospike::operations::cdt_context::ctx_list_index(1), ctx_key("list")];
    let append = lists::append(&ListPolicy::default(), "v", 3.into()).context(path.clone());
    let record = operate(&setup, &key, &[append]).await.unwrap();
    assert_eq!(record.bins["v"], 3.into());
    let get = lists::get_range_from("v", 0).context(path);
    assert_eq!(operate(&setup, &key, &[get]).await.unwrap().bins["v"], as_list!(1, 2, 3));
}

fn ctx_key(key: &str) -> CdtContext {
    aerospike::operations::cdt_context::ctx_map_key(key.into())
}

#[tokio::test]
async fn hyperloglogs_count_and_unite() {
    let setup = Setup::new(1).await;
    let key = key("s", 1);
    let policy = HllPolicy::default();
    let values = |range: std::ops::Range<i64>| range.map(Value::from).collect::<Vec<_>>();
    operate(&setup, &key, &[hll::add_with_index(&policy, "a", values(0..1000), 12)]).await.unwrap();
    operate(&setup, &key, &[hll::add_with_index(&policy, "b", values(500..1500), 12)]).await.unwrap();
    let count = async |op, bin: &str| match operate(&setup, &key, &[op]).await.unwrap().bins[bin] {
        Value::Int(count) => count,
        ref other => panic!("no count but {other:?}"),
    };
    assert!((950..1050).contains(&count(hll::get_count("a"), "a").await));
    let other = setup.value(&key, "b").await.unwrap();
    operate(&setup, &key, &[hll::set_union(&policy, "a", vec![other])]).await.unwrap();
    assert!((1425..1575).contains(&count(hll::get_count("a"), "a").await));
}
