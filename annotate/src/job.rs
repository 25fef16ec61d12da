//! A job: every file of a dataset is one unit of work, read, annotated and written as the same file of another dataset.
//!
//! Units are claimed, so any number of processes on any machines share a job, and may be killed: a unit that its holder left is
//! taken up by another one, and what was answered is not asked again.

use crate::answers::Answers;
use crate::ask::Asker;
use crate::draft::Draft;
use crate::error::AnnotateError;
use crate::pool::Pool;
use crate::recipe::Recipe;
use crate::stage::Desk;
use crate::tally::{JobTally, Tallying};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use pixfleet_shards::claims::{Claims, LEASE, whoami};
use pixfleet_shards::index::{self, DatasetIndex, FileIndex};
use pixfleet_shards::writer::PartWriter;
use pixfleet_shards::{Columns, ImageRow, Location, RowGroupReader, WriterOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Decoded row groups that a reader keeps; each is read once.
const CACHE_BYTES: usize = 32 << 20;
/// Rows that are annotated at the same time, at most: each holds its picture.
const ROWS_MAX: usize = 512;

/// Annotates the rows of one dataset into another.
pub struct Job {
    from: Location,
    to: Location,
    index: DatasetIndex,
    splits: Vec<String>,
    recipe: Recipe,
    pools: BTreeMap<String, Pool>,
    asker: Asker,
    tallying: Arc<Tallying>,
    lease: Duration,
}

/// One file of the dataset.
struct Unit {
    reader: Arc<RowGroupReader>,
    file: FileIndex,
    /// Its first row group, counted over the files of its split.
    first: u32,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEnd {
    /// All files are there, and the dataset has its index.
    Done(JobTally),
    /// It was told to stop; the same command goes on.
    Stopped(JobTally),
}

impl Job {
    /// A job over `splits` (all if empty) of the dataset at `from`.
    ///
    /// # Errors
    /// No index, no such split, `to` is `from`.
    pub async fn new(recipe: Recipe, from: &str, to: &str, splits: &[String]) -> Result<Self, AnnotateError> {
        let (from, to) = (Location::parse(from)?, Location::parse(to)?);
        if from.url() == to.url() {
            return Err(AnnotateError::SamePlace { url: from.url().into() });
        }
        let index = index::open(&from).await?;
        let splits: Vec<String> =
            if splits.is_empty() { index.splits.keys().cloned().collect() } else { splits.to_vec() };
        for split in &splits {
            RowGroupReader::new(from.clone(), &index, split, None)?;
        }
        if splits.iter().filter_map(|s| index.split(s)).all(|s| s.rows() == 0) {
            return Err(AnnotateError::NoRows { url: from.url().into() });
        }
        let pools = recipe.servers.iter().map(|(name, server)| Ok((name.clone(), Pool::new(name, server)?)));
        let pools = pools.collect::<Result<_, AnnotateError>>()?;
        let tallying = Arc::new(Tallying::default());
        let asker = Asker::new(Answers::new(to.clone()), Arc::clone(&tallying));
        Ok(Self { from, to, index, splits, recipe, pools, asker, tallying, lease: LEASE })
    }

    /// How long a process may be silent before others take up its file.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// The recipe.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Rows that there are to annotate.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.splits.iter().filter_map(|s| self.index.split(s)).map(|s| s.rows()).sum()
    }

    /// Counts so far.
    #[must_use]
    pub fn tally(&self) -> JobTally {
        self.tallying.get()
    }

    /// Annotates what no other process does, until all files are there or `stop` is over.
    ///
    /// # Errors
    /// See [`AnnotateError`]; what was done until then is kept.
    pub async fn run(&self, stop: impl Future<Output = ()>) -> Result<JobEnd, AnnotateError> {
        for pool in self.pools.values() {
            pool.start();
        }
        let units = self.units()?;
        let names: Vec<&str> = units.keys().map(String::as_str).collect();
        let job = format!("annotate-{}-{}", self.recipe.digest, &self.index.digest[..8]);
        let claims = Claims::new(&self.to, &job, &whoami(), self.lease);
        tokio::pin!(stop);
        loop {
            let claim = tokio::select! {
                claim = claims.next(&names) => claim?,
                () = &mut stop => return Ok(JobEnd::Stopped(self.tally())),
            };
            let Some(claim) = claim else { break };
            let unit = &units[claim.unit()];
            let bytes = tokio::select! {
                bytes = self.unit(unit) => bytes,
                () = &mut stop => {
                    claim.leave().await?;
                    return Ok(JobEnd::Stopped(self.tally()));
                }
            };
            // With an error the unit is given back, so that the next process need not wait for the lease.
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => {
                    claim.leave().await?;
                    return Err(error);
                }
            };
            if claim.still_held().await? {
                self.to.put(&unit.file.path, bytes).await?;
            }
            claim.finish().await?;
            self.tallying.add(|tally| tally.files += 1);
        }
        index::build(&self.to, &mut |_, _| {}).await?;
        Ok(JobEnd::Done(self.tally()))
    }

    /// Every file by its path.
    fn units(&self) -> Result<BTreeMap<String, Unit>, AnnotateError> {
        let mut units = BTreeMap::new();
        for split in &self.splits {
            let reader = RowGroupReader::new(self.from.clone(), &self.index, split, None)?;
            let reader = Arc::new(reader.with_cache_bytes(CACHE_BYTES));
            let mut first = 0;
            for file in &reader.split().files {
                units.insert(file.path.clone(), Unit { reader: Arc::clone(&reader), file: file.clone(), first });
                first += file.row_groups.len() as u32;
            }
        }
        Ok(units)
    }

    /// The annotated file.
    async fn unit(&self, Unit { reader, file, first }: &Unit) -> Result<Bytes, AnnotateError> {
        let rows_per_group = file.row_groups.iter().map(|g| g.rows).max().unwrap_or(1);
        let options = WriterOptions { rows_per_group, image_bytes_per_group: u64::MAX, bytes_per_file: u64::MAX };
        let mut writer = PartWriter::new(&file.path, options)?;
        let groups = futures::stream::iter((*first..).zip(&file.row_groups));
        let rows = groups
            .map(|(at, group)| async move {
                let all: Vec<u32> = (0..group.rows).collect();
                reader.read(at, &all, Columns::ROWS).await.map_err(AnnotateError::from)
            })
            .buffered(2)
            .map_ok(|rows| futures::stream::iter(rows.into_iter().map(Ok)))
            .try_flatten();
        let mut annotated = rows.map_ok(|row| self.row(row)).try_buffered(self.rows_at_once()).boxed();
        while let Some(row) = annotated.try_next().await? {
            self.tallying.add(|tally| {
                tally.rows += 1;
                tally.regions += row.regions.len() as u64;
            });
            writer.push(row)?;
        }
        Ok(writer.finish()?)
    }

    /// All stages over one row.
    async fn row(&self, row: ImageRow) -> Result<ImageRow, AnnotateError> {
        let mut draft = Draft::new(row);
        for stage in &self.recipe.stages {
            let desk = Desk { pool: &self.pools[&stage.server], asker: &self.asker, tallying: &self.tallying };
            desk.run(stage, &mut draft).await?;
        }
        Ok(draft.finish())
    }

    /// Enough rows to keep every server busy.
    fn rows_at_once(&self) -> usize {
        self.pools.values().map(Pool::most).sum::<usize>().clamp(1, ROWS_MAX)
    }
}
