//! Users and passwords.

use std::time::Duration;

use abs_cluster::{Cluster, ClusterError, ConnectOptions, Credentials, ResultCode};

use crate::support::{builder, internal, options, password, refusal, works};

/// A day and a bit: longer than a session lasts.
const LONG: Duration = Duration::from_hours(25);

#[tokio::test]
async fn a_user_works_and_a_stranger_is_told_so() {
    let server = builder().user("backup", "right").start().await.unwrap();
    let as_user = |user: &str, text: &str| ConnectOptions {
        credentials: Some(internal(user, text)),
        ..options(&server)
    };
    let cluster = Cluster::connect(as_user("backup", "right")).await.unwrap();
    works(&cluster).await;
    let address = server.addresses()[0];
    assert_eq!(
        refusal(as_user("backup", "wrong")).await,
        format!("cannot log in to node {address} as backup: bad credential (code 65)")
    );
    assert_eq!(
        refusal(as_user("nobody", "right")).await,
        format!("cannot log in to node {address} as nobody: unknown user (code 60)")
    );
    assert_eq!(
        refusal(options(&server)).await,
        format!("the cluster at {address} serves only users that log in: give credentials")
    );
}

#[tokio::test]
async fn a_server_without_users_says_that_credentials_are_too_much() {
    let server = builder().start().await.unwrap();
    let text = refusal(ConnectOptions { credentials: Some(internal("u", "p")), ..options(&server) }).await;
    assert!(
        text.ends_with("(code 51), a community server has no users: leave out the credentials"),
        "{text}"
    );
}

/// Protects: the password is checked once per node, however many connections there are.
#[tokio::test]
async fn further_connections_show_the_token() {
    let server = builder().user("backup", "right").start().await.unwrap();
    let cluster = Cluster::connect(ConnectOptions {
        credentials: Some(internal("backup", "right")),
        ..options(&server)
    });
    let cluster = cluster.await.unwrap();
    let nodes = cluster.nodes();
    let node = nodes.iter().find(|node| node.port == server.addresses()[1].port()).unwrap();
    let counts = || server.knobs().counts_of(1).unwrap();
    let before = counts();
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(cluster.connection(node));
    }
    let open = futures_join(open).await;
    let after = counts();
    assert_eq!((after.logins - before.logins, after.authentications - before.authentications), (1, 4));
    drop(open);

    // A node that starts again knows no tokens, and a day later they are too old.
    for forget in
        [&|| server.knobs().forget_sessions(), &|| server.knobs().advance_clock(LONG) as ()] as [&dyn Fn(); 2]
    {
        forget();
        let before = counts();
        let _open = (cluster.connection(node).await.unwrap(), cluster.connection(node).await.unwrap());
        let after = counts();
        assert_eq!((after.logins - before.logins, after.authentications - before.authentications), (1, 2));
    }

    server.knobs().set_password("backup", "changed").unwrap();
    let error = cluster.connection(node).await.unwrap_err();
    assert!(matches!(&error, ClusterError::Login { code: ResultCode(65), .. }), "{error}");
    assert!(!error.is_transient());
}

/// A token is renewed before the server drops it.
#[tokio::test]
async fn a_short_session_is_renewed_in_time() {
    let server = builder().user("backup", "right").session_ttl(Duration::from_secs(1)).start().await.unwrap();
    let cluster = Cluster::connect(ConnectOptions {
        credentials: Some(internal("backup", "right")),
        ..options(&server)
    });
    let cluster = cluster.await.unwrap();
    let node = cluster.nodes().remove(0);
    let first = cluster.connection(&node).await.unwrap();
    let before = server.knobs().counts();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let second = cluster.connection(&node).await.unwrap();
    // The tend of the client for discovery has its own connection and opens no other.
    let after = server.knobs().counts();
    assert_eq!((after.logins - before.logins, after.authentications - before.authentications), (1, 0));
    drop((first, second));
}

#[tokio::test]
async fn a_password_of_another_service_is_not_sent_in_the_clear() {
    let server = builder().external_user("ldap", "right").start().await.unwrap();
    let credentials = Credentials::External { user: "ldap".into(), password: password("right") };
    let text = refusal(ConnectOptions { credentials: Some(credentials), ..options(&server) }).await;
    assert_eq!(text, "cannot use the credentials: EXTERNAL sends the password itself: set up TLS");
    let text = refusal(ConnectOptions { credentials: Some(Credentials::Pki), ..options(&server) }).await;
    assert!(text.contains("PKI takes the user from our certificate"), "{text}");
    assert_eq!(server.knobs().counts().connections, 0);
}

/// All at once.
async fn futures_join<F: Future<Output = Result<abs_cluster::Connection, ClusterError>>>(
    all: Vec<F>,
) -> Vec<abs_cluster::Connection> {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<abs_cluster::Connection>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (one, done) in all.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(connection) = one.as_mut().poll(context) {
                *done = Some(connection.unwrap());
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
