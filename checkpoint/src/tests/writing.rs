//! Parts are created once: against a store that fails on purpose, and against a worker that wakes up late.

use super::*;
use crate::chunk::{CHUNK_BYTES, chunks};
use crate::write::create;
use async_trait::async_trait;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A put does not reach the store.
    Unreached,
    /// A put is done, its answer does not come back.
    AnswerLost,
    /// A put finds an object that is gone a moment later.
    Ghost,
    /// A put is forbidden.
    Denied,
    /// A get does not reach the store.
    Unread,
}

/// A store in memory that suffers the faults of a list, one a request, in order; then none.
#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    planned: Mutex<VecDeque<Fault>>,
    fired: Mutex<Vec<Fault>>,
}

impl Faulty {
    fn new(planned: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        let planned = Mutex::new(planned.into_iter().collect());
        Arc::new(Self { inner: InMemory::new(), planned, fired: Mutex::default() })
    }

    fn location(self: &Arc<Self>) -> Folder {
        Folder::of(Arc::clone(self) as Arc<dyn ObjectStore>)
    }

    /// The next fault, if it is one of `these`.
    fn strike(&self, these: &[Fault]) -> Option<Fault> {
        let fault = self.planned.lock().expect("no panic").pop_front_if(|fault| these.contains(fault))?;
        self.fired.lock().expect("no panic").push(fault);
        Some(fault)
    }

    fn fired(&self) -> Vec<Fault> {
        self.fired.lock().expect("no panic").clone()
    }
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "connection reset".into() }
}

fn about(path: &Path) -> (String, Box<dyn std::error::Error + Send + Sync>) {
    (path.to_string(), "on purpose".into())
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        assert_eq!(opts.mode, PutMode::Create, "{at} is to be created");
        match self.strike(&[Fault::Unreached, Fault::AnswerLost, Fault::Ghost, Fault::Denied]) {
            Some(Fault::Unreached) => Err(broken()),
            Some(Fault::AnswerLost) => self.inner.put_opts(at, payload, opts).await.and(Err(broken())),
            Some(Fault::Ghost) => {
                let (path, source) = about(at);
                Err(Error::AlreadyExists { path, source })
            }
            Some(Fault::Denied) => {
                let (path, source) = about(at);
                Err(Error::PermissionDenied { path, source })
            }
            Some(Fault::Unread) | None => self.inner.put_opts(at, payload, opts).await,
        }
    }

    async fn put_multipart_opts(&self, at: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        panic!("{at}: a multipart upload writes over what lies there");
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        match self.strike(&[Fault::Unread]) {
            Some(_) => Err(broken()),
            None => self.inner.get_opts(at, options).await,
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

const KEY: PartKey = PartKey { step: Step(4), generation: Generation(1), rank: Rank(0), world: 1 };

fn long(fill: u8) -> Vec<HostTensor> {
    let bytes = 2 * CHUNK_BYTES as usize + 1000;
    // No two chunks alike.
    let content: Vec<u8> = (0..bytes).map(|i| (i / 4096) as u8 ^ (i / CHUNK_BYTES as usize) as u8 ^ fill).collect();
    vec![HostTensor { name: "long".into(), dtype: Dtype::U8, shape: vec![bytes], bytes: content.into() }]
}

async fn keys(run: &Folder) -> Vec<(String, u64)> {
    let listed: Vec<ObjectMeta> = run.store().list(None).try_collect().await.expect("listed");
    let mut keys: Vec<_> = listed.into_iter().map(|object| (object.location.to_string(), object.size)).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn a_long_part_is_several_objects_and_reads_as_one() {
    let run = Faulty::new([]).location();
    let entry = write_part(&run, KEY, long(0), PATIENCE).await.expect("written");
    let expected: Vec<(String, u64)> =
        chunks(&entry.path, entry.bytes).map(|(key, range)| (key, range.end - range.start)).collect();
    assert_eq!(expected.len(), 3);
    assert!(expected.iter().all(|(_, bytes)| *bytes <= CHUNK_BYTES));
    assert_eq!(keys(&run).await, expected);
    let manifest = manifest(4, 1, vec![entry.clone()]);
    commit(&run, &manifest).await;
    assert_eq!(load(&run, &manifest).await.expect("whole"), long(0));

    // Each chunk is one that a checkpoint cannot be without, and goes with it.
    let last = format!("{}.00002", entry.path);
    run.store().delete(&run.path(&last)).await.expect("deleted");
    let error = verify(&run, &manifest).await.expect_err("a hole");
    assert!(error.is_damage() && error.to_string().contains(&last), "{error}");
    write(&run, 5, 1, &state(1)).await;
    sweep(&run, 1).await.expect("swept");
    assert!(keys(&run).await.iter().all(|(key, _)| !key.starts_with(&entry.path)));
}

#[test]
fn chunks_cover_a_part_once() {
    for bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7] {
        let pieces: Vec<_> = chunks("p", bytes).collect();
        assert_eq!(pieces.len() == 1, bytes <= CHUNK_BYTES, "{bytes}");
        assert_eq!(pieces[0].0 == "p", bytes <= CHUNK_BYTES, "{bytes}");
        let mut end = 0;
        for (_, range) in pieces {
            assert_eq!(range.start, end);
            end = range.end;
        }
        assert_eq!(end, bytes);
    }
}

#[tokio::test]
async fn faults_of_the_store_are_outlasted() {
    use Fault::{AnswerLost, Ghost, Unreached, Unread};
    for (faults, fill) in [
        (vec![Unreached], 0u8),
        (vec![AnswerLost], 1),
        (vec![AnswerLost, Unread], 2),
        (vec![Ghost], 3),
        (vec![Unreached, AnswerLost, Unread], 4),
    ] {
        let store = Faulty::new(faults.clone());
        let run = store.location();
        let entry = write_part(&run, KEY, state(fill), PATIENCE).await.expect("written in the end");
        assert_eq!(store.fired(), faults);
        assert_eq!(load(&run, &manifest(4, 1, vec![entry])).await.expect("whole"), state(fill));
    }
}

#[tokio::test]
async fn faults_of_single_chunks_are_outlasted() {
    let faults = [Fault::AnswerLost, Fault::Unreached];
    let store = Faulty::new(faults);
    let run = store.location();
    let entry = write_part(&run, KEY, long(1), PATIENCE).await.expect("written in the end");
    assert_eq!(store.fired(), faults);
    assert_eq!(load(&run, &manifest(4, 1, vec![entry])).await.expect("whole"), long(1));
}

#[tokio::test]
async fn a_store_that_goes_on_failing_is_given_up() {
    let store = Faulty::new([Fault::Unreached; 99]);
    let run = store.location();
    let attempts = Attempts::lasting(Duration::from_millis(150));
    let error = create(&run, "k", Bytes::from_static(b"x"), attempts).await.expect_err("given up");
    assert_eq!(error.class(), Class::Retry);
    assert_eq!(error.to_string(), "cannot create k in the run's store");
    let tries = store.fired().len();
    assert!((2..20).contains(&tries), "{tries}");
    assert_eq!(keys(&run).await, []);
}

#[tokio::test]
async fn a_store_that_forbids_is_not_asked_again() {
    let store = Faulty::new([Fault::Denied, Fault::Denied]);
    let error = write_part(&store.location(), KEY, state(0), PATIENCE).await.expect_err("forbidden");
    assert_eq!(error.class(), Class::Fatal);
    assert_eq!(store.fired(), [Fault::Denied]);
}

#[tokio::test]
async fn who_wakes_up_late_changes_nothing() {
    for own in [state(1), long(1)] {
        let run = Faulty::new([]).location();
        let entry = write_part(&run, KEY, own.clone(), PATIENCE).await.expect("written");
        let manifest = manifest(4, 1, vec![entry.clone()]);
        commit(&run, &manifest).await;

        // The same bytes again: what an upload that was thought lost does.
        assert_eq!(write_part(&run, KEY, own.clone(), PATIENCE).await.expect("the same"), entry);
        // Other bytes, of the same length.
        let other = if own.len() == 1 { long(2) } else { state(2) };
        let error = write_part(&run, KEY, other, PATIENCE).await.expect_err("taken");
        assert_eq!(error.class(), Class::Fatal);
        assert!(!error.is_damage());
        assert!(matches!(&error, CheckpointError::Taken { key, .. } if key.starts_with(&entry.path)), "{error}");
        assert!(error.to_string().starts_with(&entry.path), "{error}");
        assert_eq!(load(&run, &manifest).await.expect("untouched"), own);
    }
}
