//! Arrow columns of a shard -> rows. A bad row is a row with faults, never a bad batch.

use crate::adopt;
use crate::error::{FieldFault, ShardError};
use crate::hard_neg::HardNegKind;
use crate::pixels::rle::Rle;
use crate::row::{ImageRow, ImageSource, Region, Whence};
use crate::schema::Columns;
use arrow_array::{
    Array, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float32Array, Int32Array, ListArray, RecordBatch,
    StringArray, StructArray,
};
use bytes::Bytes;
use half::f16;
use pixfleet_cluster::evidence::{Origin, Origins};
use std::sync::Arc;

/// A row as it was read, and what is wrong with it by field.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    /// The row; fields at fault are empty.
    pub(crate) row: ImageRow,
    /// Broken rules.
    pub(crate) faults: Vec<(String, Arc<FieldFault>)>,
}

type RowFaults = Vec<(String, FieldFault)>;

/// A box that breaks no further rule, where one fault is enough.
const WHOLE: [f32; 4] = [0.0, 0.0, 1.0, 1.0];

/// Characters of an unknown name that a message shows.
const SHOWN: usize = 40;

/// The rows of a batch. Columns that were not read stay empty.
pub(crate) fn rows(file: &str, batch: RecordBatch, columns: Columns) -> Result<Vec<Decoded>, ShardError> {
    let table = adopt::canonical(StructArray::from(batch));
    let at = At { file, parent: "", table: &table };
    let top = Top::new(&at)?;
    let regions = match at.get::<ListArray>("regions")? {
        Some(list) => Some((list, RegionColumns::new(file, list)?)),
        None => None,
    };
    Ok((0..table.len())
        .map(|i| {
            let mut faults = Vec::new();
            let mut row = top.row(i, &mut faults);
            if let Some((list, columns)) = &regions {
                if list.is_null(i) {
                    faults.push(("regions".into(), FieldFault::Null { write: "write an empty list for no regions" }));
                }
                let range = list.value_offsets()[i] as usize..list.value_offsets()[i + 1] as usize;
                row.regions = range.enumerate().map(|(n, at)| columns.region(at, n, &mut faults)).collect();
            }
            let own = row.faults().into_iter();
            faults.extend(own.filter(|(field, _)| columns.geometry || !field.ends_with(".bbox")));
            Decoded { row, faults: faults.into_iter().map(|(f, e)| (f, Arc::new(e))).collect() }
        })
        .collect())
}

/// What [`rows`] makes of all batches of a read.
pub(crate) fn all_rows(
    file: &str,
    columns: Columns,
) -> impl FnOnce(Vec<RecordBatch>, Vec<Origin>) -> Result<Vec<Decoded>, ShardError> + Send + use<> {
    let file = file.to_owned();
    move |batches, origins| {
        let mut all = Vec::new();
        for batch in batches {
            all.extend(rows(&file, batch, columns)?);
        }
        for (decoded, origin) in all.iter_mut().zip(origins) {
            decoded.row.whence = Whence(Some(Origins::of(origin)));
        }
        Ok(all)
    }
}

/// f16 values, little-endian; `None` for an odd number of bytes.
pub(crate) fn f16_values(bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = bytes.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
}

/// Columns of one struct, by name.
struct At<'a> {
    file: &'a str,
    parent: &'a str,
    table: &'a StructArray,
}

impl<'a> At<'a> {
    /// The column `name`, if it was read.
    fn get<T: Array + 'static>(&self, name: &str) -> Result<Option<&'a T>, ShardError> {
        let Some(column) = self.table.column_by_name(name) else { return Ok(None) };
        let typed = column.as_any().downcast_ref::<T>().ok_or_else(|| ShardError::ColumnType {
            file: self.file.into(),
            column: format!("{}{name}", self.parent),
            expected: std::any::type_name::<T>()
                .rsplit("::")
                .next()
                .unwrap_or_default()
                .trim_end_matches("Array>")
                .into(),
            found: column.data_type().to_string(),
        })?;
        Ok(Some(typed))
    }
}

fn text(column: Option<&StringArray>, i: usize) -> Option<String> {
    column.filter(|c| c.is_valid(i)).map(|c| c.value(i).to_owned())
}

fn float(column: Option<&Float32Array>, i: usize) -> Option<f32> {
    column.filter(|c| c.is_valid(i)).map(|c| c.value(i))
}

fn vector(
    column: Option<&BinaryArray>,
    i: usize,
    name: impl FnOnce() -> String,
    faults: &mut RowFaults,
) -> Option<Vec<f32>> {
    let bytes = column.filter(|c| c.is_valid(i))?.value(i);
    let values = f16_values(bytes);
    if values.is_none() {
        faults.push((name(), FieldFault::VectorBytes { bytes: bytes.len() }));
    }
    values
}

/// Columns of the row itself.
struct Top<'a> {
    image_id: Option<&'a StringArray>,
    source: Option<&'a StringArray>,
    width: Option<&'a Int32Array>,
    height: Option<&'a Int32Array>,
    lang: Option<&'a StringArray>,
    caption_long: Option<&'a StringArray>,
    caption_short: Option<&'a StringArray>,
    captions: Option<&'a ListArray>,
    clip_sim_b32: Option<&'a Float32Array>,
    clip_sim_l14: Option<&'a Float32Array>,
    caption_long_emb: Option<&'a BinaryArray>,
    caption_short_emb: Option<&'a BinaryArray>,
    provenance: Option<&'a StringArray>,
    path: Option<&'a StringArray>,
    url: Option<&'a StringArray>,
    sha256: Option<Hashes<'a>>,
    bytes: Option<&'a BinaryArray>,
}

impl<'a> Top<'a> {
    fn new(at: &At<'a>) -> Result<Self, ShardError> {
        let image = at.get::<StructArray>("image")?;
        let image = image.map(|table| At { file: at.file, parent: "image.", table });
        Ok(Self {
            image_id: at.get("image_id")?,
            source: at.get("source")?,
            width: at.get("width")?,
            height: at.get("height")?,
            lang: at.get("lang")?,
            caption_long: at.get("caption_long")?,
            caption_short: at.get("caption_short")?,
            captions: at.get("captions")?,
            clip_sim_b32: at.get("clip_sim_b32")?,
            clip_sim_l14: at.get("clip_sim_l14")?,
            caption_long_emb: at.get("caption_long_emb")?,
            caption_short_emb: at.get("caption_short_emb")?,
            provenance: at.get("provenance")?,
            path: image.as_ref().map_or(Ok(None), |i| i.get("path"))?,
            url: image.as_ref().map_or(Ok(None), |i| i.get("url"))?,
            sha256: image.as_ref().map_or(Ok(None), Hashes::new)?,
            bytes: image.as_ref().map_or(Ok(None), |i| i.get("bytes"))?,
        })
    }

    fn row(&self, i: usize, faults: &mut RowFaults) -> ImageRow {
        let mut side = |field: &str, column: Option<&Int32Array>| match column {
            Some(column) if column.is_null(i) => {
                faults.push((field.into(), FieldFault::Null { write: "write the picture's size in pixels" }));
                // A side that breaks no further rule: one fault is enough.
                1
            }
            column => column.map_or(0, |c| u32::try_from(c.value(i)).unwrap_or(0)),
        };
        let (width, height) = (side("width", self.width), side("height", self.height));
        let hash = self.sha256.as_ref().and_then(|hashes| hashes.get(i)).and_then(|bytes| {
            let hash = bytes.try_into().ok();
            if hash.is_none() {
                faults.push(("image.sha256".into(), FieldFault::HashBytes { found: bytes.len() }));
            }
            hash
        });
        ImageRow {
            image_id: text(self.image_id, i).unwrap_or_default(),
            source: text(self.source, i).unwrap_or_default(),
            image: ImageSource {
                bytes: self.bytes.filter(|c| c.is_valid(i)).map(|c| Bytes::copy_from_slice(c.value(i))),
                path: text(self.path, i),
                url: text(self.url, i),
                sha256: hash,
            },
            width,
            height,
            lang: text(self.lang, i),
            caption_long: text(self.caption_long, i),
            caption_short: text(self.caption_short, i),
            captions: self.captions.map(|c| texts(c, i)).unwrap_or_default(),
            caption_long_emb: vector(self.caption_long_emb, i, || "caption_long_emb".into(), faults),
            caption_short_emb: vector(self.caption_short_emb, i, || "caption_short_emb".into(), faults),
            provenance: text(self.provenance, i),
            clip_sim_b32: float(self.clip_sim_b32, i),
            clip_sim_l14: float(self.clip_sim_l14, i),
            regions: Vec::new(),
            image_vector: None,
            whence: Whence::default(),
        }
    }
}

/// Hashes of pictures, in a column of their length or of any.
enum Hashes<'a> {
    Fixed(&'a FixedSizeBinaryArray),
    Free(&'a BinaryArray),
}

impl<'a> Hashes<'a> {
    fn new(image: &At<'a>) -> Result<Option<Self>, ShardError> {
        if let Ok(found) = image.get("sha256") {
            return Ok(found.map(Self::Fixed));
        }
        Ok(image.get("sha256")?.map(Self::Free))
    }

    fn get(&self, i: usize) -> Option<&'a [u8]> {
        match self {
            Self::Fixed(column) => column.is_valid(i).then(|| column.value(i)),
            Self::Free(column) => column.is_valid(i).then(|| column.value(i)),
        }
    }
}

/// Columns of the regions of all rows.
struct RegionColumns<'a> {
    table: &'a StructArray,
    bbox: Option<&'a ListArray>,
    score: Option<&'a Float32Array>,
    span: Option<&'a ListArray>,
    mask_rle: Option<&'a BinaryArray>,
    mask_size: Option<&'a ListArray>,
    category: Option<&'a StringArray>,
    caption_object: Option<&'a StringArray>,
    caption_context: Option<&'a StringArray>,
    caption_merged: Option<&'a StringArray>,
    check_ok: Option<&'a BooleanArray>,
    short_expr: Option<&'a StringArray>,
    long_expr: Option<&'a StringArray>,
    expressions: Option<&'a ListArray>,
    hard_negs: Option<&'a ListArray>,
    hard_neg_kinds: Option<&'a ListArray>,
    text_emb: Option<&'a BinaryArray>,
}

impl<'a> RegionColumns<'a> {
    fn new(file: &'a str, list: &'a ListArray) -> Result<Self, ShardError> {
        let table = list.values().as_any().downcast_ref::<StructArray>().ok_or_else(|| ShardError::ColumnType {
            file: file.into(),
            column: "regions".into(),
            expected: "a list of structs".into(),
            found: list.data_type().to_string(),
        })?;
        let at = At { file, parent: "regions.", table };
        Ok(Self {
            table,
            bbox: at.get("bbox")?,
            score: at.get("score")?,
            span: at.get("span")?,
            mask_rle: at.get("mask_rle")?,
            mask_size: at.get("mask_size")?,
            category: at.get("category")?,
            caption_object: at.get("caption_object")?,
            caption_context: at.get("caption_context")?,
            caption_merged: at.get("caption_merged")?,
            check_ok: at.get("check_ok")?,
            short_expr: at.get("short_expr")?,
            long_expr: at.get("long_expr")?,
            expressions: at.get("expressions")?,
            hard_negs: at.get("hard_negs")?,
            hard_neg_kinds: at.get("hard_neg_kinds")?,
            text_emb: at.get("text_emb")?,
        })
    }

    /// Region `n` of its row, at `i` in the columns.
    fn region(&self, i: usize, n: usize, faults: &mut RowFaults) -> Region {
        if self.table.is_null(i) {
            faults.push((format!("regions[{n}]"), FieldFault::Null { write: "leave the region out of the list" }));
            return Region { bbox: WHOLE, ..Region::default() };
        }
        let name = |field: &str| format!("regions[{n}].{field}");
        let bbox = self.bbox.map(|c| numbers::<Float32Array, 4, f32>(c, i, Float32Array::value));
        let bbox = bbox.map(|found| {
            found.unwrap_or_else(|fault| {
                faults.push((name("bbox"), fault));
                WHOLE
            })
        });
        let mut pair = |field: &str, column: Option<&ListArray>| {
            let column = column.filter(|c| c.is_valid(i))?;
            match numbers::<Int32Array, 2, i32>(column, i, Int32Array::value) {
                Ok(pair) => Some(pair),
                Err(fault) => {
                    faults.push((name(field), fault));
                    None
                }
            }
        };
        let (span, size) = (pair("span", self.span), pair("mask_size", self.mask_size));
        let mask = self.mask(i, size).unwrap_or_else(|fault| {
            faults.push((name("mask_rle"), fault));
            None
        });
        Region {
            bbox: bbox.unwrap_or_default(),
            score: float(self.score, i),
            span,
            mask,
            category: text(self.category, i),
            caption_object: text(self.caption_object, i),
            caption_context: text(self.caption_context, i),
            caption_merged: text(self.caption_merged, i),
            check_ok: self.check_ok.filter(|c| c.is_valid(i)).map(|c| c.value(i)),
            short_expr: text(self.short_expr, i),
            long_expr: text(self.long_expr, i),
            expressions: self.expressions.map(|c| texts(c, i)).unwrap_or_default(),
            hard_negs: self.hard_negs.map(|c| texts(c, i)).unwrap_or_default(),
            hard_neg_kinds: self.kinds(i, name, faults),
            text_emb: vector(self.text_emb, i, || name("text_emb"), faults),
            short_vector: None,
            long_vector: None,
        }
    }

    /// The kinds of the hard negatives; none of them where one is not known.
    fn kinds(&self, i: usize, name: impl Fn(&str) -> String, faults: &mut RowFaults) -> Vec<HardNegKind> {
        let found = self.hard_neg_kinds.map(|c| texts(c, i)).unwrap_or_default();
        let kinds: Vec<Option<HardNegKind>> = found.iter().map(|text| HardNegKind::parse(text)).collect();
        match kinds.iter().position(Option::is_none) {
            Some(at) => {
                let start = found[at].chars().take(SHOWN).collect();
                faults.push((name(&format!("hard_neg_kinds[{at}]")), FieldFault::Kind { found: start }));
                Vec::new()
            }
            None => kinds.into_iter().flatten().collect(),
        }
    }

    fn mask(&self, i: usize, size: Option<[i32; 2]>) -> Result<Option<Rle>, FieldFault> {
        let counts = self.mask_rle.filter(|c| c.is_valid(i)).map(|c| c.value(i));
        let (Some(counts), Some(size)) = (counts, size) else {
            return if counts.is_some() == size.is_some() { Ok(None) } else { Err(FieldFault::MaskSize) };
        };
        let [height, width] = size.map(|side| u32::try_from(side).unwrap_or(0));
        Rle::from_coco_string(counts, height, width).map(Some).map_err(FieldFault::Mask)
    }
}

/// The `N` numbers of list `i`.
fn numbers<A: Array + 'static, const N: usize, T: Copy + Default>(
    list: &ListArray,
    i: usize,
    get: fn(&A, usize) -> T,
) -> Result<[T; N], FieldFault> {
    if list.is_null(i) {
        return Err(FieldFault::Null { write: "write its numbers" });
    }
    let range = list.value_offsets()[i] as usize..list.value_offsets()[i + 1] as usize;
    let count = FieldFault::Count { found: range.len(), expected: N };
    let values = list.values().as_any().downcast_ref::<A>().filter(|_| range.len() == N).ok_or(count)?;
    if let Some(index) = range.clone().position(|at| values.is_null(at)) {
        return Err(FieldFault::NullNumber { index, expected: N });
    }
    let mut out = [T::default(); N];
    for (o, at) in out.iter_mut().zip(range) {
        *o = get(values, at);
    }
    Ok(out)
}

fn texts(list: &ListArray, i: usize) -> Vec<String> {
    let range = list.value_offsets()[i] as usize..list.value_offsets()[i + 1] as usize;
    let Some(values) = list.values().as_any().downcast_ref::<StringArray>() else { return Vec::new() };
    range.filter(|&at| values.is_valid(at)).map(|at| values.value(at).to_owned()).collect()
}
