//! LLM2CLIP's caption vectors -> vectors beside rows that are there, as `pixfleet shards embed` writes them.
//!
//! The rows' ids and captions are read first; then the tar files once, in their order, each vector checked, joined to its row
//! by key and put aside on local disk as f16; then the vectors file of each data file is written, one after the other. In
//! memory are some 60 bytes a row and the vectors of one data file. Progress is kept as that of other ingests
//! ([`crate::ledger`]), in `ingest/vectors/<key>/<split>/`: whoever goes on after part 7 reads the tar files again and writes
//! what an undisturbed ingest would.

mod beside;
mod join;
mod rows;
mod shelf;
mod source;
#[cfg(test)]
mod tests;

use crate::error::IngestError;
use crate::input::{Input, STDIN};
use crate::ledger::{IngestCounts, Ledger, Left};
use crate::records::Position;
use crate::reject::{Reject, RejectLimit};
use crate::run::{IngestProgress, Ingested, hold, keep};
use beside::{Begin, Made};
use bytes::Bytes;
use join::Join;
use pixfleet_shards::index::{self, FileIndex};
use pixfleet_shards::text_vectors::vectors_path;
use pixfleet_shards::{Location, RowGroupReader, Written};
use rows::KeyedRows;
use shelf::Shelf;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// What the names of the tar files end with.
pub(crate) const ENDING: &str = "_text_embeddings.tar";
/// Key of the vectors unless told otherwise: that of `shards embed --encoder llm2vec --precision bf16 --name llm2clip`, which
/// reads as LLM2CLIP's extraction does.
pub const LLM2CLIP_KEY: &str = "llm2clip_both_mean_bf16-llama3-512";
/// Tellings of the joining thread that may wait.
const TOLD_AHEAD: usize = 4;

/// Which vectors are joined to which rows.
#[derive(Debug, Clone)]
pub struct VectorIngest {
    /// A tar file, or a folder with files whose names end with `_text_embeddings.tar`, by path or URL.
    pub source: String,
    /// The split whose rows get vectors.
    pub split: String,
    /// Key of the vectors, for `data.vectors` of a run.
    pub key: String,
    /// Rejects that end it; `None`: any number is told, and none ends it.
    pub max_rejects: Option<RejectLimit>,
    /// Whether an earlier ingest of the same key and split is forgotten, and its vectors with it.
    pub restart: bool,
}

/// The opened source and dataset.
struct Opened {
    input: Input,
    dataset: Location,
    digest: String,
    reader: RowGroupReader,
}

impl VectorIngest {
    async fn open(&self, dataset: &Location) -> Result<Opened, IngestError> {
        if self.source == STDIN {
            let text = "llm2clip cannot be read from standard input: give a file, a folder or a URL".to_owned();
            return Err(IngestError::Options(text));
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.key.is_empty() || self.key.starts_with('.') || !self.key.chars().all(is_plain) {
            let text = format!("`{}` is no key of vectors: letters, digits, `.`, `_` and `-` only", self.key);
            return Err(IngestError::Options(text));
        }
        let input = Input::open(&self.source, &[ENDING]).await?;
        let index = index::open(dataset).await?;
        let reader = RowGroupReader::new(dataset.clone(), &index, &self.split, None)?.with_cache_bytes(0);
        let mut hash = blake3::Hasher::new();
        input.digest(&mut hash);
        hash.update(format!("\n{} {} {}", index.digest, self.split, self.key).as_bytes());
        let digest = hash.finalize().to_hex()[..32].to_owned();
        Ok(Opened { input, dataset: dataset.clone(), digest, reader })
    }

    fn path(&self, data: &FileIndex) -> String {
        vectors_path(&self.key, &data.path)
    }
}

/// Joins vectors to the rows of `dataset` and writes them beside it. One that was interrupted goes on after the last file of
/// vectors that is recorded. Of the counts, `records` are members of the source and rows that none spoke of, `rows` those
/// with a vector.
///
/// # Errors
/// [`IngestError`]; vectors and rows that cannot be joined are none.
pub async fn ingest_vectors(
    job: &VectorIngest,
    dataset: &Location,
    progress: &mut (dyn FnMut(IngestProgress) + Send),
) -> Result<Ingested, IngestError> {
    let opened = job.open(dataset).await?;
    let name = format!("vectors/{}/{}", job.key, job.split);
    let ledger = match Ledger::open(dataset, &name, &opened.digest, job.restart).await? {
        Left::Some(ledger) => ledger,
        Left::Done(counts) => {
            let rejects_at = Some(dataset.url_of(&format!("ingest/{name}")));
            let rows_before = counts.rows;
            return Ok(Ingested { counts, rows_before, was_done: true, rejects_at, ..Ingested::default() });
        }
    };
    let files = &opened.reader.split().files;
    if job.restart {
        for file in files {
            dataset.delete(&job.path(file)).await?;
        }
    }
    if let Some(later) = files.get(ledger.stand.counts.files as usize + 1)
        && dataset.exists(&job.path(later)).await?
    {
        // Of an ingest that was killed, the file after the last recorded one may be there, and none behind it.
        return Err(IngestError::OtherVectors { url: dataset.url_of(&job.path(later)) });
    }
    let done =
        Ingested { rows_before: ledger.stand.counts.rows, rejects_at: Some(ledger.url()), ..Ingested::default() };
    let mut run = Run { job, opened: &opened, ledger: Some(ledger), each: &mut |_| {}, progress, done };
    run.all().await?;
    Ok(run.done)
}

/// Reads, joins and counts, and writes nothing. `each` gets every reject.
///
/// # Errors
/// As [`ingest_vectors`].
pub async fn dry_run_vectors(
    job: &VectorIngest,
    dataset: &Location,
    each: &mut (dyn FnMut(&Reject) + Send),
    progress: &mut (dyn FnMut(IngestProgress) + Send),
) -> Result<Ingested, IngestError> {
    let opened = job.open(dataset).await?;
    let mut run = Run { job, opened: &opened, ledger: None, each, progress, done: Ingested::default() };
    run.all().await?;
    Ok(run.done)
}

/// An ingest under way.
struct Run<'a> {
    job: &'a VectorIngest,
    opened: &'a Opened,
    /// `None`: nothing is written.
    ledger: Option<Ledger>,
    each: &'a mut (dyn FnMut(&Reject) + Send),
    progress: &'a mut (dyn FnMut(IngestProgress) + Send),
    done: Ingested,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), IngestError> {
        let join = self.join().await?;
        let written = self.written();
        if let Some(ledger) = &mut self.ledger {
            ledger.settle(written).await?;
        }
        self.hold()?;
        let files = &self.opened.reader.split().files;
        let recorded = self.counts().files as usize;
        let mut begin = Begin::default();
        for (i, file) in files.iter().enumerate() {
            if i >= recorded {
                self.file(file, begin, &join).await?;
            }
            begin = begin.after(file);
        }
        if let Some(ledger) = &self.ledger {
            ledger.done().await?;
        }
        self.done.counts = self.counts().clone();
        self.done.read = self.opened.input.read.load(Ordering::Relaxed);
        Ok(())
    }

    /// The source, joined to the rows. What it says of itself is counted once: a process that goes on finds it counted.
    async fn join(&mut self) -> Result<Join, IngestError> {
        let is_counted = self.counts().files > 0;
        let rows = KeyedRows::read(&self.opened.reader).await?;
        let (input, is_written) = (self.opened.input.clone(), self.ledger.is_some());
        let (sender, mut receiver) = mpsc::channel(TOLD_AHEAD);
        let joined = tokio::task::spawn_blocking(move || {
            let width = source::width(&input)?;
            let shelf = if is_written { Some(Shelf::new(width)?) } else { None };
            input.read.store(0, Ordering::Relaxed);
            Join { rows, shelf, width }.all(&input, &sender)
        });
        while let Some(told) = receiver.recv().await {
            if !is_counted {
                let counts = self.counts();
                counts.records += told.records;
                counts.passed_over += told.passed_over;
                for reject in told.rejects {
                    self.refuse(reject).await?;
                }
            }
            self.tell();
        }
        joined.await?
    }

    /// Writes and records the vectors of one data file.
    async fn file(&mut self, file: &FileIndex, begin: Begin, join: &Join) -> Result<(), IngestError> {
        let made = Made::of(file, begin, &self.job.key, &self.opened.reader, join).await?;
        let counts = self.counts();
        counts.records += made.rejects.len() as u64;
        counts.rows += made.rows;
        for reject in made.rejects {
            self.refuse(reject).await?;
        }
        if let Some((path, bytes)) = made.file {
            let mut written = self.written();
            (written.files, written.bytes) = (written.files + 1, written.bytes + bytes.len() as u64);
            publish(&self.opened.dataset, &path, bytes).await?;
            if let Some(ledger) = &mut self.ledger {
                let stand = ledger.part(Position { file: written.files, record: 0 }, written).await?;
                ledger.record(&stand).await?;
            }
        }
        self.tell();
        self.hold()
    }

    async fn refuse(&mut self, reject: Reject) -> Result<(), IngestError> {
        (self.each)(&reject);
        match &mut self.ledger {
            Some(ledger) => ledger.refuse(&reject).await?,
            None => *self.done.counts.rejects.entry(reject.kind).or_default() += 1,
        }
        keep(&mut self.done.samples, reject);
        Ok(())
    }

    fn counts(&mut self) -> &mut IngestCounts {
        match &mut self.ledger {
            Some(ledger) => &mut ledger.stand.counts,
            None => &mut self.done.counts,
        }
    }

    fn written(&mut self) -> Written {
        let counts = self.counts();
        Written { files: counts.files, rows: counts.rows, regions: counts.regions, bytes: counts.bytes }
    }

    fn hold(&mut self) -> Result<(), IngestError> {
        let url = self.ledger.as_ref().map_or_else(|| "the lines above".to_owned(), Ledger::url);
        hold(self.job.max_rejects, self.counts(), &url)
    }

    fn tell(&mut self) {
        let input = &self.opened.input;
        let (read, total) = (input.read.load(Ordering::Relaxed), input.bytes());
        let counts = self.counts();
        let (records, rows, refused) = (counts.records, counts.rows, counts.refused());
        (self.progress)(IngestProgress { records, rows, refused, read, total });
    }
}

/// Creates a vectors file. One that is there already is what a killed process wrote last, or another's.
async fn publish(dataset: &Location, path: &str, bytes: Bytes) -> Result<(), IngestError> {
    if dataset.create(path, bytes.clone()).await? || dataset.get(path).await? == bytes {
        return Ok(());
    }
    Err(IngestError::OtherVectors { url: dataset.url_of(path) })
}
