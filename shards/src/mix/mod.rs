//! Several datasets as one: their rows by turns, each row at most once, as files of their own.
//!
//! Rows are copied, so that whoever reads the mix needs nothing of its sources. Whose turn it is says `turns`; which row of
//! a source comes next says [`SampleOrder`], as in training, so that a part of a source is a part of all of it. Both are
//! arithmetic: a seed makes the same mix again.

mod turns;

pub use turns::Until;

use crate::error::ShardError;
use crate::index;
use crate::reader::{CACHE_BYTES, RowGroupReader};
use crate::row::ImageRow;
use crate::schema::Columns;
use crate::store::Location;
use crate::writer::{ShardWriter, WriterOptions, Written};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt};
use pixfleet_cluster::SampleId;
use pixfleet_cluster::order::SampleOrder;
use pixfleet_cluster::rng::key;
use std::collections::BTreeMap;
use turns::Turns;

/// Rows that are read together.
const CHUNK: usize = 256;
/// Row groups of a source whose rows are shuffled together.
const WINDOW: u32 = 4;
/// Bad rows that are kept to be shown; further ones are only counted.
const BAD_SHOWN: usize = 20;

/// A dataset to mix in.
#[derive(Debug, Clone)]
pub struct MixSource {
    /// Where it is.
    pub location: Location,
    /// How often it has a turn, beside the others' weights; positive and finite.
    pub weight: f64,
}

/// How to mix.
#[derive(Debug, Clone)]
pub struct MixOptions {
    /// Seed of turns and orders.
    pub seed: u64,
    /// When to end.
    pub until: Until,
    /// Rows at most.
    pub rows: Option<u64>,
    /// Sizes of what is written.
    pub writer: WriterOptions,
}

/// What became of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixedSource {
    /// Its name: what `source` says in rows that did not say it.
    pub name: String,
    /// Rows of its split.
    pub rows: u64,
    /// Rows that were written.
    pub written: u64,
    /// Rows that could not be read; they had their turns all the same.
    pub bad: u64,
}

/// What was mixed.
#[derive(Debug, Default)]
pub struct MixReport {
    /// The sources, in their order.
    pub sources: Vec<MixedSource>,
    /// The first source of which no row was left, and after how many turns.
    pub first_ended: Option<(usize, u64)>,
    /// The first bad rows.
    pub bad_rows: Vec<ShardError>,
    /// What was written.
    pub written: Written,
}

/// Writes the mix of the split `split` of all sources to the same split of `out`, which is replaced. `progress` gets rows
/// done and about how many there will be.
///
/// # Errors
/// Those of the stores, and sources without an index or the split; what is wrong with single rows is in the report.
pub async fn mix(
    sources: &[MixSource],
    (out, split): (&Location, &str),
    options: &MixOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<MixReport, ShardError> {
    let open = sources
        .iter()
        .enumerate()
        .map(|(number, source)| Opened::new(number, source, split, options.seed, sources.len()));
    let mut opened: Vec<Opened> = try_join_all(open).await?;
    let shares: Vec<(f64, u64)> = sources.iter().zip(&opened).map(|(s, o)| (s.weight, o.rows())).collect();
    let mut turns = Turns::new(options.seed, &shares, options.until, options.rows);
    let most = turns.most();
    let mixed = |o: &Opened| MixedSource { name: o.name.clone(), rows: o.rows(), written: 0, bad: 0 };
    let mut report = MixReport { sources: opened.iter().map(mixed).collect(), ..MixReport::default() };
    let mut orders: Vec<Order> = opened.iter_mut().map(|o| Order { order: o.order.take(), next: 0 }).collect();
    // Chunks of (source, row) in the order of the mix; arithmetic alone.
    let chunks = std::iter::from_fn(|| {
        let chunk: Vec<(usize, SampleId)> =
            turns.by_ref().take(CHUNK).filter_map(|source| Some((source, orders[source].advance()?))).collect();
        (!chunk.is_empty()).then_some(chunk)
    });
    let mut writer = ShardWriter::new(out.clone(), split, options.writer);
    let mut read = futures::stream::iter(chunks).map(|chunk| fetch(&opened, chunk)).buffered(2);
    let mut done = 0;
    while let Some(rows) = read.try_next().await? {
        for (source, row) in rows {
            done += 1;
            match row {
                Ok(mut row) => {
                    if row.source.is_empty() {
                        row.source.clone_from(&report.sources[source].name);
                    }
                    writer.push(row).await?;
                    report.sources[source].written += 1;
                }
                Err(error) => {
                    report.sources[source].bad += 1;
                    if report.bad_rows.len() < BAD_SHOWN {
                        report.bad_rows.push(error);
                    }
                }
            }
        }
        progress(done, most.max(done));
    }
    drop(read);
    report.first_ended = turns.first_ended();
    report.written = writer.finish().await?;
    Ok(report)
}

/// A source that is open.
struct Opened {
    name: String,
    reader: RowGroupReader,
    /// `None` for a source without rows.
    order: Option<SampleOrder>,
}

impl Opened {
    async fn new(number: usize, source: &MixSource, split: &str, seed: u64, of: usize) -> Result<Self, ShardError> {
        let location = &source.location;
        let index = index::open(location).await?;
        index::check_fresh(location, &index).await?;
        let reader = RowGroupReader::new(location.clone(), &index, split, None)?.with_cache_bytes(CACHE_BYTES / of);
        // Equal datasets at two places are to be mixed in two orders.
        let order = SampleOrder::new(key(&[seed, number as u64]), reader.split().shape(), WINDOW);
        let name = location.url().rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { name, reader, order })
    }

    fn rows(&self) -> u64 {
        self.reader.split().rows()
    }
}

/// The rows of a source in their order, each once.
struct Order {
    order: Option<SampleOrder>,
    next: u64,
}

impl Order {
    fn advance(&mut self) -> Option<SampleId> {
        let order = self.order.as_mut()?;
        let position = self.next;
        self.next += 1;
        (position < order.epoch_len()).then(|| order.locate(position))
    }
}

type Read = (usize, Result<ImageRow, ShardError>);

/// The rows of a chunk, in its order.
async fn fetch(opened: &[Opened], chunk: Vec<(usize, SampleId)>) -> Result<Vec<Read>, ShardError> {
    let mut groups: BTreeMap<(usize, u32), Vec<(usize, u32)>> = BTreeMap::new();
    for (slot, (source, sample)) in chunk.iter().enumerate() {
        groups.entry((*source, sample.row_group)).or_default().push((slot, sample.row));
    }
    let read = groups.into_iter().map(|((source, group), rows)| async move {
        let numbers: Vec<u32> = rows.iter().map(|(_, row)| *row).collect();
        let reader = &opened[source].reader;
        let found = match reader.read_each(group, &numbers, Columns::ROWS).await {
            Ok(found) => found,
            // Where a row group is damaged throughout, each of its rows is.
            Err(error) if error.is_bad_data() => {
                let text = error.to_string();
                let each = |row: &u32| {
                    let source = parquet::errors::ParquetError::General(text.clone());
                    Err(ShardError::Parquet { place: Box::new(reader.place(group, *row)), source })
                };
                numbers.iter().map(each).collect()
            }
            Err(error) => return Err(error),
        };
        Ok(rows.into_iter().map(|(slot, _)| slot).zip(found).collect::<Vec<_>>())
    });
    let mut slots: BTreeMap<usize, Result<ImageRow, ShardError>> =
        try_join_all(read).await?.into_iter().flatten().collect();
    let row = |(slot, (source, _)): (usize, (usize, SampleId))| slots.remove(&slot).map(|row| (source, row));
    Ok(chunk.into_iter().enumerate().filter_map(row).collect())
}
