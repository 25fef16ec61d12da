//! One suite, run on a folder and on a store in memory.

mod writing;

use super::*;
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use pixfleet_cluster::{Class, Generation, Manifest, PartEntry, Rank, RunId, Step};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn state(fill: u8) -> Vec<HostTensor> {
    let sizes = [3usize, 1, 700, 40, 41, 5, 0, 300, 20, 90];
    let mut tensors: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(i, &n)| HostTensor {
            name: format!("param/layer.{i}"),
            dtype: Dtype::F32,
            shape: vec![n],
            bytes: Bytes::from(vec![fill.wrapping_add(i as u8); 4 * n]),
        })
        .collect();
    tensors.push(HostTensor {
        name: "step".into(),
        dtype: Dtype::I64,
        shape: vec![],
        bytes: Bytes::from(vec![fill; 8]),
    });
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

fn manifest(step: u64, world: u32, parts: Vec<PartEntry>) -> Manifest {
    Manifest {
        version: Manifest::VERSION,
        run: RunId("t".into()),
        step: Step(step),
        generation: Generation(1),
        world,
        nonce: format!("n{step}"),
        spec_digest: "s".into(),
        dataset_digest: "d".into(),
        parts,
    }
}

async fn write(run: &Folder, step: u64, world: u32, tensors: &[HostTensor]) -> Manifest {
    let sizes: Vec<u64> = tensors.iter().map(|t| t.bytes.len() as u64).collect();
    let mut parts = Vec::new();
    for rank in (0..world).map(Rank) {
        let own = tensors[share(&sizes, rank, world)].to_vec();
        let key = PartKey { step: Step(step), generation: Generation(1), rank, world };
        parts.push(write_part(run, key, own, PATIENCE).await.expect("written"));
    }
    let manifest = manifest(step, world, parts);
    commit(run, &manifest).await;
    manifest
}

/// As the coordinator does.
async fn commit(run: &Folder, manifest: &Manifest) {
    let key = Manifest::key(manifest.step, manifest.generation);
    let json = serde_json::to_vec(manifest).expect("a manifest has only JSON types");
    run.store().put_opts(&run.path(&key), json.into(), PutMode::Create.into()).await.expect("committed");
}

/// Every property that a store must give us, on an empty `run`.
async fn suite(run: &Folder) {
    assert_eq!(newest_good(run).await.expect("an empty store is no error"), None);

    // What three ranks wrote, anybody reads.
    let first = write(run, 9, 3, &state(1)).await;
    assert_eq!(load(run, &first).await.expect("whole"), state(1));
    let second = write(run, 10, 2, &state(2)).await;
    let found = newest_good(run).await.expect("readable").expect("two lie there");
    assert_eq!(found.manifest, second);
    assert_eq!(load_at(run, &found.key).await.expect("whole"), (second.clone(), state(2)));

    // Parts without a manifest are no checkpoint.
    let key = PartKey { step: Step(11), generation: Generation(1), rank: Rank(0), world: 1 };
    write_part(run, key, state(3), PATIENCE).await.expect("written");
    assert_eq!(newest_good(run).await.expect("readable").expect("there").manifest, second);

    // One flipped byte in one part: the older checkpoint serves.
    let at = run.path(&second.parts[1].path);
    let mut bytes = run.store().get(&at).await.expect("there").bytes().await.expect("read").to_vec();
    *bytes.last_mut().expect("not empty") ^= 1;
    run.store().put(&at, bytes.clone().into()).await.expect("put");
    let error = verify(run, &second).await.expect_err("damaged");
    assert!(
        error.to_string().starts_with(&format!("part {} is damaged: expected blake3 ", second.parts[1].path)),
        "{error}"
    );
    assert_eq!(newest_good(run).await.expect("readable").expect("the older one").manifest, first);
    // Shorter, then gone: the same.
    bytes.truncate(10);
    run.store().put(&at, bytes.into()).await.expect("put");
    assert_eq!(
        verify(run, &second).await.expect_err("short").to_string(),
        format!("part {} is damaged: expected {} bytes, found 10 bytes", second.parts[1].path, second.parts[1].bytes)
    );
    run.store().delete(&at).await.expect("deleted");
    assert_eq!(newest_good(run).await.expect("readable").expect("the older one").manifest, first);

    // Retention keeps the newest, and parts that may yet be committed.
    write(run, 12, 1, &state(4)).await;
    write(run, 13, 1, &state(5)).await;
    let gone = sweep(run, 2).await.expect("swept");
    assert_eq!(gone, vec![(Step(10), Generation(1)), (Step(9), Generation(1))]);
    assert!(run.store().head(&run.path(&first.parts[0].path)).await.is_err());
    assert_eq!(newest_good(run).await.expect("readable").expect("there").manifest.step, Step(13));
}

#[tokio::test]
async fn a_folder_passes_the_suite() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", folder.path().display());
    let run = Folder::parse(&url).expect("a URL").join("run");
    assert_eq!(run.local_folder(), Some(folder.path().join("run")));
    suite(&run).await;
    assert!(!folder.path().join("run/checkpoints/000000000009-g1").exists(), "no empty folder stays behind");
    assert!(folder.path().join("run/manifests").is_dir(), "objects lie under the run's folder");
}

#[tokio::test]
async fn a_store_in_memory_passes_the_suite() {
    suite(&Folder::in_memory().join("run")).await;
}

#[test]
fn shares_cover_the_list_once_and_are_even() {
    let sizes: Vec<u64> = (0..200).map(|i| (i * 37) % 101).collect();
    let total: u64 = sizes.iter().sum();
    for world in 1..9 {
        let mut next = 0;
        for rank in 0..world {
            let range = share(&sizes, Rank(rank), world);
            assert_eq!(range.start, next, "rank {rank} of {world}");
            next = range.end;
            let bytes: u64 = sizes[range].iter().sum();
            assert!(bytes.abs_diff(total / u64::from(world)) <= 101, "rank {rank} of {world} holds {bytes}");
        }
        assert_eq!(next, sizes.len());
    }
    assert_eq!(share(&[0, 0], Rank(0), 2), 0..2, "empty tensors have an owner too");
    assert_eq!(share(&[5], Rank(1), 3), 0..1, "one tensor, three ranks");
}

#[test]
fn retention_keeps_the_newest() {
    let at = |s: u64, g: u64| (Step(s), Generation(g));
    let all = [at(10, 1), at(30, 2), at(20, 1), at(30, 3)];
    assert_eq!(doomed(&all, 2), vec![at(20, 1), at(10, 1)]);
    assert_eq!(doomed(&all, 9), vec![]);
    assert_eq!(doomed(&all, 0).len(), 3, "the newest never goes");
}

#[test]
fn the_same_tensors_give_the_same_bytes() {
    let a = encode("a", &state(1)).expect("encodes");
    assert_eq!(a.blake3, encode("b", &state(1)).expect("encodes").blake3);
    assert_ne!(a.blake3, encode("a", &state(2)).expect("encodes").blake3);
}

#[test]
fn a_wrong_url_says_what_would_be_right() {
    let error = Folder::parse("ftp://host/x").expect_err("no such store");
    assert_eq!(
        error.to_string(),
        "`ftp://host/x` is not a place for checkpoints; expected file:///folder, s3://bucket/folder, gs:// or az://"
    );
}
