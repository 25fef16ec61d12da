//! Drives an encoder over the captions of a dataset and writes their vectors beside the rows, in any number of processes.
//!
//! A data file is a unit of work that one process claims at a time ([`crate::claims`]); what is there and current is
//! skipped, so whatever was killed or stopped goes on where it was, but for the units in hand. A text is encoded once:
//! one that only one file holds, with that file; one that several files hold, before all files, in pieces that are units
//! too (`embed/shared.rs`). Which is which every process finds by reading all captions first. A text that is in any
//! vectors file of the same key, of other splits or of another version of the data, is not encoded again.
//!
//! This holds among processes that embed the same splits of the same index, for as long as 1 GiB holds the vectors that
//! are taken over from elsewhere.

mod shared;
mod texts;
mod vectors;
mod work;

use crate::access::Access;
use crate::claims::{Claims, LEASE, whoami};
use crate::error::ShardError;
use crate::store::Location;
use crate::text_vectors;
use pixfleet_cluster::index::{DatasetIndex, FileIndex};
use shared::Shared;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use texts::{Scan, Source};
use vectors::Vectors;
use work::{Unit, Work};

/// Vectors from elsewhere that are kept in memory, in bytes.
const KNOWN_BYTES: usize = 1 << 30;

/// What to embed.
#[derive(Debug, Clone, Copy)]
pub struct EmbedJob<'a> {
    /// The dataset.
    pub location: &'a Location,
    /// Its index.
    pub index: &'a DatasetIndex,
    /// Which splits.
    pub splits: &'a [String],
    /// Key of the vectors ([`text_vectors::vector_key`]).
    pub key: &'a str,
    /// How long another process may be silent before its unit is taken over; the same for all that share the job.
    pub lease: Duration,
    /// Set by whoever wants it to stop: units in hand are given back.
    pub stop: &'a AtomicBool,
}

impl<'a> EmbedJob<'a> {
    /// With the usual lease, and nobody who stops it.
    #[must_use]
    pub fn new(location: &'a Location, index: &'a DatasetIndex, splits: &'a [String], key: &'a str) -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self { location, index, splits, key, lease: LEASE, stop: &NEVER }
    }
}

/// How far it is, and at the end what was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbedProgress {
    /// Rows whose vectors are on the store, whoever made them.
    pub rows: u64,
    /// Rows of the splits.
    pub rows_total: u64,
    /// Distinct texts whose vectors are on the store, whoever made them.
    pub texts: u64,
    /// Distinct texts of the splits; not counted where nothing was left to do.
    pub texts_total: u64,
    /// Texts that this process encoded.
    pub encoded: u64,
    /// Texts in the files of this process, as often as they stand there, whose vector was known.
    pub cached: u64,
    /// Files whose vectors were already there.
    pub files_skipped: u32,
    /// Units that others have while there is nothing else to do here; 0 while there is.
    pub waiting_for: u32,
    /// Units that this process did, from claim to done.
    pub units: u32,
    /// Units that this process took over from one that was gone.
    pub taken_over: u32,
}

/// Why embedding stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError<E: std::error::Error + 'static> {
    /// The dataset or its store.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The encoder.
    #[error("the encoder failed")]
    Encode(#[source] E),
    /// [`EmbedJob::stop`] was set. What is on the store stays; the rest is anybody's.
    #[error("stopped; what was published stays, and whoever runs it again goes on from there")]
    Stopped,
}

/// Encodes every text of the splits that has no vector yet, together with whoever else does the same. `encode` gets texts
/// and returns one vector for each, all of one length; it may block. `progress` is called after every call of it and
/// after every unit. Ends when all files have vectors.
///
/// # Errors
/// Those of the store, of bad rows, of `encode`; [`ShardError::Encoder`] where it returns something else;
/// [`EmbedError::Stopped`].
pub async fn embed_splits<E: std::error::Error + 'static>(
    job: EmbedJob<'_>,
    encode: &mut (dyn FnMut(&[String]) -> Result<Vec<Vec<f32>>, E> + Send),
    progress: &mut (dyn FnMut(EmbedProgress) + Send),
) -> Result<EmbedProgress, EmbedError<E>> {
    let access = Access::new(job.location.clone());
    let source = Source::open(&job)?;
    let mut done = EmbedProgress::default();
    let mut open = Vec::new();
    for (i, file) in source.files.iter().enumerate() {
        done.rows_total += file.rows();
        if is_current(&access, job.key, &file.index).await {
            done.files_skipped += 1;
            done.rows += file.rows();
        } else {
            open.push(i);
        }
    }
    progress(done);
    if open.is_empty() {
        return Ok(done);
    }
    let scan = Scan::of(&source).await?;
    let pieces = shared::pieces(&scan);
    let there: BTreeSet<String> = vectors::files(&access, job.key).await?.into_iter().map(|f| f.path).collect();
    let missing: Vec<usize> = (0..pieces.len()).filter(|&i| !there.contains(&pieces[i].path(job.key))).collect();
    let of_open: BTreeSet<usize> = open.iter().copied().collect();
    done.texts_total = scan.own.iter().sum::<u64>() + scan.shared.len() as u64;
    done.texts = (0..pieces.len()).filter(|i| !missing.contains(i)).map(|i| pieces[i].texts.len() as u64).sum();
    done.texts += (0..source.files.len()).filter(|i| !of_open.contains(i)).map(|i| scan.own[i]).sum::<u64>();
    progress(done);

    let current = source.files.iter().enumerate().filter(|(i, _)| !of_open.contains(i) && missing.is_empty());
    let mut skip: BTreeSet<String> = pieces.iter().map(|p| p.path(job.key)).collect();
    skip.extend(current.map(|(_, file)| text_vectors::vectors_path(job.key, &file.index.path)));
    let mut work = Work {
        job,
        access: &access,
        source: &source,
        scan: &scan,
        pieces: &pieces,
        claims: Claims::new(job.location, &format!("embed-{}", job.key), &whoami(), job.lease),
        known: known(&access, job.key, &scan, &skip).await?,
        shared: Shared::new(&access, job.key, &pieces),
        encode,
        progress,
        done,
    };
    work.all(missing.into_iter().map(Unit::Piece).collect()).await?;
    work.all(open.into_iter().map(Unit::File).collect()).await?;
    Ok(work.done)
}

/// The vectors that files other than those of `skip` have of the dataset's texts: other splits', other versions'.
async fn known(access: &Access, key: &str, scan: &Scan, skip: &BTreeSet<String>) -> Result<Vectors, ShardError> {
    let mut known = Vectors::default();
    for file in vectors::files(access, key).await? {
        if !skip.contains(&file.path) {
            known.load(access, &file, KNOWN_BYTES, |hash| scan.holds(hash)).await;
        }
    }
    Ok(known)
}

async fn is_current(access: &Access, key: &str, data: &FileIndex) -> bool {
    let there = text_vectors::find(access, key, data).await.ok().flatten();
    there.is_some_and(|there| text_vectors::is_current(&there, data))
}
