//! Text vectors beside the rows: `vectors/<key>/<path of the data file>`, the same row groups and rows.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `short`, `long` | list of fixed binary? | one entry a region: f16 little-endian vector of its short / long text |
//! | `short_hash`, `long_hash` | list of fixed binary(16)? | blake3 of those texts, cut to 16 bytes |
//! | `image`, `image_hash` | fixed binary? | the same of the image's text |
//!
//! A null stands for a text that is not there. The key names what vectors depend on: model, template, length. The
//! hashes make each file a cache, so that a text is encoded once per key, whatever row it stands in, and they tell
//! whether a vector is still that of its text. The vectors of a row are pages of their own.

use crate::access::Access;
use crate::decode::f16_values;
use crate::encode::f16_bytes;
use crate::error::ShardError;
use crate::file::{ShardFile, check_version};
use crate::writer::{arrow_error, finish_file, properties, write_error};
use arrow_array::builder::{FixedSizeBinaryBuilder, ListBuilder};
use arrow_array::{Array, ArrayRef, FixedSizeBinaryArray, ListArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::arrow::ArrowWriter;
use pixfleet_cluster::evidence::Origin;
use pixfleet_cluster::index::FileIndex;
use std::sync::Arc;

/// Footer key: the key of the vectors.
pub const KEY_KEY: &str = "pixfleet.vectors";
/// Footer key: the version of the data file.
pub const DATA_KEY: &str = "pixfleet.data";
/// Footer key: numbers per vector.
pub const DIM_KEY: &str = "pixfleet.dim";

/// blake3 of a text, cut to 16 bytes.
pub type TextHash = [u8; 16];

/// The hash of a text.
#[must_use]
pub fn text_hash(text: &str) -> TextHash {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    hash
}

/// The key of vectors by `model` with the prompt `template` and at most `length` tokens: `minilm-plain-256`.
#[must_use]
pub fn vector_key(model: &str, template: &str, length: u32) -> String {
    format!("{model}-{template}-{length}")
}

/// Path within the dataset of the vectors of `data_file`.
#[must_use]
pub fn vectors_path(key: &str, data_file: &str) -> String {
    format!("vectors/{key}/{data_file}")
}

/// The vector of one text; both `None` where there is no text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextVector {
    /// Hash of the text, where hashes were read.
    pub hash: Option<TextHash>,
    /// The vector.
    pub values: Option<Vec<f32>>,
}

/// The vectors of one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowVectors {
    /// Of each region's short text.
    pub short: Vec<TextVector>,
    /// Of each region's long text.
    pub long: Vec<TextVector>,
    /// Of the image's text.
    pub image: TextVector,
}

impl RowVectors {
    pub(crate) fn weight(&self) -> usize {
        let all = self.short.iter().chain(&self.long).chain([&self.image]);
        all.map(|v| size_of::<TextVector>() + v.values.as_ref().map_or(0, |v| 4 * v.len())).sum()
    }
}

/// Writes the vectors of one data file in memory, row group by row group.
pub struct VectorsWriter {
    file: String,
    dim: usize,
    schema: SchemaRef,
    keys: Vec<(&'static str, String)>,
    arrow: ArrowWriter<Vec<u8>>,
}

impl VectorsWriter {
    /// Vectors of `dim` numbers under `key`, beside `data`.
    ///
    /// # Errors
    /// [`ShardError::Write`].
    pub fn new(key: &str, data: &FileIndex, dim: usize) -> Result<Self, ShardError> {
        let file = vectors_path(key, &data.path);
        let schema = schema(dim);
        // Arrow calls the leaf of a list `item`.
        let wide: &[&[&str]] = &[&["short", "list", "item"], &["long", "list", "item"], &["image"]];
        let arrow = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties(wide).build()))
            .map_err(write_error(&file))?;
        let keys = vec![(KEY_KEY, key.to_owned()), (DATA_KEY, data.version().to_owned()), (DIM_KEY, dim.to_string())];
        Ok(Self { file, dim, schema, keys, arrow })
    }

    /// Adds one row group, the same rows as the data file's.
    ///
    /// # Errors
    /// [`ShardError::Encoder`] for a vector of another length, [`ShardError::Write`].
    pub fn push_row_group(&mut self, rows: &[RowVectors]) -> Result<(), ShardError> {
        let all = rows.iter().flat_map(|r| r.short.iter().chain(&r.long).chain([&r.image]));
        if let Some(found) = all.filter_map(|v| v.values.as_ref()).map(Vec::len).find(|&n| n != self.dim) {
            return Err(ShardError::Encoder {
                found: format!("a vector of {found} numbers"),
                expected: format!("{} as for the texts before", self.dim),
            });
        }
        let batch = batch(&self.schema, rows, self.dim).map_err(arrow_error).map_err(write_error(&self.file))?;
        self.arrow.write(&batch).and_then(|()| self.arrow.flush()).map_err(write_error(&self.file))
    }

    /// Path within the dataset and bytes of the file.
    ///
    /// # Errors
    /// [`ShardError::Write`].
    pub fn finish(self) -> Result<(String, Bytes), ShardError> {
        let bytes = finish_file(self.arrow, &self.file, &self.keys)?;
        Ok((self.file, bytes))
    }
}

fn schema(dim: usize) -> SchemaRef {
    let vector = DataType::FixedSizeBinary(i32::try_from(2 * dim).unwrap_or(i32::MAX));
    let hash = DataType::FixedSizeBinary(16);
    let list = |name: &str, of: &DataType| Field::new_list(name, Field::new_list_field(of.clone(), true), false);
    Arc::new(Schema::new(vec![
        list("short_hash", &hash),
        list("long_hash", &hash),
        Field::new("image_hash", hash, true),
        list("short", &vector),
        list("long", &vector),
        Field::new("image", vector, true),
    ]))
}

fn batch(schema: &SchemaRef, rows: &[RowVectors], dim: usize) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let width = i32::try_from(2 * dim).unwrap_or(i32::MAX);
    let lists = |width: i32, of: fn(&RowVectors) -> &Vec<TextVector>, bytes: fn(&TextVector) -> Option<Vec<u8>>| {
        let mut list = ListBuilder::new(FixedSizeBinaryBuilder::new(width));
        for row in rows {
            for vector in of(row) {
                append(list.values(), bytes(vector))?;
            }
            list.append(true);
        }
        Ok::<ArrayRef, arrow_schema::ArrowError>(Arc::new(list.finish()))
    };
    let single = |width: i32, bytes: fn(&TextVector) -> Option<Vec<u8>>| {
        let mut column = FixedSizeBinaryBuilder::new(width);
        for row in rows {
            append(&mut column, bytes(&row.image))?;
        }
        Ok::<ArrayRef, arrow_schema::ArrowError>(Arc::new(column.finish()))
    };
    let hash: fn(&TextVector) -> Option<Vec<u8>> = |v| v.hash.map(|h| h.to_vec());
    let values: fn(&TextVector) -> Option<Vec<u8>> = |v| v.values.as_deref().map(f16_bytes);
    let columns = vec![
        lists(16, |r| &r.short, hash)?,
        lists(16, |r| &r.long, hash)?,
        single(16, hash)?,
        lists(width, |r| &r.short, values)?,
        lists(width, |r| &r.long, values)?,
        single(width, values)?,
    ];
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn append(column: &mut FixedSizeBinaryBuilder, bytes: Option<Vec<u8>>) -> Result<(), arrow_schema::ArrowError> {
    match bytes {
        Some(bytes) => column.append_value(bytes),
        None => {
            column.append_null();
            Ok(())
        }
    }
}

/// The vectors file beside `data`, if it is there: its footer is read, its version not yet held against the data.
pub(crate) async fn find(access: &Access, key: &str, data: &FileIndex) -> Result<Option<ShardFile>, ShardError> {
    let location = &access.location;
    let path = vectors_path(key, &data.path);
    let meta = match location.store().head(&location.path(&path)).await {
        Ok(meta) => meta,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(source) => return Err(ShardError::store(location.url_of(&path), "read", source)),
    };
    let file = FileIndex { path, size: meta.size, etag: meta.e_tag, content: None, row_groups: Vec::new() };
    let opened = ShardFile::open(access, &file).await?;
    check_version(&opened)?;
    Ok(Some(opened))
}

/// Whether a vectors file was made for this version of `data`.
pub(crate) fn is_current(file: &ShardFile, data: &FileIndex) -> bool {
    file.key(DATA_KEY) == Some(data.version()) && file.footer().num_row_groups() == data.row_groups.len()
}

/// The vectors file beside `data`, made for this version of it.
pub(crate) async fn open(access: &Access, key: &str, data: &FileIndex) -> Result<ShardFile, ShardError> {
    let file = find(access, key, data).await?.ok_or_else(|| ShardError::NoVectors {
        url: access.location.url().into(),
        key: key.into(),
        file: data.path.clone(),
    })?;
    if is_current(&file, data) {
        return Ok(file);
    }
    Err(ShardError::VectorsStale { file: vectors_path(key, &data.path), data: data.path.clone() })
}

/// Whether a leaf is read, with `hashes` or without.
pub(crate) fn is_read(leaf: &str, hashes: bool) -> bool {
    hashes || !leaf.ends_with("_hash")
}

/// Vectors of `rows` (ascending; all if `None`) of one row group of the vectors beside `path`. Hashes are fetched for the
/// whole row group, so only who looks at them should read them.
pub(crate) async fn read(
    file: &ShardFile,
    path: &str,
    row_group: u32,
    rows: Option<&[u32]>,
    hashes: bool,
) -> Result<Vec<RowVectors>, ShardError> {
    Ok(found(file, path, row_group, rows, hashes).await?.into_iter().map(|(vectors, _)| vectors).collect())
}

/// As [`read`], with the row of the data that each row says it is of.
pub(crate) async fn found(
    file: &ShardFile,
    path: &str,
    row_group: u32,
    rows: Option<&[u32]>,
    hashes: bool,
) -> Result<Vec<(RowVectors, Origin)>, ShardError> {
    let path = path.to_owned();
    let decode = move |batches: Vec<RecordBatch>, origins: Vec<Origin>| {
        let mut out = Vec::new();
        for batch in batches {
            let list = |name: &str| Texts::list(&batch, name, hashes).ok_or_else(|| missing(&path, name));
            let (short, long) = (list("short")?, list("long")?);
            let image = Texts::single(&batch, "image", hashes).ok_or_else(|| missing(&path, "image"))?;
            for i in 0..batch.num_rows() {
                let one = image.get(i..i + 1).pop().unwrap_or_default();
                out.push(RowVectors { short: short.row(i), long: long.row(i), image: one });
            }
        }
        Ok(out.into_iter().zip(origins).collect())
    };
    file.read(row_group, rows, |leaf| is_read(leaf, hashes), decode).await
}

fn missing(path: &str, name: &str) -> ShardError {
    ShardError::MissingColumn { file: path.into(), column: format!("{name} and {name}_hash of the vectors") }
}

/// Values of one kind of text, and its hashes where they were read.
struct Texts<'a> {
    lists: Option<&'a ListArray>,
    hashes: Option<&'a FixedSizeBinaryArray>,
    values: &'a FixedSizeBinaryArray,
}

impl<'a> Texts<'a> {
    /// `None` where a column that was read is not there, or is of another type.
    fn single(batch: &'a RecordBatch, name: &str, hashes: bool) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name)?.as_any().downcast_ref::<FixedSizeBinaryArray>();
        let hashes = if hashes { Some(column(&format!("{name}_hash"))?) } else { None };
        Some(Self { lists: None, hashes, values: column(name)? })
    }

    fn list(batch: &'a RecordBatch, name: &str, hashes: bool) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name)?.as_any().downcast_ref::<ListArray>();
        let of = |list: &'a ListArray| list.values().as_any().downcast_ref::<FixedSizeBinaryArray>();
        let values = column(name)?;
        let hashes = if hashes {
            let hashes = column(&format!("{name}_hash"))?;
            (hashes.value_offsets() == values.value_offsets()).then_some(())?;
            Some(of(hashes)?)
        } else {
            None
        };
        Some(Self { lists: Some(values), hashes, values: of(values)? })
    }

    fn row(&self, i: usize) -> Vec<TextVector> {
        let Some(offsets) = self.lists.map(ListArray::value_offsets) else { return Vec::new() };
        self.get(offsets[i] as usize..offsets[i + 1] as usize)
    }

    fn get(&self, range: std::ops::Range<usize>) -> Vec<TextVector> {
        let of = |column: &'a FixedSizeBinaryArray, i: usize| column.is_valid(i).then(|| column.value(i));
        range
            .map(|i| TextVector {
                hash: self.hashes.and_then(|hashes| of(hashes, i)).and_then(|h| h.try_into().ok()),
                values: of(self.values, i).and_then(f16_values),
            })
            .collect()
    }
}
