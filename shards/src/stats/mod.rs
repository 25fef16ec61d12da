//! What a split holds: counts, lengths of texts, sizes, categories, and pictures that are there twice.
//!
//! Rows are streamed and decoded on all cores; what stays is counts, and sixteen bytes for each picture.

mod bins;
mod dhash;
mod duplicates;
mod heavy;
mod near;
mod tally;

pub use bins::Bins;
pub use dhash::dhash;
pub use duplicates::{Duplicate, Duplicates, HASHES_MAX, thumbnail};
pub use near::BITS;
pub use tally::{Head, Share};

use crate::error::ShardError;
use crate::reader::RowGroupReader;
use crate::schema::Columns;
use crate::token_report::TokenReport;
use crate::tokens::Tokenizer;
use duplicates::Hashes;
use futures::{StreamExt, TryStreamExt};
use tally::Tally;

/// Row groups under way at a time, beside one for each core.
const AHEAD_MAX: usize = 8;
/// Bad rows that are kept to be shown; further ones are only counted.
const BAD_SHOWN: usize = 20;

/// How to count.
#[derive(Debug, Clone)]
pub struct StatsOptions {
    /// Counts the tokens of all texts.
    pub tokenizer: Option<Tokenizer>,
    /// Reads and decodes pictures, for their duplicates.
    pub pictures: bool,
}

/// What a split holds.
#[derive(Debug)]
pub struct DatasetStats {
    /// Rows that could be read.
    pub rows: u64,
    /// Their regions.
    pub regions: u64,
    /// Rows that could not be read.
    pub bad: u64,
    /// The first of them.
    pub bad_rows: Vec<ShardError>,
    /// How many rows have each field.
    pub row_fields: Vec<Share>,
    /// How many regions have each field.
    pub region_fields: Vec<Share>,
    /// Lengths of texts.
    pub tokens: TokenReport,
    /// Regions of a row.
    pub regions_per_row: Bins,
    /// Share of the picture that a region covers.
    pub areas: Bins,
    /// Longer side of the picture, pixels, by the row.
    pub sides: Bins,
    /// Width by height.
    pub aspects: Bins,
    /// Bytes of pictures as they are stored.
    pub picture_bytes: Bins,
    /// Most frequent categories of regions.
    pub categories: Head,
    /// Most frequent sources of rows.
    pub sources: Head,
    /// Most frequent languages of rows.
    pub languages: Head,
    /// Pictures that are there twice; `None` where pictures were not read.
    pub duplicates: Option<Duplicates>,
}

/// Counts what the reader's split holds. `progress` gets row groups done and row groups in all.
///
/// # Errors
/// Those of the store; what is wrong with single rows is in the result.
pub async fn stats(
    reader: &RowGroupReader,
    options: &StatsOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<DatasetStats, ShardError> {
    let total = reader.split().row_groups().count() as u64;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut groups = futures::stream::iter(0..total as u32)
        .map(|group| row_group(reader, group, options))
        .buffered((cores + 1).min(AHEAD_MAX));
    let (mut all, mut hashes, mut bad, mut bad_rows) = (Tally::new(), Hashes::default(), 0, Vec::new());
    let mut done = 0;
    while let Some(found) = groups.try_next().await? {
        all.merge(found.tally);
        hashes.merge(found.hashes);
        bad += found.lost;
        bad_rows.extend(found.bad);
        bad_rows.truncate(BAD_SHOWN);
        done += 1;
        progress(done, total);
    }
    let duplicates =
        if options.pictures { Some(tokio::task::spawn_blocking(move || hashes.duplicates()).await?) } else { None };
    Ok(all.finish(bad, bad_rows, duplicates))
}

struct GroupFound {
    tally: Tally,
    hashes: Hashes,
    lost: u64,
    bad: Vec<ShardError>,
}

async fn row_group(reader: &RowGroupReader, group: u32, options: &StatsOptions) -> Result<GroupFound, ShardError> {
    let rows = reader.split().locate_row_group(group).map_or(0, |(file, inner)| file.row_groups[inner as usize].rows);
    let numbers: Vec<u32> = (0..rows).collect();
    let columns = Columns { image: options.pictures, ..Columns::ROWS };
    let mut found = GroupFound { tally: Tally::new(), hashes: Hashes::default(), lost: 0, bad: Vec::new() };
    let read = match reader.read_each(group, &numbers, columns).await {
        Ok(read) => read,
        Err(error) if error.is_bad_data() => {
            (found.lost, found.bad) = (u64::from(rows), vec![error]);
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    let places: Vec<_> = numbers.iter().map(|&row| reader.place(group, row)).collect();
    let options = options.clone();
    let counted = tokio::task::spawn_blocking(move || {
        for ((number, row), place) in (0u32..).zip(read).zip(places) {
            match row {
                Ok(row) => {
                    found.tally.add(&row, options.tokenizer.as_ref(), &place, &mut found.bad);
                    if options.pictures {
                        found.hashes.add((group, number), row.image.bytes.as_deref());
                    }
                }
                Err(error) => {
                    found.lost += 1;
                    found.bad.push(error);
                }
            }
        }
        found
    });
    Ok(counted.await?)
}
