//! A server, a client of it, and short forms of what the tests do with them.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use aerospike::{
    BasePolicy, Bin, Client, ClientPolicy, Error, Key, PartitionFilter, QueryPolicy, ReadPolicy, Record,
    Statement, Value, WritePolicy,
};

use abs_devserver::{Builder, DevServer};

pub const NAMESPACE: &str = "test";
pub const MEMORY: u64 = 64 << 20;

/// A server and a client that is connected to it.
pub struct Setup {
    pub server: DevServer,
    pub client: Client,
}

impl Setup {
    pub async fn new(nodes: usize) -> Setup {
        Setup::from(DevServer::builder().nodes(nodes).namespace(NAMESPACE, MEMORY)).await
    }

    pub async fn from(builder: Builder) -> Setup {
        let server = builder.start().await.unwrap();
        // Short, so that a test sees soon what the client learns by asking.
        let policy = ClientPolicy { tend_interval: 250, ..ClientPolicy::default() };
        let client = Client::new(&policy, &server.addresses()[0].to_string()).await.unwrap();
        Setup { server, client }
    }

    pub async fn put(&self, key: &Key, bins: &[Bin]) -> Result<(), Error> {
        self.client.put(&WritePolicy::default(), key, bins).await
    }

    pub async fn get(&self, key: &Key) -> Result<Record, Error> {
        self.client.get(&ReadPolicy::default(), key, aerospike::Bins::All).await
    }

    pub async fn value(&self, key: &Key, bin: &str) -> Option<Value> {
        self.get(key).await.unwrap().bins.get(bin).cloned()
    }

    pub async fn exists(&self, key: &Key) -> bool {
        self.client.exists(&ReadPolicy::default(), key).await.unwrap()
    }

    /// Writes records with the keys and the bin "n" from 0 to `count`.
    pub async fn fill(&self, set: &str, count: i64) {
        for n in 0..count {
            self.put(&key(set, n), &[bin("n", n)]).await.unwrap();
        }
    }

    /// What a query finds.
    pub async fn query(&self, statement: Statement) -> Result<Vec<Record>, Error> {
        self.query_with(&QueryPolicy::default(), statement).await
    }

    pub async fn query_with(&self, policy: &QueryPolicy, statement: Statement) -> Result<Vec<Record>, Error> {
        self.query_part(policy, PartitionFilter::all(), statement).await
    }

    pub async fn query_part(
        &self,
        policy: &QueryPolicy,
        partitions: PartitionFilter,
        statement: Statement,
    ) -> Result<Vec<Record>, Error> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let sink = found.clone();
        let collect = move |record| {
            sink.lock().unwrap().push(record);
            std::future::ready(true)
        };
        self.client.query_foreach(policy, partitions, statement, collect).await?.wait().await?;
        let found = std::mem::take(&mut *found.lock().unwrap());
        found.into_iter().collect()
    }
}

pub fn key(set: &str, key: impl Into<Value>) -> Key {
    Key::new(NAMESPACE, set, key.into()).unwrap()
}

pub fn bin(name: &str, value: impl Into<Value>) -> Bin {
    Bin::new(name, value.into())
}

/// The result code of what must have failed, as the server gave it.
pub fn code<T: Debug>(result: Result<T, Error>) -> i32 {
    let error = result.expect_err("this must fail");
    std::iter::successors(Some(&error), |error| error.cause()).last().unwrap().result_code()
}

/// The bin "n" of records, in order.
pub fn numbers(records: &[Record]) -> Vec<i64> {
    let mut numbers: Vec<i64> = records
        .iter()
        .map(|record| match record.bins.get("n") {
            Some(Value::Int(n)) => *n,
            other => panic!("no number but {other:?}"),
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// No retries: a fault shows at once.
pub fn once() -> BasePolicy {
    BasePolicy { max_retries: 0, ..BasePolicy::default() }
}
