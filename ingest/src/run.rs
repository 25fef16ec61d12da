//! An ingest: a thread reads, threads make rows of batches, rows are written in the order of the source.
//!
//! In memory are at most [`AHEAD`] batches that were read, one batch for each core and one more in work, and two parts: the one
//! that is written and the one before it, on its way to the store
//! ([`WriterOptions::bytes_per_file`](pixfleet_shards::WriterOptions) each, twice that while one is finished). A batch is
//! [`BATCH_RECORDS`] records or [`BATCH_BYTES`], and of records whose pictures are elsewhere [`BATCH_PICTURES`].

use crate::draft::Outcome;
use crate::error::IngestError;
use crate::formats::Reading;
use crate::job::{Ingest, Opened};
use crate::ledger::{IngestCounts, Ledger, Left, Stand};
use crate::pictures::{Pictures, PicturesFrom};
use crate::records::{Body, Found, Position};
use crate::reject::{Reject, RejectLimit};
use crate::work::Work;
use futures::{Stream, StreamExt, TryStreamExt};
use pixfleet_shards::{Location, ShardWriter, Written, index};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// Records of a batch at most.
const BATCH_RECORDS: usize = 64;
/// Bytes of a batch at which no further record is added.
const BATCH_BYTES: usize = 2 << 20;
/// Records of a batch at most whose pictures are elsewhere.
const BATCH_PICTURES: usize = 8;
/// Batches that are read ahead.
const AHEAD: usize = 2;
/// Batches that are in work while pictures are fetched by their addresses, of many hosts at a time.
const FETCHED: usize = 32;
/// Rejects that are kept for whoever asked; all are in the ledger.
pub const SAMPLES_KEPT: usize = 20;

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IngestProgress {
    /// Records that were looked at.
    pub records: u64,
    /// Rows that were made.
    pub rows: u64,
    /// Records that were refused.
    pub refused: u64,
    /// Bytes that were read, of records and pictures.
    pub read: u64,
    /// Bytes of the source, if known.
    pub total: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ingested {
    /// What was counted, by this process and those before it.
    pub counts: IngestCounts,
    /// Rows that earlier processes had written.
    pub rows_before: u64,
    /// Whether all was there before.
    pub was_done: bool,
    /// The first rejects of this process.
    pub samples: Vec<Reject>,
    /// Where all rejects are named; `None` for a dry run.
    pub rejects_at: Option<String>,
    /// Digest of the index, if it was written.
    pub digest: Option<String>,
    /// Bytes that this process read.
    pub read: u64,
}

/// Ingests into `out` and writes the index, unless told not to. An ingest that was interrupted goes on after its last part.
///
/// # Errors
/// [`IngestError`]; records that cannot become rows are none.
pub async fn ingest(
    job: &Ingest,
    out: &Location,
    with_index: bool,
    progress: &mut (dyn FnMut(IngestProgress) + Send),
) -> Result<Ingested, IngestError> {
    let opened = Arc::new(job.open().await?);
    let mut ledger = match Ledger::open(out, &job.split, &job.digest(&opened), job.restart).await? {
        Left::Some(ledger) => ledger,
        Left::Done(counts) => {
            let rejects_at = Some(out.url_of(&format!("ingest/{}", job.split)));
            let rows_before = counts.rows;
            return Ok(Ingested { counts, rows_before, was_done: true, rejects_at, ..Ingested::default() });
        }
    };
    let before = ledger.stand.counts.clone();
    let written = Written { files: before.files, rows: before.rows, regions: before.regions, bytes: before.bytes };
    let mut writer = ShardWriter::new(out.clone(), job.split.as_str(), job.writer).after(written).overlapped();
    let mut done = Ingested { rows_before: before.rows, rejects_at: Some(ledger.url()), ..Ingested::default() };
    let mut rows = before.rows;
    let batches = work(job, &opened, ledger.stand.position)?;
    let mut batches = std::pin::pin!(batches);
    let mut on_its_way = None;
    'all: while let Some(batch) = batches.try_next().await? {
        for (position, Outcome { row, rejects, records, passed_over }) in batch {
            if job.limit.is_some_and(|limit| rows >= limit) {
                break 'all;
            }
            ledger.stand.counts.records += records;
            ledger.stand.counts.passed_over += passed_over;
            for reject in rejects {
                ledger.refuse(&reject).await?;
                keep(&mut done.samples, reject);
            }
            if let Some(row) = row {
                let files = writer.written().files;
                writer.push(row).await?;
                rows += 1;
                if writer.written().files > files {
                    // The part before it has landed.
                    record(&ledger, &mut on_its_way).await?;
                    on_its_way = Some(ledger.part(position, writer.written()).await?);
                    hold(job.max_rejects, &ledger.stand.counts, &ledger.url())?;
                }
            }
        }
        if on_its_way.is_some() && !writer.is_uploading() {
            writer.landed().await?;
            record(&ledger, &mut on_its_way).await?;
        }
        progress(at(&ledger.stand.counts, rows, &opened));
    }
    done.read = opened.input.read.load(Ordering::Relaxed);
    let written = writer.finish().await?;
    record(&ledger, &mut on_its_way).await?;
    ledger.settle(written).await?;
    hold(job.max_rejects, &ledger.stand.counts, &ledger.url())?;
    if with_index && written.files > 0 {
        done.digest = Some(index::build(out, &mut |_, _| {}).await?.digest);
    }
    ledger.done().await?;
    done.counts = ledger.stand.counts;
    Ok(done)
}

/// Records where it stood after a part that has landed, if there is one.
async fn record(ledger: &Ledger, on_its_way: &mut Option<Stand>) -> Result<(), IngestError> {
    match on_its_way.take() {
        Some(stand) => ledger.record(&stand).await,
        None => Ok(()),
    }
}

/// Reads, decodes and counts, and writes nothing. `each` gets every reject.
///
/// # Errors
/// As [`ingest`].
pub async fn dry_run(
    job: &Ingest,
    each: &mut (dyn FnMut(&Reject) + Send),
    progress: &mut (dyn FnMut(IngestProgress) + Send),
) -> Result<Ingested, IngestError> {
    let opened = Arc::new(job.open().await?);
    let mut done = Ingested::default();
    let batches = work(job, &opened, Position::default())?;
    let mut batches = std::pin::pin!(batches);
    while let Some(batch) = batches.try_next().await? {
        for (_, Outcome { row, rejects, records, passed_over }) in batch {
            if job.limit.is_some_and(|limit| done.counts.rows >= limit) {
                break;
            }
            done.counts.records += records;
            done.counts.passed_over += passed_over;
            for reject in rejects {
                each(&reject);
                *done.counts.rejects.entry(reject.kind).or_default() += 1;
                keep(&mut done.samples, reject);
            }
            if let Some(row) = row {
                done.counts.rows += 1;
                done.counts.regions += row.regions.len() as u64;
            }
        }
        progress(at(&done.counts, done.counts.rows, &opened));
    }
    done.read = opened.input.read.load(Ordering::Relaxed);
    hold(job.max_rejects, &done.counts, "the lines above")?;
    Ok(done)
}

pub(crate) fn keep(samples: &mut Vec<Reject>, reject: Reject) {
    if samples.len() < SAMPLES_KEPT {
        samples.push(reject);
    }
}

fn at(counts: &IngestCounts, rows: u64, opened: &Opened) -> IngestProgress {
    let (read, total) = (opened.input.read.load(Ordering::Relaxed), opened.input.bytes());
    IngestProgress { records: counts.records, rows, refused: counts.refused(), read, total }
}

pub(crate) fn hold(limit: Option<RejectLimit>, counts: &IngestCounts, url: &str) -> Result<(), IngestError> {
    let (rejects, records) = (counts.refused(), counts.records);
    match limit {
        Some(limit) if limit.is_over(rejects, records) => {
            Err(IngestError::TooManyRejects { rejects, records, limit, url: url.into() })
        }
        Some(_) | None => Ok(()),
    }
}

type Batch = Vec<(Position, Outcome)>;

/// What became of the records from `at` on, batch by batch in their order.
fn work(
    job: &Ingest,
    opened: &Arc<Opened>,
    at: Position,
) -> Result<impl Stream<Item = Result<Batch, IngestError>> + use<>, IngestError> {
    let pictures =
        Pictures::open(&job.pictures, job.fetch.as_ref(), &opened.input.folder, Arc::clone(&opened.input.read))?;
    let reading = Reading { map: job.map.clone(), boxes: job.boxes };
    let work = Arc::new(Work { format: job.format, reading, pictures, check: job.check });
    let (sender, receiver) = mpsc::channel(AHEAD);
    let most =
        if job.pictures == PicturesFrom::Without && job.fetch.is_none() { BATCH_RECORDS } else { BATCH_PICTURES };
    let opened = Arc::clone(opened);
    let reader = tokio::task::spawn_blocking(move || {
        if let Err(error) = read(&opened, at, most, &sender) {
            // Whoever listens has ended if this cannot be sent.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let batches = futures::stream::unfold((receiver, Some(reader)), |(mut receiver, mut reader)| async move {
        if let Some(batch) = receiver.recv().await {
            return Some((batch, (receiver, reader)));
        }
        // The channel closed: a reader that panicked did not come to the end.
        match reader.take()?.await {
            Ok(()) => None,
            Err(error) => Some((Err(error.into()), (receiver, None))),
        }
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let in_work = if job.fetch.is_some() { FETCHED.max(cores + 1) } else { cores + 1 };
    let worked = batches.map(move |batch: Result<Vec<Found>, IngestError>| {
        let work = Arc::clone(&work);
        async move { work.batch(batch?).await }
    });
    Ok(worked.buffered(in_work))
}

fn read(
    opened: &Opened,
    at: Position,
    most: usize,
    sender: &mpsc::Sender<Result<Vec<Found>, IngestError>>,
) -> Result<(), IngestError> {
    let mut records = opened.records(at)?;
    let (mut batch, mut bytes, mut pictures) = (Vec::new(), 0, 0);
    while let Some(found) = records.next()? {
        bytes += found.body.weight();
        pictures += usize::from(!matches!(found.body, Body::Group(_) | Body::Refused(_)));
        batch.push(found);
        if batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES || pictures >= most {
            if sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                return Ok(());
            }
            (bytes, pictures) = (0, 0);
        }
    }
    if !batch.is_empty() {
        let _ = sender.blocking_send(Ok(batch));
    }
    Ok(())
}
