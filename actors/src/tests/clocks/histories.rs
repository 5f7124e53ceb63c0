//! Histories of backups between which clocks are set in any way.

use std::collections::BTreeMap;
use std::time::Duration;

use abs_asb::Digest;
use abs_engine::catalog::BackupKind::{self, Full, Incremental};
use chrono::{SubsecRound as _, TimeDelta};
use proptest::prelude::*;

use super::{POLICY, YEARLY, back_up, list, pause, restored, std};
use crate::clock::Clock as _;
use crate::testing::{World, digest};

/// How a clock is set, in milliseconds.
fn set() -> impl Strategy<Value = i64> {
    const DAY: i64 = 86_400_000;
    prop_oneof![4 => Just(0), 1 => -9_000..9_000_i64, 1 => -40_000..40_000_i64, 1 => -DAY..DAY]
}

/// What happens between two backups, and the backup.
#[derive(Clone, Debug)]
struct Step {
    before: Vec<u64>,
    passes: u32,
    service: i64,
    cluster: i64,
    after: Vec<u64>,
    kind: BackupKind,
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = || prop::collection::vec(0..12_u64, 1..6);
    let kind = prop_oneof![1 => Just(Full), 4 => Just(Incremental)];
    (numbers(), 0..7_200_000_u32, set(), set(), numbers(), kind).prop_map(
        |(before, passes, service, cluster, after, kind)| Step {
            before,
            passes,
            service,
            cluster,
            after,
            kind,
        },
    )
}

/// Histories that are followed at the same time: most of the time each of them waits.
const AT_ONCE: usize = 20;

/// So many times [`AT_ONCE`] histories as make those that `ABS_CLOCK_CASES` says.
fn cases() -> u32 {
    let histories =
        std::env::var("ABS_CLOCK_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200_u32);
    histories.div_ceil(AT_ONCE as u32)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 30, ..ProptestConfig::with_cases(cases()) })]

    /// Protects: however the clocks of the service and of the cluster are set between backups, the chain of every backup that
    /// counts, and of now, gives what the cluster held then.
    #[test]
    fn chains_hold_what_the_cluster_held(
        histories in prop::collection::vec(prop::collection::vec(step(), 2..9), AT_ONCE),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(futures_util::future::join_all(histories.into_iter().map(follow)));
    }
}

/// Protects: a backup that is made when the clock was set back to just before an earlier backup is dated later than that, even
/// if newer ones are of a time that is wrong now.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_to_just_before_a_backup_dates_none_before_it() {
    const HOUR: u32 = 3_600_000;
    let step = |passes, service, number, kind| Step {
        before: vec![number],
        passes,
        service,
        cluster: 0,
        after: vec![number + 1],
        kind,
    };
    let back = -i64::from(HOUR) - 1_500;
    follow(vec![
        step(0, 0, 0, Full),
        step(HOUR, 0, 2, Incremental),
        step(HOUR, 0, 4, Incremental),
        step(0, back, 6, Full),
        step(HOUR, 0, 8, Incremental),
    ])
    .await;
}

async fn follow(steps: Vec<Step>) {
    // In the past, so that the clock of the storage has no doubts.
    let mut world = World::start("2024-06-15T12:00:00Z", POLICY, YEARLY).await;
    let (mut held, mut version, mut moments) = (BTreeMap::new(), 0, BTreeMap::new());
    let mut write = |numbers: Vec<u64>, held: &mut BTreeMap<Digest, u64>| {
        let records: Vec<_> = numbers
            .into_iter()
            .map(|number| {
                (number, {
                    version += 1;
                    version
                })
            })
            .collect();
        held.extend(records.iter().map(|(number, value)| (digest(*number), *value)));
        records
    };
    for (index, step) in steps.into_iter().enumerate() {
        world.put("test", write(step.before, &mut held)).await;
        let passes = TimeDelta::milliseconds(step.passes.into());
        world.clock.set(world.clock.now() + passes);
        world.dev.knobs().advance_clock(std(passes));
        if step.service != 0 {
            world.clock.jump(world.clock.now() + TimeDelta::milliseconds(step.service));
        }
        let by = Duration::from_millis(step.cluster.unsigned_abs());
        match step.cluster {
            0.. => world.dev.knobs().advance_clock(by),
            _ => world.dev.knobs().set_clock_back(by),
        }
        world.put("test", write(step.after, &mut held)).await;
        pause().await;
        let kind = back_up(&mut world, if index == 0 { Full } else { step.kind }).await;
        let made = list(&world, kind).await.into_iter().map(|backup| backup.created);
        let new =
            made.filter(|created| !moments.contains_key(&(kind.as_str(), *created))).collect::<Vec<_>>();
        assert_eq!(new.len(), 1, "one backup was made: {new:?}");
        moments.insert((kind.as_str(), new[0]), held.clone());
        assert_eq!(restored(&world, world.clock.now().trunc_subsecs(3)).await, held, "now");
    }
    for kind in BackupKind::ALL {
        for backup in list(&world, kind).await.iter().filter(|backup| backup.is_trusted()) {
            let then = &moments[&(kind.as_str(), backup.created)];
            assert_eq!(restored(&world, backup.created).await, *then, "{}", backup.key);
        }
    }
}
