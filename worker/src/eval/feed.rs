//! The rows of a split on their way to the model: a feed thread reads row groups and decodes each row once, on all cores;
//! the calling thread owns the tensors. A bad row is left out, counted and logged.

use super::benchmarks::Part;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use pixfleet_shards::sample::SampleError;
use pixfleet_shards::{Columns, ImageRow, RowGroupReader};
use rayon::prelude::*;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Rows that are read, decoded and encoded together.
const ROWS_AT_ONCE: usize = 32;
/// Chunks of decoded rows that wait for the model.
const CHUNKS_QUEUED: usize = 2;

/// A good row of the split.
pub(crate) struct SplitRow<T> {
    /// Row group, over all files of the split.
    pub(crate) row_group: u32,
    /// Row within it.
    pub(crate) row: u32,
    /// As it was read.
    pub(crate) source: ImageRow,
    /// As the model sees it.
    pub(crate) seen: T,
}

/// Which rows are read, and what of them.
#[derive(Clone, Copy)]
pub(crate) struct SplitFeed<'a> {
    /// Reads the split.
    pub(crate) reader: &'a RowGroupReader,
    /// What to read of a row.
    pub(crate) columns: Columns,
    /// Stop after about this many regions.
    pub(crate) limit: Option<u64>,
    /// Stop after this many rows, bad ones among them.
    pub(crate) first: Option<u64>,
    /// Of the row groups only these.
    pub(crate) part: Part,
}

/// Rows on their way from the feed to the model.
struct Chunk<T> {
    rows: Vec<SplitRow<T>>,
    bad: u64,
}

impl SplitFeed<'_> {
    /// Reads and decodes the split; `each` gets the good rows in their order, some at a time and never none. Returns how
    /// many rows were left out as bad.
    ///
    /// # Errors
    /// A store that cannot be read, what `each` returns.
    pub(crate) fn each<T: Send>(
        self,
        decode: impl Fn(&ImageRow) -> Result<T, SampleError> + Sync,
        mut each: impl FnMut(Vec<SplitRow<T>>) -> Result<()>,
    ) -> Result<u64> {
        let rows = self.groups().map(|(_, rows)| u64::from(rows)).sum();
        let bar = bar("images", rows);
        let decode = &decode;
        let bad = std::thread::scope(|scope| {
            let (send, receive) = sync_channel(CHUNKS_QUEUED);
            scope.spawn(move || {
                if let Err(error) = self.feed(decode, &send) {
                    // The receiver is gone only if this function has failed already.
                    let _ = send.send(Err(error));
                }
            });
            drain(receive, &bar, &mut each)
        })?;
        bar.finish_and_clear();
        Ok(bad)
    }

    /// The row groups of this part, each with how many of its rows count.
    fn groups(self) -> impl Iterator<Item = (u32, u32)> {
        let rows = self.reader.split().shape().rows;
        let mut left = self.first.unwrap_or(u64::MAX);
        let part = self.part.groups(&rows, left);
        let counted = rows.into_iter().map(move |size| {
            let counts = size.min(u32::try_from(left).unwrap_or(size));
            left -= u64::from(counts);
            counts
        });
        (0u32..).zip(counted).skip(part.start).take(part.len())
    }

    /// Row group by row group; ends early where the receiver is gone.
    fn feed<T: Send>(
        self,
        decode: &(impl Fn(&ImageRow) -> Result<T, SampleError> + Sync),
        send: &SyncSender<Result<Chunk<T>>>,
    ) -> Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        let (reader, mut regions) = (self.reader, 0);
        for (group, size) in self.groups() {
            let all: Vec<u32> = (0..size).collect();
            for rows in all.chunks(ROWS_AT_ONCE) {
                if self.limit.is_some_and(|limit| regions >= limit) {
                    return Ok(());
                }
                let read = runtime.block_on(reader.read_each(group, rows, self.columns))?;
                let decoded: Vec<Result<SplitRow<T>>> = rows
                    .par_iter()
                    .zip(read)
                    .map(|(&row, read)| {
                        let source = read?;
                        let seen = decode(&source).with_context(|| reader.place(group, row).to_string())?;
                        Ok(SplitRow { row_group: group, row, source, seen })
                    })
                    .collect();
                let chunk = Chunk::of(decoded);
                regions += chunk.rows.iter().map(|r| r.source.regions.len() as u64).sum::<u64>();
                if send.send(Ok(chunk)).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl<T> Chunk<T> {
    fn of(decoded: Vec<Result<SplitRow<T>>>) -> Self {
        let mut chunk = Self { rows: Vec::with_capacity(decoded.len()), bad: 0 };
        for row in decoded {
            match row {
                Ok(row) => chunk.rows.push(row),
                Err(error) => {
                    tracing::warn!("row left out: {error:#}");
                    chunk.bad += 1;
                }
            }
        }
        chunk
    }
}

/// Takes the receiver, so that the feed ends when this fails.
fn drain<T>(
    receive: Receiver<Result<Chunk<T>>>,
    bar: &ProgressBar,
    each: &mut impl FnMut(Vec<SplitRow<T>>) -> Result<()>,
) -> Result<u64> {
    let mut bad = 0;
    for chunk in receive {
        let chunk = chunk?;
        bad += chunk.bad;
        bar.inc(chunk.rows.len() as u64 + chunk.bad);
        if !chunk.rows.is_empty() {
            each(chunk.rows)?;
        }
    }
    Ok(bad)
}

/// A bar of so many `things` to encode.
pub(super) fn bar(things: &str, count: u64) -> ProgressBar {
    let template = format!("encode {{bar:32.cyan/dim}} {{pos}}/{{len}} {things}  {{per_sec}}  eta {{eta}}");
    let style = ProgressStyle::with_template(&template);
    ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
