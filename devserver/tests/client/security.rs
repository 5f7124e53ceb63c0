//! Users and their sessions, message by message.

use std::time::Duration;

use abs_devserver::{Builder, DevServer};
use aerospike::{AuthMode, Client, ClientPolicy};

use crate::raw::{self, Connection, admin};
use crate::support::{MEMORY, NAMESPACE};

const AUTHENTICATE: u8 = 0;
const CREATE_USER: u8 = 1;
const LOGIN: u8 = 20;
const USER: u8 = 0;
const CREDENTIAL: u8 = 3;
const CLEAR_PASSWORD: u8 = 4;
const SESSION_TOKEN: u8 = 5;

/// What clients make of "password".
const HASH: &[u8] = b"$2a$10$7EqJtq98hPqEX7fNZaFWoOqUH6KN8IKy3Yk5Kz..RHGKNAUCoP/LG";

fn builder() -> Builder {
    DevServer::builder().nodes(2).namespace(NAMESPACE, MEMORY).user("u", "password")
}

#[tokio::test]
async fn strangers_are_served_nothing() {
    let server = builder().start().await.unwrap();
    let mut stranger = Connection::to(server.addresses()[0]).await;
    assert_eq!(stranger.info_text("namespaces").await, "ERROR:80:not authenticated\n");
    let fields: &[(u8, &[u8])] = &[(raw::NAMESPACE, NAMESPACE.as_bytes()), (raw::DIGEST, &[1; 20])];
    assert_eq!(stranger.single(&raw::request(raw::READ | raw::GET_ALL, 0, fields)).await.result, 80);
    assert_eq!(stranger.single(&raw::query(NAMESPACE, &[1], &[])).await.result, 80);
    let batch = stranger.single(&raw::request(raw::BATCH, 0, &[])).await;
    assert_eq!((batch.result, batch.is_last()), (80, true));
    assert_eq!(stranger.admin(&admin(CREATE_USER, &[(USER, b"x")])).await.0, 80);
    let login = admin(LOGIN, &[(USER, b"u"), (CREDENTIAL, HASH)]);
    assert_eq!(stranger.admin(&login).await.0, 0);
    assert_eq!(stranger.info("namespaces").await, NAMESPACE);
    assert_eq!(stranger.admin(&admin(CREATE_USER, &[(USER, b"x")])).await.0, 54);
    assert!(stranger.info("edition").await.contains("Enterprise"));
}

#[tokio::test]
async fn logins_are_refused_as_the_enterprise_edition_does() {
    let server = builder().external_user("e", "secret").start().await.unwrap();
    let mut connection = Connection::to(server.addresses()[0]).await;
    for (fields, code) in [
        (&[(USER, &b"nobody"[..]), (CREDENTIAL, HASH)][..], 60),
        (&[(CREDENTIAL, HASH)], 60),
        (&[], 60),
        (&[(USER, b"u"), (CREDENTIAL, b"$2a$10$")], 65),
        (&[(USER, b"u")], 65),
        (&[(USER, b"u"), (CLEAR_PASSWORD, b"password")], 65),
        (&[(USER, b"e"), (CREDENTIAL, HASH)], 65),
        (&[(USER, b"e"), (CREDENTIAL, HASH), (CLEAR_PASSWORD, b"secret")], 0),
    ] {
        assert_eq!(connection.admin(&admin(LOGIN, fields)).await.0, code, "{fields:?}");
    }
    let mut cut = admin(LOGIN, &[(USER, b"u")]);
    cut[11] = 2;
    assert_eq!(connection.admin(&cut).await.0, 55);
}

#[tokio::test]
async fn a_token_is_good_on_its_node_for_its_time() {
    let server = builder().session_ttl(Duration::from_mins(1)).start().await.unwrap();
    let mut first = Connection::to(server.addresses()[0]).await;
    let (code, token) = first.admin(&admin(LOGIN, &[(USER, b"u"), (CREDENTIAL, HASH)])).await;
    let token = token.unwrap();
    assert_eq!(code, 0);
    let with = |user: &'static [u8]| admin(AUTHENTICATE, &[(USER, user), (SESSION_TOKEN, &token)]);
    let mut second = Connection::to(server.addresses()[0]).await;
    assert_eq!(second.admin(&with(b"v")).await.0, 65);
    assert_eq!(second.admin(&with(b"u")).await.0, 0);
    assert_eq!(second.info("node").await, "DE0001");
    let mut elsewhere = Connection::to(server.addresses()[1]).await;
    assert_eq!(elsewhere.admin(&with(b"u")).await.0, 65);
    assert_eq!(elsewhere.info_text("node").await, "ERROR:80:not authenticated\n");
    server.knobs().advance_clock(Duration::from_mins(2));
    let mut late = Connection::to(server.addresses()[0]).await;
    assert_eq!(late.admin(&with(b"u")).await.0, 66);
    // Who is in stays in.
    assert_eq!(second.info("node").await, "DE0001");
}

#[tokio::test]
async fn the_official_client_logs_in() {
    let server = builder().start().await.unwrap();
    let connect = async |password: &str| {
        let auth_mode = AuthMode::Internal("u".into(), password.into());
        let policy = ClientPolicy { auth_mode, ..ClientPolicy::default() };
        Client::new(&policy, &server.addresses()[0].to_string()).await
    };
    assert_eq!(connect("password").await.unwrap().nodes().len(), 2);
    assert!(connect("another").await.is_err());
}

#[tokio::test]
async fn a_server_without_users_knows_no_logins() {
    let server = DevServer::builder().namespace(NAMESPACE, MEMORY).start().await.unwrap();
    let mut connection = Connection::to(server.addresses()[0]).await;
    assert_eq!(connection.admin(&admin(LOGIN, &[(USER, b"u"), (CREDENTIAL, HASH)])).await, (51, None));
    assert_eq!(connection.info("node").await, "DE0001");
    assert_eq!(connection.info("racks:").await, "ERROR:25:enterprise only");
}

#[tokio::test]
async fn racks_are_told_as_the_real_server_tells_them() {
    let builder = DevServer::builder().nodes(3).namespace("a", MEMORY).namespace("b", MEMORY);
    let server = builder.racks([7, 2, 7]).start().await.unwrap();
    let mut connection = Connection::to(server.addresses()[2]).await;
    let racks = "rack_2=DE0002:rack_7=DE0003,DE0001";
    assert_eq!(connection.info("racks:").await, format!("ns=a:{racks};ns=b:{racks}"));
    assert_eq!(connection.info("racks:namespace=b").await, racks);
    assert_eq!(connection.info("rack-ids").await, "a:7;b:7");
    let config = connection.info("get-config:context=namespace;id=a").await;
    assert!(config.contains(";rack-id=7;"), "{config}");
    let wrong = DevServer::builder().namespace("a", MEMORY).racks([1, 2]).start().await.unwrap_err();
    assert!(wrong.to_string().ends_with("2 racks for 1 nodes, each has one"));
}
