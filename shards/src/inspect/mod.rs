//! A look at a dataset: a few rows, evenly spread over a split, and a PNG sheet of them.

mod paint;
mod sheet;

pub use sheet::{SheetError, sheet};

use crate::error::ShardError;
use crate::reader::RowGroupReader;
use crate::row::ImageRow;
use crate::schema::Columns;

/// A row and where it is.
#[derive(Debug)]
pub struct Seen {
    /// Row group, counted over all files of the split.
    pub row_group: u32,
    /// Row within the row group.
    pub row: u32,
    /// The row, or what is wrong with it.
    pub found: Result<ImageRow, ShardError>,
}

/// `count` rows, evenly spread over the reader's split.
///
/// # Errors
/// Those of the store; bad rows are told row by row.
pub async fn spread(reader: &RowGroupReader, count: u64, columns: Columns) -> Result<Vec<Seen>, ShardError> {
    let shape = reader.split().shape().rows;
    let total: u64 = shape.iter().map(|&r| u64::from(r)).sum();
    let count = count.min(total);
    let mut seen = Vec::new();
    for i in 0..count {
        let mut row = i * total / count;
        let mut group = 0;
        while row >= u64::from(shape[group]) {
            row -= u64::from(shape[group]);
            group += 1;
        }
        let (row_group, row) = (group as u32, row as u32);
        let found = match reader.read_each(row_group, &[row], columns).await {
            Ok(mut rows) => rows.pop().expect("one row was asked for"),
            Err(error) if error.is_bad_data() => Err(error),
            Err(error) => return Err(error),
        };
        seen.push(Seen { row_group, row, found });
    }
    Ok(seen)
}
