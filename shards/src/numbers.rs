//! Where decoded rows were found, by the decoder's own count: each row of a batch carries the number that it has in its file, in a
//! column that the `parquet` crate makes beside those that it reads.

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_schema::{DataType, Field};
use parquet::arrow::RowNumber;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use pixfleet_cluster::evidence::{FileId, Origin};
use std::sync::Arc;

/// Name of the column; no column of a file may be called so.
const COLUMN: &str = "pixfleet.row";

/// Asks for the numbers of rows, where the file's row groups are numbered as the decoder needs it: those of some writers are not.
///
/// # Errors
/// Those of the `parquet` crate.
pub(crate) fn asked_for(
    footer: &ParquetMetaData,
    options: ArrowReaderOptions,
) -> Result<ArrowReaderOptions, ParquetError> {
    if footer.row_groups().iter().any(|group| group.ordinal().is_none()) {
        return Ok(options);
    }
    let field = Field::new(COLUMN, DataType::Int64, false).with_extension_type(RowNumber);
    options.with_virtual_columns(vec![Arc::new(field)])
}

/// One read of rows of a row group.
pub(crate) struct Numbers {
    pub(crate) file: FileId,
    /// Rows of the row groups before it.
    pub(crate) before: u64,
    /// The rows of the row group that were selected; `None`: all.
    pub(crate) selected: Option<Vec<u32>>,
}

impl Numbers {
    /// Where each row of `batches` was found. Where the decoder does not count, the selection tells.
    pub(crate) fn of(&self, batches: &[RecordBatch]) -> Vec<Origin> {
        let mut origins = Vec::new();
        for batch in batches {
            let numbers = batch.column_by_name(COLUMN).and_then(|column| column.as_primitive_opt::<Int64Type>());
            for i in 0..batch.num_rows() {
                let counted = numbers.map(|numbers| u64::try_from(numbers.value(i)).unwrap_or(u64::MAX));
                let row = counted.unwrap_or_else(|| self.selected_row(origins.len()));
                origins.push(Origin { file: self.file, row });
            }
        }
        origins
    }

    fn selected_row(&self, at: usize) -> u64 {
        let within =
            self.selected.as_ref().map_or(at as u64, |rows| rows.get(at).map_or(u64::MAX, |row| (*row).into()));
        self.before.saturating_add(within)
    }
}
