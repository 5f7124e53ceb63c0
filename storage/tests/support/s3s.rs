//! An S3 service in this process, which checks signatures and checksums.

use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

/// Starts a server whose bucket `abs-test` is in a folder, with the key `test` and `test-secret`; its URL.
pub async fn serve(root: &Path) -> String {
    std::fs::create_dir(root.join("abs-test")).unwrap();
    serve_with(s3s_fs::FileSystem::new(root).unwrap()).await
}

/// Starts a server with anything behind it; its URL.
pub async fn serve_with(behind: impl s3s::S3) -> String {
    let mut service = S3ServiceBuilder::new(behind);
    service.set_auth(SimpleAuth::from_single("test", "test-secret"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                // A client may go whenever it likes.
                let _ =
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    url
}
