//! Rows of other writers' Parquet as cells, column by column only what is wanted, a few rows at a time.

use super::{Body, Found, Position, Records};
use crate::cell::Cell;
use crate::error::IngestError;
use crate::input::{Input, InputFile};
use crate::reject::Spot;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use bytes::{Buf, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that are decoded at once.
const ROWS: usize = 16;
/// Bytes that are fetched at once.
const WINDOW: u64 = 1 << 20;
/// Windows that are kept: one for each column that is read along.
const WINDOWS: usize = 64;

/// Rows of one file.
pub(crate) struct Rows {
    file: Arc<str>,
    batches: ParquetRecordBatchReader,
    batch: Option<(RecordBatch, usize)>,
    record: u64,
}

impl Rows {
    /// The rows of `file`, of the columns at the top that are `wanted`.
    pub(crate) fn open(input: &Input, file: &InputFile, wanted: impl Fn(&str) -> bool) -> Result<Self, IngestError> {
        let failed = |source| IngestError::Parquet { file: file.name.to_string(), source };
        let ranges = Ranges { input: input.clone(), file: file.clone(), windows: Arc::default() };
        let builder = ParquetRecordBatchReaderBuilder::try_new(ranges).map_err(failed)?;
        let fields = builder.schema().fields().iter().enumerate();
        let roots: Vec<usize> = fields.filter(|(_, field)| wanted(field.name())).map(|(at, _)| at).collect();
        if roots.is_empty() {
            let names: Vec<_> = builder.schema().fields().iter().map(|f| f.name().as_str()).collect();
            return Err(IngestError::Options(format!(
                "{}: none of its columns is known; it has {}: name them with --map ours=theirs",
                file.name,
                names.join(", ")
            )));
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let batches = builder.with_projection(mask).with_batch_size(ROWS).build().map_err(failed)?;
        Ok(Self { file: Arc::clone(&file.name), batches, batch: None, record: 0 })
    }
}

impl Records for Rows {
    fn next(&mut self) -> Result<Option<Found>, IngestError> {
        loop {
            if let Some((batch, at)) = &mut self.batch
                && *at < batch.num_rows()
            {
                let schema = batch.schema();
                let columns = schema.fields().iter().zip(batch.columns());
                let members = columns.map(|(field, column)| (field.name().clone(), cell(column, *at))).collect();
                *at += 1;
                let spot = Spot::new(&self.file, self.record);
                self.record += 1;
                return Ok(Some(Found { spot, body: Body::Cells(Cell::Map(members)), after: Position::default() }));
            }
            match self.batches.next() {
                None => return Ok(None),
                Some(Ok(batch)) => self.batch = Some((batch, 0)),
                Some(Err(error)) => {
                    let source = ParquetError::External(Box::new(error));
                    return Err(IngestError::Parquet { file: self.file.to_string(), source });
                }
            }
        }
    }
}

/// The value at `i`; null for types that no column of ours is made from (times, decimals).
fn cell(array: &ArrayRef, i: usize) -> Cell {
    if array.is_null(i) {
        return Cell::Null;
    }
    let bytes = |b: &[u8]| Cell::Bytes(Bytes::copy_from_slice(b));
    let list = |values: ArrayRef| Cell::List((0..values.len()).map(|i| cell(&values, i)).collect());
    match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(i)),
        DataType::Int8 => Cell::Whole(array.as_primitive::<Int8Type>().value(i).into()),
        DataType::Int16 => Cell::Whole(array.as_primitive::<Int16Type>().value(i).into()),
        DataType::Int32 => Cell::Whole(array.as_primitive::<Int32Type>().value(i).into()),
        DataType::Int64 => Cell::Whole(array.as_primitive::<Int64Type>().value(i)),
        DataType::UInt8 => Cell::Whole(array.as_primitive::<UInt8Type>().value(i).into()),
        DataType::UInt16 => Cell::Whole(array.as_primitive::<UInt16Type>().value(i).into()),
        DataType::UInt32 => Cell::Whole(array.as_primitive::<UInt32Type>().value(i).into()),
        DataType::UInt64 => {
            let value = array.as_primitive::<UInt64Type>().value(i);
            i64::try_from(value).map_or(Cell::Number(value as f64), Cell::Whole)
        }
        DataType::Float16 => Cell::Number(array.as_primitive::<Float16Type>().value(i).to_f64()),
        DataType::Float32 => Cell::Number(array.as_primitive::<Float32Type>().value(i).into()),
        DataType::Float64 => Cell::Number(array.as_primitive::<Float64Type>().value(i)),
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(i).to_owned()),
        DataType::LargeUtf8 => Cell::Text(array.as_string::<i64>().value(i).to_owned()),
        DataType::Utf8View => Cell::Text(array.as_string_view().value(i).to_owned()),
        DataType::Binary => bytes(array.as_binary::<i32>().value(i)),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(i)),
        DataType::BinaryView => bytes(array.as_binary_view().value(i)),
        DataType::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary().value(i)),
        DataType::List(_) => list(array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => list(array.as_list::<i64>().value(i)),
        DataType::FixedSizeList(_, _) => list(array.as_fixed_size_list().value(i)),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            Cell::Map(columns.map(|(field, column)| (field.name().clone(), cell(column, i))).collect())
        }
        _ => Cell::Null,
    }
}

/// Ranges of a file, fetched in windows.
#[derive(Clone)]
struct Ranges {
    input: Input,
    file: InputFile,
    windows: Arc<Mutex<VecDeque<(u64, Bytes)>>>,
}

impl Ranges {
    fn get(&self, start: u64, length: u64) -> Result<Bytes, ParquetError> {
        if start + length > self.file.size {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of {}", self.file.size)));
        }
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |(from, bytes): &&(u64, Bytes)| start >= *from && start + length <= from + bytes.len() as u64;
        if let Some((from, bytes)) = windows.iter().find(within) {
            let at = (start - from) as usize;
            return Ok(bytes.slice(at..at + length as usize));
        }
        let end = (start + length.max(WINDOW)).min(self.file.size);
        let bytes = self.input.range(&self.file, start..end).map_err(|e| ParquetError::External(Box::new(e)))?;
        windows.push_front((start, bytes.clone()));
        windows.truncate(WINDOWS);
        Ok(bytes.slice(..length as usize))
    }
}

impl Length for Ranges {
    fn len(&self) -> u64 {
        self.file.size
    }
}

impl ChunkReader for Ranges {
    type T = RangeRead;

    fn get_read(&self, start: u64) -> Result<RangeRead, ParquetError> {
        Ok(RangeRead { ranges: self.clone(), at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.get(start, length as u64)
    }
}

/// A file from some byte on.
struct RangeRead {
    ranges: Ranges,
    at: u64,
}

impl Read for RangeRead {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let length = (into.len() as u64).min(self.ranges.file.size.saturating_sub(self.at));
        let mut bytes = self.ranges.get(self.at, length).map_err(std::io::Error::other)?;
        bytes.copy_to_slice(&mut into[..length as usize]);
        self.at += length;
        Ok(length as usize)
    }
}
