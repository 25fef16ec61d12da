//! The files of a source: local, on an object store, or standard input, read as plain streams by the thread of the reader.

use crate::error::IngestError;
use crate::records::json::READ_AHEAD;
use bytes::{Buf, Bytes};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt};
use pixfleet_shards::{Location, ShardError};
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Handle;

/// What is typed for standard input.
pub const STDIN: &str = "-";

/// Files of a source, in the order of their names.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) url: String,
    /// The folder that it is, or is in.
    pub(crate) folder: String,
    store: Option<Arc<dyn ObjectStore>>,
    pub(crate) files: Vec<InputFile>,
    /// Bytes that were read so far, of all files.
    pub(crate) read: Arc<AtomicU64>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    path: Path,
    /// Its name within the source.
    pub(crate) name: Arc<str>,
    pub(crate) size: u64,
    version: Option<String>,
}

impl Input {
    /// One file, or all files of a folder whose names end with one of `endings`.
    pub(crate) async fn open(source: &str, endings: &[&str]) -> Result<Self, IngestError> {
        if source == STDIN {
            let file = InputFile { path: Path::default(), name: "stdin".into(), size: 0, version: None };
            let (url, folder) = (STDIN.into(), ".".into());
            return Ok(Self { url, folder, store: None, files: vec![file], read: Arc::default() });
        }
        let location = Location::parse(source)?;
        let store = location.store();
        let root = location.path("");
        let mut files = Vec::new();
        let url = location.url().to_owned();
        let mut folder = url.clone();
        match store.head(&root).await {
            Ok(meta) => {
                let name = root.filename().unwrap_or_default().into();
                files.push(InputFile { path: root, name, size: meta.size, version: meta.e_tag });
                folder.truncate(url.rfind('/').unwrap_or(url.len()));
            }
            Err(object_store::Error::NotFound { .. } | object_store::Error::Generic { .. }) => {
                let found: Vec<_> = store.list(Some(&root)).try_collect().await.map_err(failed(source))?;
                for meta in found {
                    let name = location.relative(&meta.location).unwrap_or_default();
                    if endings.iter().any(|ending| name.to_lowercase().ends_with(ending)) {
                        let (path, name) = (meta.location, name.into());
                        files.push(InputFile { path, name, size: meta.size, version: meta.e_tag });
                    }
                }
                files.sort_by(|a, b| a.name.cmp(&b.name));
            }
            Err(error) => return Err(failed(source)(error).into()),
        }
        let input = Self { url, folder, store: Some(store), files, read: Arc::default() };
        if input.files.is_empty() {
            let expected = format!("no such file, and no folder with files that end with {}", endings.join(", "));
            return Err(IngestError::NoFiles { source_url: input.url, expected });
        }
        Ok(input)
    }

    /// Counts what is read of it with what is read of `other`.
    pub(crate) fn counted_by(self, other: &Self) -> Self {
        Self { read: Arc::clone(&other.read), ..self }
    }

    /// Without the files whose names end with `ending`, where there are others.
    pub(crate) fn without(mut self, ending: &str) -> Self {
        let is_other = |file: &InputFile| !file.name.to_lowercase().ends_with(ending);
        if self.files.iter().any(is_other) {
            self.files.retain(is_other);
        }
        self
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// What tells this source from another or a changed one.
    pub(crate) fn digest(&self, hash: &mut blake3::Hasher) {
        hash.update(self.url.as_bytes());
        for file in &self.files {
            let version = file.version.as_deref().unwrap_or_default();
            hash.update(format!("\n{} {} {version}", file.name, file.size).as_bytes());
        }
    }

    /// Reads a file from its begin; for threads that may block, never for the runtime's own.
    pub(crate) fn read(&self, file: &InputFile) -> Result<BufReader<Counted>, IngestError> {
        let handle = Handle::current();
        let inner: Box<dyn Read + Send> = match &self.store {
            None => Box::new(std::io::stdin()),
            Some(store) => {
                let got = handle.block_on(store.get(&file.path)).map_err(failed(&file.name))?;
                match got.payload {
                    GetResultPayload::File(file, _) => Box::new(file),
                    GetResultPayload::Stream(stream) => Box::new(StreamRead { handle, stream, rest: Bytes::new() }),
                }
            }
        };
        Ok(BufReader::with_capacity(READ_AHEAD, Counted { inner, read: Arc::clone(&self.read) }))
    }

    /// All bytes of `range` of a file; for threads that may block.
    pub(crate) fn range(&self, file: &InputFile, range: std::ops::Range<u64>) -> Result<Bytes, IngestError> {
        let Some(store) = &self.store else {
            return Err(IngestError::Options("this format is read by ranges: give a file or a URL, not `-`".into()));
        };
        self.read.fetch_add(range.end - range.start, Ordering::Relaxed);
        Ok(Handle::current().block_on(store.get_range(&file.path, range)).map_err(failed(&file.name))?)
    }

    /// All bytes of a file; for threads that may block.
    pub(crate) fn whole(&self, file: &InputFile) -> Result<Bytes, IngestError> {
        self.range(file, 0..file.size)
    }
}

fn failed(name: &str) -> impl Fn(object_store::Error) -> ShardError + use<'_> {
    move |error| ShardError::of_store(name, "read", error)
}

/// Counts what is read.
pub(crate) struct Counted {
    inner: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(into)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A store's stream as a reader.
struct StreamRead {
    handle: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    rest: Bytes,
}

impl Read for StreamRead {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.handle.block_on(self.stream.next()) {
                Some(Ok(bytes)) => self.rest = bytes,
                Some(Err(error)) => return Err(std::io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let n = into.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut into[..n]);
        Ok(n)
    }
}
