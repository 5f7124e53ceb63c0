//! Damaged backups: whatever happens to the objects of a backup, it is found, and no record of a damaged chunk is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use abs_asb::{Cipher, EncryptionKey};
use abs_cluster::Cluster;
use abs_engine::{
    BackupPlan, ChainRestore, Depth, EngineError, KeyRing, RestoreLimits, RestorePlan, RestoreProgress,
    RestoreReport, Verdict, inspect, verify,
};
use abs_storage::{Local, ObjectPath, Storage};
use chrono::{TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use crate::restore::{dispatch, into_two};
use crate::support::{Records, Server, Target, plan, scatter};

/// The objects of a backup, by name.
type Objects = BTreeMap<String, Vec<u8>>;

fn read(folder: &Path) -> Objects {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
}

/// Whether an object of this name holds records or definitions.
pub(crate) fn is_data(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "asb")
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

pub(crate) fn key(cipher: Cipher) -> EncryptionKey {
    EncryptionKey::from_pem_or_base64(include_str!("../../../tests/golden/test-key.b64"), cipher).unwrap()
}

/// What can be wrong with one object.
#[derive(Debug)]
enum Damage {
    Flip(usize),
    Truncate(usize),
    Extend,
    Delete,
    Swap(String),
    Older,
}

/// A backup, and an older one of the same namespace whose files have the same names.
struct Backup {
    objects: Objects,
    older: Objects,
    keys: KeyRing,
}

impl Backup {
    /// The damage of this number: of every kind, at any place of any object.
    fn damage(&self, number: u64) -> (String, Damage) {
        let random = |part: u64, below: usize| (scatter(number * 8 + part) % below.max(1) as u64) as usize;
        let (victim, bytes) = self.objects.iter().nth(random(0, self.objects.len())).unwrap();
        let victim = victim.clone();
        let damage = match random(1, 8) {
            0..=2 => Damage::Flip(random(2, bytes.len() * 8)),
            3 => Damage::Truncate(random(2, bytes.len())),
            4 => Damage::Extend,
            5 => Damage::Delete,
            6 => {
                let others: Vec<_> = self.objects.iter().filter(|(_, other)| *other != bytes).collect();
                Damage::Swap(others[random(2, others.len())].0.clone())
            }
            _ => Damage::Older,
        };
        (victim, damage)
    }

    /// The objects with that damage; `None` when there is no such damage to this object.
    fn damaged(&self, victim: &str, damage: &Damage) -> Option<Objects> {
        let mut objects = self.objects.clone();
        let bytes = objects.get_mut(victim).unwrap();
        match damage {
            Damage::Flip(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
            Damage::Truncate(length) => bytes.truncate(*length),
            Damage::Extend => bytes.extend_from_slice(b"\n"),
            // Without metadata.yaml there is no backup.
            Damage::Delete => {
                objects.remove(victim).filter(|_| victim != "metadata.yaml")?;
            }
            Damage::Swap(other) => {
                let bytes = std::mem::take(bytes);
                let taken = objects.insert(other.clone(), bytes).unwrap();
                objects.insert(victim.to_owned(), taken);
            }
            Damage::Older => bytes.clone_from(self.older.get(victim)?),
        }
        (objects != self.objects).then_some(objects)
    }

    /// Whether the objects differ in more than in what the `.asb` files hold.
    fn differs_outwardly(&self, objects: &Objects) -> bool {
        let outside = |objects: &Objects| -> Vec<_> {
            let look = |(name, bytes): (&String, &Vec<u8>)| {
                (name.clone(), bytes.len(), (!is_data(name)).then(|| bytes.clone()))
            };
            objects.iter().map(look).collect()
        };
        outside(objects) != outside(&self.objects)
    }
}

/// Lays the objects out and restores them; what was written does not matter.
async fn restore(cluster: &Cluster, folder: &Path, plan: &RestorePlan) -> Result<RestoreReport, EngineError> {
    let storage: Arc<dyn Storage> = Arc::new(Local::new(folder));
    let (progress, limits) = (Arc::new(RestoreProgress::default()), RestoreLimits::new(plan, 1));
    let links = [ObjectPath::root().into()];
    let cancel = CancellationToken::new();
    let run = ChainRestore::begin(cluster, &storage, &links, plan, &limits, &progress, &cancel).await?;
    let queue = run.next_link().await.unwrap();
    dispatch(run, queue, 2).await
}

fn lay_out(objects: &Objects) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in objects {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// What the namespace `two` holds.
async fn restored(server: &Server) -> Records {
    let target = Target::new();
    target.backup(server, "x", &plan("two"), Utc::now()).await.unwrap();
    target.records("x")
}

async fn backups(server: &Server, records: Records) -> (Vec<(&'static str, Backup)>, Records) {
    let (ctr, gcm) = (Some(key(Cipher::Aes256)), Some(key(Cipher::Aes256Gcm)));
    let plans = [
        ("plain", plan("one")),
        ("compact", BackupPlan { compact: true, ..plan("one") }),
        ("zstd", BackupPlan { compression: Some(1), ..plan("one") }),
        ("ctr", BackupPlan { encryption: ctr.clone(), ..plan("one") }),
        ("zstd and ctr", BackupPlan { compression: Some(1), encryption: ctr, ..plan("one") }),
        ("gcm", BackupPlan { encryption: gcm.clone(), ..plan("one") }),
        ("zstd and gcm", BackupPlan { compression: Some(1), encryption: gcm, ..plan("one") }),
    ];
    let mut all = Vec::new();
    for (name, plan) in plans {
        let plan = BackupPlan { parallel: 1, parallel_write: 1, file_limit: 2_500_000, ..plan };
        let target = Target::new();
        let now = Utc::now();
        target.backup(server, "older", &plan, now - TimeDelta::hours(1)).await.unwrap();
        target.backup(server, "b", &plan, now).await.unwrap();
        let folder = |name: &str| -> PathBuf { target.folder.path().join(name) };
        let (objects, older) = (read(&folder("b")), read(&folder("older")));
        assert!(objects.len() > 3, "{:?}", objects.keys());
        all.push((name, Backup { objects, older, keys: plan.encryption.into() }));
    }
    (all, records)
}

/// Protects: no damage to any object of a backup stays unnoticed, and none of it reaches the cluster. `ABS_DAMAGES` says how
/// many to try.
#[tokio::test(flavor = "multi_thread")]
async fn no_damage_stays_unnoticed() {
    let number: u64 = std::env::var("ABS_DAMAGES").map_or(40, |text| text.parse().unwrap());
    let server = Server::start(1).await;
    let records = server.load("one", "", 0..40, 150_000).await;
    let (backups, records) = Box::pin(backups(&server, records)).await;
    for (kind, backup) in &backups {
        let folder = lay_out(&backup.objects);
        let storage: Arc<dyn Storage> = Arc::new(Local::new(folder.path()));
        for depth in [Depth::Quick, Depth::Full] {
            let root = ObjectPath::root();
            let found = verify(&storage, &root, &backup.keys, depth, &Arc::default()).await.unwrap();
            assert_eq!(found.verdict(), Verdict::Whole, "{kind}: {found:?}");
        }
    }
    let mut found: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut number_left = number;
    for attempt in 0.. {
        if number_left == 0 {
            break;
        }
        let (kind, backup) = &backups[attempt as usize % backups.len()];
        let (victim, damage) = backup.damage(attempt);
        let Some(objects) = backup.damaged(&victim, &damage) else { continue };
        number_left -= 1;
        let folder = lay_out(&objects);
        let context = || format!("{kind}, {attempt}: {victim}: {damage:?}");
        let storage: Arc<dyn Storage> = Arc::new(Local::new(folder.path()));
        let looked = inspect(&storage, &ObjectPath::root(), &backup.keys).await;
        assert!(looked.map_or(true, |report| !report.is_sound()), "inspect: {}", context());
        let verdict = async |depth| {
            let root = ObjectPath::root();
            verify(&storage, &root, &backup.keys, depth, &Arc::default()).await.unwrap().verdict()
        };
        assert_eq!(verdict(Depth::Full).await, Verdict::Damaged, "verify: {}", context());
        let quick = if backup.differs_outwardly(&objects) { Verdict::Damaged } else { Verdict::Whole };
        assert_eq!(verdict(Depth::Quick).await, quick, "verify quick: {}", context());
        let plan = RestorePlan { encryption: backup.keys.clone(), no_generation: true, ..into_two() };
        restore(&server.cluster, folder.path(), &plan).await.map(|_| context()).unwrap_err();
        // With override what can be had is restored, or nothing at all; never anything else.
        let _ = restore(&server.cluster, folder.path(), &RestorePlan { override_counts: true, ..plan }).await;
        let damage = format!("{damage:?}");
        let damage = ["Flip", "Truncate", "Extend", "Delete", "Swap", "Older"]
            .into_iter()
            .find(|name| damage.starts_with(name))
            .unwrap();
        *found.entry((kind, damage)).or_default() += 1;
    }
    for (digest, value) in restored(&server).await {
        assert!(records.get(&digest) == Some(&value), "a record was changed");
    }
    println!("{found:#?}");
}

/// Protects: with `override` the items before a damaged chunk are restored, the others are named as lost, and another file is
/// not touched by it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_before_the_damage_can_be_restored() {
    for compression in [None, Some(1)] {
        let server = Server::start(1).await;
        let records = server.load("one", "", 0..40, 150_000).await;
        let target = Target::new();
        let plan = BackupPlan { compression, parallel: 1, parallel_write: 1, ..plan("one") };
        target.backup(&server, "b", &plan, Utc::now()).await.unwrap();
        let folder = target.folder.path().join("b");
        let file = folder.join("0_one_1.asb");
        let mut bytes = std::fs::read(&file).unwrap();
        if compression.is_none() {
            // The third chunk.
            bytes[(2 << 20) + 5] ^= 1;
        } else {
            bytes[5] ^= 1;
        }
        std::fs::write(&file, &bytes).unwrap();
        let error = restore(&server.cluster, &folder, &into_two()).await.unwrap_err().to_string();
        assert!(error.starts_with("0_one_1.asb: damaged: its bytes "), "{error}");
        let plan = RestorePlan { override_counts: true, no_generation: true, ..into_two() };
        let report = restore(&server.cluster, &folder, &plan).await;
        if compression.is_some() {
            // It is a single chunk, and there is no other file.
            assert!(report.unwrap_err().to_string().contains("has no header"));
            continue;
        }
        let report = report.unwrap();
        let expected = (2 << 20) / 200_000;
        assert!((expected - 2..=expected + 1).contains(&report.counts.inserted), "{:?}", report.counts);
        let warning = "0_one_1.asb: damaged: its bytes 2097152 to 3145727 differ from those that were written; what is there \
                       before is restored, and the last ";
        assert!(report.warnings.iter().any(|line| line.starts_with(warning)), "{:?}", report.warnings);
        let there = restored(&server).await;
        assert_eq!(there.len() as u64, report.counts.inserted);
        assert!(there.iter().all(|(digest, value)| records.get(digest) == Some(value)));
    }
}
