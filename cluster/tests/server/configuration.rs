//! The configuration of a cluster.

use abs_cluster::{Cluster, ConnectOptions};

use crate::support::{NAMESPACE, builder, internal, options};

#[tokio::test]
async fn each_node_has_its_own_file() {
    let server = builder().racks([5, 6]).user("admin", "right").start().await.unwrap();
    let options = ConnectOptions { credentials: Some(internal("admin", "right")), ..options(&server) };
    let cluster = Cluster::connect(options).await.unwrap();
    let files = cluster.configuration().await.unwrap();
    assert_eq!(files.len(), 2);
    for (at, (node, text)) in files.iter().enumerate() {
        assert_eq!(&*node.name, format!("DE000{}", at + 1));
        for part in [
            "service {\n    batch-max-requests 0\n    cluster-name devserver\n",
            &format!("    service {{\n        port {}\n", server.addresses()[at].port()),
            &format!("\nnamespace {NAMESPACE} {{\n    allow-ttl-without-nsup false\n"),
            &format!("\n    rack-id {}\n", at + 5),
            &format!(
                "    storage-engine memory {{\n        compression none\n        data-size 67108864\n        file {NAMESPACE}.dat\n    }}\n"
            ),
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
