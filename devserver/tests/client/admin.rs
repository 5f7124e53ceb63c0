//! Indexes, UDF modules, truncation, and the answers to info commands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aerospike::operations::cdt_context::ctx_map_key;
use aerospike::{AdminPolicy, CollectionIndexType, IndexType, Task, UdfLang, expressions as exp};

use crate::raw::Connection;
use crate::support::{NAMESPACE, Setup, bin, key};

const INDEXES: [(&str, IndexType, CollectionIndexType); 5] = [
    ("n", IndexType::Numeric, CollectionIndexType::Default),
    ("s", IndexType::String, CollectionIndexType::Default),
    ("l", IndexType::Numeric, CollectionIndexType::List),
    ("m", IndexType::String, CollectionIndexType::MapKeys),
    ("m", IndexType::Numeric, CollectionIndexType::MapValues),
];

fn index_name(at: usize) -> String {
    format!("index-{at}")
}

pub async fn index_everything(setup: &Setup) {
    for (at, (bin, kind, collection)) in INDEXES.into_iter().enumerate() {
        let name = index_name(at);
        let task = setup
            .client
            .create_index_on_bin(&AdminPolicy::default(), NAMESPACE, "s", bin, &name, kind, collection, None)
            .await
            .unwrap();
        let status = task.query_status().await.unwrap();
        assert!(matches!(status, aerospike::task::Status::Complete), "{status:?}");
    }
}

pub async fn drop_everything(setup: &Setup) {
    for at in 0..INDEXES.len() {
        let name = index_name(at);
        setup.client.drop_index(&AdminPolicy::default(), NAMESPACE, "s", &name).await.unwrap();
    }
}

async fn info(setup: &Setup, command: &str) -> String {
    Connection::to(setup.server.addresses()[0]).await.info(command).await
}

/// The value of `name` in an answer of `name=value` pairs.
async fn statistic(setup: &Setup, command: &str, name: &str) -> String {
    let answer = info(setup, command).await;
    let mut pairs = answer.split([';', ':']).filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).unwrap_or_else(|| panic!("no {name} in {answer}")).1.to_owned()
}

#[tokio::test]
async fn indexes_of_every_kind_are_listed_as_they_were_made() {
    let setup = Setup::new(2).await;
    let (client, policy) = (&setup.client, AdminPolicy::default());
    index_everything(&setup).await;
    let default = CollectionIndexType::Default;
    let context = [ctx_map_key("a".into())];
    client
        .create_index_on_bin(&policy, NAMESPACE, "", "c", "context", IndexType::Blob, default, Some(&context))
        .await
        .unwrap();
    client
        .create_index_on_bin(&policy, NAMESPACE, "s", "g", "geo", IndexType::Geo2DSphere, default, None)
        .await
        .unwrap();
    let sum = exp::num_add(vec![exp::int_bin("n"), exp::int_val(1)]);
    client
        .create_index_using_expression(&policy, NAMESPACE, "s", "sum", IndexType::Numeric, default, &sum)
        .await
        .unwrap();
    client.create_set_index(&policy, NAMESPACE, "s", "whole").await.unwrap();
    let list = info(&setup, &format!("sindex-list:namespace={NAMESPACE};b64=true")).await;
    let line = |rest: &str| format!("ns={NAMESPACE}:indexname={rest}");
    let expected = [
        line("index-0:set=s:bin=n:type=numeric:indextype=default:context=null:exp=null:state=RW"),
        line("index-1:set=s:bin=s:type=string:indextype=default:context=null:exp=null:state=RW"),
        line("index-2:set=s:bin=l:type=numeric:indextype=list:context=null:exp=null:state=RW"),
        line("index-3:set=s:bin=m:type=string:indextype=mapkeys:context=null:exp=null:state=RW"),
        line("index-4:set=s:bin=m:type=numeric:indextype=mapvalues:context=null:exp=null:state=RW"),
        line("context:set=null:bin=c:type=blob:indextype=default:context=kiKiA2E=:exp=null:state=RW"),
        line("geo:set=s:bin=g:type=geo2dsphere:indextype=default:context=null:exp=null:state=RW"),
        line(&format!(
            "sum:set=s:bin=null:type=numeric:indextype=default:context=null:exp={}:state=RW",
            sum.base64().unwrap()
        )),
        line("whole:set=s:indextype=set"),
    ];
    assert_eq!(list.split(';').collect::<Vec<_>>(), expected);
    drop_everything(&setup).await;
    let list = info(&setup, &format!("sindex-list:namespace={NAMESPACE};b64=true")).await;
    assert_eq!(list.split(';').count(), 4);
}

#[tokio::test]
async fn an_index_name_stands_for_one_definition() {
    let setup = Setup::new(1).await;
    let create = |rest: &str| format!("sindex-create:namespace={NAMESPACE};set=s;indexname=i;{rest}");
    assert_eq!(info(&setup, &create("type=numeric;bin=a")).await, "ok");
    assert_eq!(info(&setup, &create("type=numeric;bin=a")).await, "ok");
    let refusal = info(&setup, &create("type=string;bin=a")).await;
    assert_eq!(refusal, "ERROR:200:'indexname' already exists with different definition");
    let bad = info(&setup, &create("type=number;bin=a")).await;
    assert!(bad.starts_with("ERROR:4:bad 'type'"), "{bad}");
}

#[tokio::test]
async fn udf_modules_are_kept() {
    let setup = Setup::new(2).await;
    let (client, policy) = (&setup.client, AdminPolicy::default());
    let code = b"function f(r)\n  return 1\nend\n";
    let task = client.register_udf(&policy, code, "one.lua", UdfLang::Lua).await.unwrap();
    task.wait_till_complete(Some(Duration::from_secs(5))).await.unwrap();
    let list = info(&setup, "udf-list").await;
    assert!(list.starts_with("filename=one.lua,hash=") && list.ends_with(",type=LUA;"), "{list}");
    let module = info(&setup, "udf-get:filename=one.lua").await;
    let content = base64_simd::STANDARD.encode_to_string(code);
    assert_eq!(module, format!("type=LUA;content={content};"));
    client.remove_udf(&policy, "one.lua").await.unwrap();
    assert_eq!(info(&setup, "udf-list").await, "");
    assert_eq!(info(&setup, "udf-get:filename=one.lua").await, "error=not_found");
}

#[tokio::test]
async fn truncation_takes_what_was_written_before() {
    let setup = Setup::new(2).await;
    setup.fill("s", 100).await;
    setup.fill("t", 100).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let between = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
    tokio::time::sleep(Duration::from_millis(20)).await;
    setup.put(&key("s", 0), &[bin("n", 0)]).await.unwrap();
    setup.put(&key("s", "new"), &[bin("n", 1)]).await.unwrap();
    let (client, policy, knobs) = (&setup.client, AdminPolicy::default(), setup.server.knobs());
    client.truncate(&policy, NAMESPACE, "s", between).await.unwrap();
    assert_eq!(knobs.objects(NAMESPACE), Some(102));
    assert!(setup.exists(&key("s", 0)).await && !setup.exists(&key("s", 1)).await);
    // What was written in the millisecond of the truncation stays, as on the real server.
    tokio::time::sleep(Duration::from_millis(5)).await;
    client.truncate(&policy, NAMESPACE, "s", 0).await.unwrap();
    assert_eq!(knobs.objects(NAMESPACE), Some(100));
    client.truncate(&policy, NAMESPACE, "", 0).await.unwrap();
    assert_eq!(knobs.objects(NAMESPACE), Some(0));
    setup.put(&key("s", 0), &[bin("n", 0)]).await.unwrap();
    assert!(setup.exists(&key("s", 0)).await);
}

#[tokio::test]
async fn statistics_count_records_and_bytes() {
    let setup = Setup::new(3).await;
    setup.fill("s", 300).await;
    let mut masters = 0;
    for address in setup.server.addresses() {
        let answer = Connection::to(*address).await.info(&format!("namespace/{NAMESPACE}")).await;
        let pair = answer.split(';').find_map(|pair| pair.strip_prefix("master_objects=")).unwrap();
        masters += pair.parse::<u64>().unwrap();
    }
    assert_eq!(masters, 300);
    let namespace = format!("namespace/{NAMESPACE}");
    assert_eq!(statistic(&setup, &namespace, "effective_replication_factor").await, "2");
    assert_eq!(statistic(&setup, &namespace, "stop_writes").await, "false");
    assert_eq!(statistic(&setup, "statistics", "cluster_size").await, "3");
    assert_eq!(info(&setup, "build").await, "8.1.2.0");
    assert_eq!(info(&setup, "namespaces").await, NAMESPACE);
    assert_eq!(info(&setup, "no-such-command").await, "ERROR:4:unrecognized command");
    let key = info(&setup, "cluster-stable:size=3;ignore-migrations=false").await;
    assert!(u64::from_str_radix(&key, 16).is_ok(), "{key}");
    assert!(info(&setup, "cluster-stable:size=2").await.starts_with("ERROR"));
}
