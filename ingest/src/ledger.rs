//! How far an ingest is, in objects beside its output, so that one that was killed goes on:
//!
//! | object | holds |
//! |---|---|
//! | `ingest/<split>/part-00007.json` | created once part 7 is on the store: where the source was then, and what was counted |
//! | `ingest/<split>/rejects-00000.jsonl` | a line for each reject, in the order of the source |
//! | `ingest/<split>/done.json` | created at the end: all counts |
//!
//! Parts are a function of source and options: whoever goes on after part 7 writes the bytes that an undisturbed run would.

use crate::error::IngestError;
use crate::records::Position;
use crate::reject::{Reject, RejectCounts};
use futures::TryStreamExt;
use object_store::ObjectStore;
use pixfleet_shards::{Location, ShardError, Written};
use serde::{Deserialize, Serialize};

/// Bytes of rejects that are held before they are written.
const REJECTS_HELD: usize = 4 << 20;

/// What was counted so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestCounts {
    /// Records of the source that were looked at, images and their parts alike.
    pub records: u64,
    /// Those that were refused, by kind.
    pub rejects: RejectCounts,
    /// Those that are not asked for (crowds, images that nobody refers to).
    pub passed_over: u64,
    /// Rows that were written.
    pub rows: u64,
    /// Their regions.
    pub regions: u64,
    /// Files.
    pub files: u32,
    /// Bytes of the files.
    pub bytes: u64,
}

impl IngestCounts {
    /// All that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.rejects.values().sum()
    }

    pub(crate) fn wrote(&mut self, written: Written) {
        let Written { files, rows, regions, bytes } = written;
        (self.files, self.rows, self.regions, self.bytes) = (files, rows, regions, bytes);
    }
}

/// An object of progress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stand {
    /// What source and options this is of.
    pub(crate) of: String,
    pub(crate) position: Position,
    pub(crate) counts: IngestCounts,
    pub(crate) reject_files: u32,
}

/// Where an ingest is kept.
pub(crate) struct Ledger {
    out: Location,
    split: String,
    /// The last that was recorded, with what was counted since.
    pub(crate) stand: Stand,
    lines: Vec<u8>,
}

/// What an earlier process left.
pub(crate) enum Left {
    /// Nothing, or some parts.
    Some(Ledger),
    /// All of it.
    Done(IngestCounts),
}

impl Ledger {
    /// What is there of the ingest `of`.
    pub(crate) async fn open(out: &Location, split: &str, of: &str, restart: bool) -> Result<Left, IngestError> {
        let folder = format!("ingest/{split}");
        let failed = |source| ShardError::of_store(&out.url_of(&folder), "list", source);
        let store = out.store();
        let found = store.list(Some(&out.path(&folder))).try_collect::<Vec<_>>().await.map_err(failed)?;
        let mut names: Vec<String> = found.iter().filter_map(|m| out.relative(&m.location)).collect();
        names.sort();
        if restart {
            for name in names.drain(..) {
                out.delete(&name).await?;
            }
        }
        let done = format!("{folder}/done.json");
        let newest = names.iter().rfind(|n| n.starts_with(&format!("{folder}/part-")));
        let last = names.iter().find(|n| **n == done).or(newest);
        let stand = match last {
            None => Stand { of: of.into(), ..Stand::default() },
            Some(name) => {
                let stand: Stand = serde_json::from_slice(&out.get(name).await?)
                    .map_err(|source| IngestError::Progress { url: out.url_of(name), source })?;
                if stand.of != of {
                    return Err(IngestError::OtherIngest { url: out.url_of(name) });
                }
                stand
            }
        };
        if last == Some(&done) {
            return Ok(Left::Done(stand.counts));
        }
        Ok(Left::Some(Self { out: out.clone(), split: split.into(), stand, lines: Vec::new() }))
    }

    /// The folder of what was refused.
    pub(crate) fn url(&self) -> String {
        self.out.url_of(&format!("ingest/{}", self.split))
    }

    /// Names and counts a reject.
    pub(crate) async fn refuse(&mut self, reject: &Reject) -> Result<(), IngestError> {
        *self.stand.counts.rejects.entry(reject.kind).or_default() += 1;
        serde_json::to_writer(&mut self.lines, reject).expect("texts are JSON");
        self.lines.push(b'\n');
        if self.lines.len() >= REJECTS_HELD { self.put_lines().await } else { Ok(()) }
    }

    async fn put_lines(&mut self) -> Result<(), IngestError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let name = format!("ingest/{}/rejects-{:05}.jsonl", self.split, self.stand.reject_files);
        self.out.put(&name, std::mem::take(&mut self.lines)).await?;
        self.stand.reject_files += 1;
        Ok(())
    }

    /// Where it stands after a part that is complete: to be recorded once the part is on the store.
    pub(crate) async fn part(&mut self, position: Position, written: Written) -> Result<Stand, IngestError> {
        self.settle(written).await?;
        self.stand.position = position;
        Ok(self.stand.clone())
    }

    /// The parts of `stand` are on the store.
    pub(crate) async fn record(&self, stand: &Stand) -> Result<(), IngestError> {
        self.create(&format!("part-{:05}.json", stand.counts.files.saturating_sub(1)), stand).await
    }

    /// All is on the store.
    pub(crate) async fn done(&self) -> Result<(), IngestError> {
        self.create("done.json", &self.stand).await
    }

    /// Rejects so far are on the store.
    pub(crate) async fn settle(&mut self, written: Written) -> Result<(), IngestError> {
        self.stand.counts.wrote(written);
        self.put_lines().await
    }

    async fn create(&self, name: &str, stand: &Stand) -> Result<(), IngestError> {
        let name = format!("ingest/{}/{name}", self.split);
        let json = serde_json::to_vec_pretty(stand).expect("numbers and texts are JSON");
        if self.out.create(&name, json).await? {
            return Ok(());
        }
        Err(IngestError::Rival { url: self.out.url_of(&name) })
    }
}
