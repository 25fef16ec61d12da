//! Rows -> Arrow columns of the schema.

use crate::row::{ImageRow, Region};
use crate::schema::{image_fields, region_fields, schema};
use arrow_array::builder::{
    BinaryBuilder, FixedSizeBinaryBuilder, Float32Builder, Int32Builder, ListBuilder, StringBuilder,
};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field};
use half::f16;
use std::sync::Arc;

/// The rows as one batch of [`schema`].
pub(crate) fn batch(rows: &[ImageRow]) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.image_id))),
        Arc::new(rows.iter().map(|r| (!r.source.is_empty()).then_some(&r.source)).collect::<StringArray>()),
        side(rows, |r| r.width),
        side(rows, |r| r.height),
        texts(rows, |r| r.lang.as_deref()),
        texts(rows, |r| r.caption_long.as_deref()),
        texts(rows, |r| r.caption_short.as_deref()),
        lists(rows.iter().map(|r| r.captions.as_slice())),
        Arc::new(rows.iter().map(|r| r.clip_sim_b32).collect::<Float32Array>()),
        Arc::new(rows.iter().map(|r| r.clip_sim_l14).collect::<Float32Array>()),
        regions(rows)?,
        vectors(rows.iter().map(|r| r.caption_long_emb.as_deref())),
        vectors(rows.iter().map(|r| r.caption_short_emb.as_deref())),
        texts(rows, |r| r.provenance.as_deref()),
        images(rows)?,
    ];
    RecordBatch::try_new(schema(), columns)
}

/// f16 values, little-endian.
pub(crate) fn f16_bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()
}

fn side(rows: &[ImageRow], get: impl Fn(&ImageRow) -> u32) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| i32::try_from(get(r)).unwrap_or(i32::MAX))))
}

fn texts<'a, T>(of: impl IntoIterator<Item = &'a T>, get: impl Fn(&'a T) -> Option<&'a str>) -> ArrayRef
where
    T: 'a,
{
    Arc::new(of.into_iter().map(get).collect::<StringArray>())
}

/// A list of texts for each item.
fn lists<'a>(of: impl Iterator<Item = &'a [String]>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(element(DataType::Utf8));
    for texts in of {
        builder.append_value(texts.iter().map(Some));
    }
    Arc::new(builder.finish())
}

fn vectors<'a>(of: impl Iterator<Item = Option<&'a [f32]>>) -> ArrayRef {
    Arc::new(of.map(|v| v.map(f16_bytes)).collect::<BinaryArray>())
}

fn images(rows: &[ImageRow]) -> Result<ArrayRef, ArrowError> {
    let mut hashes = FixedSizeBinaryBuilder::new(32);
    let mut bytes = BinaryBuilder::new();
    for row in rows {
        match &row.image.sha256 {
            Some(hash) => hashes.append_value(hash)?,
            None => hashes.append_null(),
        }
        bytes.append_option(row.image.bytes.as_deref());
    }
    let columns: Vec<ArrayRef> = vec![
        texts(rows, |r| r.image.path.as_deref()),
        texts(rows, |r| r.image.url.as_deref()),
        Arc::new(hashes.finish()),
        Arc::new(bytes.finish()),
    ];
    Ok(Arc::new(StructArray::try_new(image_fields(), columns, None)?))
}

fn regions(rows: &[ImageRow]) -> Result<ArrayRef, ArrowError> {
    let all: Vec<&Region> = rows.iter().flat_map(|r| &r.regions).collect();
    let text = |get: fn(&Region) -> Option<&str>| -> ArrayRef {
        Arc::new(all.iter().map(|r| get(r)).collect::<StringArray>())
    };
    let mut boxes = ListBuilder::new(Float32Builder::new()).with_field(element(DataType::Float32));
    let mut spans = ListBuilder::new(Int32Builder::new()).with_field(element(DataType::Int32));
    let mut sizes = ListBuilder::new(Int32Builder::new()).with_field(element(DataType::Int32));
    let mut kinds = ListBuilder::new(StringBuilder::new()).with_field(element(DataType::Utf8));
    let mut masks = BinaryBuilder::new();
    for region in &all {
        boxes.append_value(region.bbox.map(Some));
        spans.append_option(region.span.map(|s| s.map(Some)));
        let size = region.mask.as_ref().map(|m| [m.height, m.width]);
        sizes.append_option(size.map(|s| s.map(|n| Some(i32::try_from(n).unwrap_or(i32::MAX)))));
        masks.append_option(region.mask.as_ref().map(|m| m.to_coco_string()));
        kinds.append_value(region.hard_neg_kinds.iter().map(|k| Some(k.name())));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(boxes.finish()),
        Arc::new(all.iter().map(|r| r.score).collect::<Float32Array>()),
        Arc::new(spans.finish()),
        Arc::new(masks.finish()),
        Arc::new(sizes.finish()),
        text(|r| r.category.as_deref()),
        text(|r| r.caption_object.as_deref()),
        text(|r| r.caption_context.as_deref()),
        text(|r| r.caption_merged.as_deref()),
        Arc::new(all.iter().map(|r| r.check_ok).collect::<BooleanArray>()),
        text(|r| r.short_expr.as_deref()),
        text(|r| r.long_expr.as_deref()),
        lists(all.iter().map(|r| r.expressions.as_slice())),
        lists(all.iter().map(|r| r.hard_negs.as_slice())),
        Arc::new(kinds.finish()),
        vectors(all.iter().map(|r| r.text_emb.as_deref())),
    ];
    let values = StructArray::try_new_with_length(region_fields(), columns, None, all.len())?;
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|r| r.regions.len()));
    Ok(Arc::new(ListArray::try_new(element(DataType::Struct(region_fields())), offsets, Arc::new(values), None)?))
}

fn element(of: DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(of, false))
}
