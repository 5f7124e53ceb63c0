//! All faults at once.

use std::time::{Duration, Instant};

use abs_config::Retry;
use abs_devserver::{Fault, Kind};
use abs_engine::{BackupPlan, RestorePlan};

use super::{Data, Numbers, adds_up, backup, empty, plan_backup, plan_restore, restore, until};
use crate::support::{Dump, Server, same};

const DATA: Data = Data { records: 3000, partitions: 1500, size: 1500 };
/// For a cluster that has a bad second.
const PATIENT: Retry = Retry { base: Duration::from_millis(30), multiplier: 1.5, max_retries: 12 };

/// Hurts the server for a second: nodes stop and start, partitions move and are refused, connections break. In the end all
/// is well again.
async fn hurt(server: &Server, mut numbers: Numbers) {
    let (dev, knobs) = (server.dev(), server.dev().knobs());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let (node, partition) = (numbers.below(3) as usize, numbers.below(DATA.partitions) as usize);
        match numbers.below(6) {
            0 => {
                dev.stop_node(node).await.unwrap();
                tokio::time::sleep(Duration::from_millis(numbers.below(120))).await;
                dev.start_node(node).await.unwrap();
            }
            1 => knobs.move_partition(partition, node).unwrap(),
            2 => knobs.refuse_partition(partition, numbers.below(2) == 0).unwrap(),
            3 => drop(knobs.inject(Fault::cut_request(Kind::Any).on_node(node).once())),
            4 => drop(knobs.inject(Fault::cut_reply(Kind::Any, numbers.below(1_500_000)).once())),
            _ => drop(knobs.inject(Fault::cut_reply(Kind::Any, numbers.below(400)).on_node(node).once())),
        }
        tokio::time::sleep(Duration::from_millis(numbers.below(30))).await;
    }
    knobs.clear();
}

/// A cluster in trouble of every kind at the same time costs a backup and a restore nothing but time: no record lost, none
/// twice, counters that add up, an end to it. What the other tests tell apart may still meet.
#[test]
fn a_cluster_in_all_kinds_of_trouble_costs_time_only() {
    let server = Server::built(|builder| builder.nodes(3).replication_factor(2), None);
    DATA.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let calm = folder.path().join("calm");
    backup(&server, &calm, &plan_backup(&server), async |_| {}).unwrap();
    let expected = Dump::read(&calm);
    let knobs = server.dev().knobs();
    for seed in 0..4 {
        // Slow enough to be under way all the time.
        knobs.inject(Fault::delay_reply(Kind::Query, Duration::from_millis(60)));
        let at = folder.path().join(seed.to_string());
        let plan = BackupPlan { parallel: 3, retry: PATIENT, ..plan_backup(&server) };
        let scans = knobs.counts().queries;
        let report = backup(&server, &at, &plan, async |_| {
            // The command line asks its first questions once.
            for _ in 0..10_000 {
                if knobs.counts().queries > scans {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            hurt(&server, Numbers(seed)).await;
        })
        .unwrap();
        assert!(report.retries > 0, "seed {seed}");
        same(&Dump::read(&at), &expected);

        empty(&server);
        knobs.inject(Fault::delay_reply(Kind::Batch, Duration::from_millis(15)));
        let plan =
            RestorePlan { resend: PATIENT, batch_size: 24, max_async_batches: 3, ..plan_restore(&server) };
        let (result, c) = std::thread::scope(|scope| {
            let trouble = scope.spawn(|| server.runtime.block_on(hurt(&server, Numbers(100 + seed))));
            let done = restore(&server, &calm, &plan);
            trouble.join().unwrap();
            done
        });
        result.unwrap();
        adds_up(&c);
        assert_eq!((c.read, c.inserted + c.fresher), (3000, 3000), "seed {seed}: {c:?}");
        assert!(c.fresher <= c.in_doubt && c.retries > 0, "seed {seed}: {c:?}");
        until("all nodes are known again", || server.cluster.nodes().len() == 3);
        let again = folder.path().join(format!("{seed}-again"));
        backup(&server, &again, &plan_backup(&server), async |_| {}).unwrap();
        same(&Dump::read(&again).restored(), &expected);
    }
}
