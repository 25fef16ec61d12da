//! Files of other programs (pyarrow, DuckDB, polars, Spark) in our schema: which of their types stand for ours, and their
//! columns as ours. What they may write is described in docs/format.md.
//!
//! Readers skip the Arrow schema that a writer may leave in the footer, so of Arrow's many types for one thing (large,
//! view, dictionary, lists of fixed length) only what Parquet itself tells apart comes in here.

use crate::schema::schema;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, ListArray, PrimitiveArray, StringArray, StructArray};
use arrow_schema::{DataType, Field, FieldRef};
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::schema::types::ColumnDescriptor;
use std::sync::Arc;

/// What a leaf is called that lies where the struct `image` should be.
pub(crate) const NO_STRUCT: &str = "image";

/// What is expected of the leaf `name` and what was found, where `column` cannot stand for it.
pub(crate) fn misfit(name: &str, expected: Physical, column: &ColumnDescriptor) -> Option<(String, String)> {
    let found = column.physical_type();
    let plain = matches!(column.logical_type_ref(), None | Some(LogicalType::Integer { .. }))
        && column.converted_type() != ConvertedType::DECIMAL;
    let (fits, words) = match expected {
        Physical::INT32 => (matches!(found, Physical::INT32 | Physical::INT64) && plain, "INT32 or INT64"),
        Physical::FLOAT => (matches!(found, Physical::FLOAT | Physical::DOUBLE), "FLOAT or DOUBLE"),
        Physical::FIXED_LEN_BYTE_ARRAY => {
            let hash = found == Physical::FIXED_LEN_BYTE_ARRAY && column.type_length() == 32;
            (hash || found == Physical::BYTE_ARRAY, "FIXED_LEN_BYTE_ARRAY(32) or BYTE_ARRAY, of 32 bytes each")
        }
        Physical::BYTE_ARRAY => (found == expected, "BYTE_ARRAY (a string, or bytes)"),
        other => (found == other, "BOOLEAN"),
    };
    if !fits {
        let logical = column.logical_type_ref().filter(|_| !plain).map(|l| format!(" ({l:?})")).unwrap_or_default();
        return Some((words.into(), format!("{found}{logical}")));
    }
    let lists = lists(name)?;
    let shape = |lists| match lists {
        0 => "a single value".to_owned(),
        1 => "a list".to_owned(),
        n => format!("a list of lists, {n} deep"),
    };
    (column.max_rep_level() != lists).then(|| (shape(lists), shape(column.max_rep_level())))
}

/// How many lists the leaf `name` of the schema lies within.
fn lists(name: &str) -> Option<i16> {
    let mut lists = 0;
    let all = schema();
    let mut fields: Vec<&FieldRef> = all.fields().iter().collect();
    for part in name.split('.') {
        let mut of = fields.iter().find(|f| f.name() == part)?.data_type();
        while let DataType::List(inner) = of {
            (lists, of) = (lists + 1, inner.data_type());
        }
        fields = if let DataType::Struct(inner) = of { inner.iter().collect() } else { Vec::new() };
    }
    Some(lists)
}

/// The columns of `table` with the schema's types where another program's stand for them; others stay as they are.
pub(crate) fn canonical(table: StructArray) -> StructArray {
    let of = DataType::Struct(schema().fields().clone());
    let table: ArrayRef = Arc::new(table);
    // What is not another's is ours.
    convert(&table, &of).unwrap_or(table).as_struct().clone()
}

/// `array` as `wanted`; `None` where it is that already, or cannot be.
fn convert(array: &ArrayRef, wanted: &DataType) -> Option<ArrayRef> {
    match (array.data_type(), wanted) {
        (DataType::Struct(found), DataType::Struct(wanted)) => {
            let table = array.as_struct();
            let mut changed = false;
            let mut columns = Vec::with_capacity(found.len());
            for (field, column) in found.iter().zip(table.columns()) {
                let of = wanted.iter().find(|w| w.name() == field.name());
                let new = of.and_then(|of| convert(column, of.data_type()));
                changed |= new.is_some();
                let column = new.unwrap_or_else(|| Arc::clone(column));
                columns.push((retyped(field, &column), column));
            }
            let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = columns.into_iter().unzip();
            let same = || StructArray::try_new(fields.into(), columns, table.nulls().cloned()).ok();
            changed.then(same).flatten().map(|table| Arc::new(table) as ArrayRef)
        }
        (DataType::List(found), DataType::List(wanted)) => {
            let list = array.as_list::<i32>();
            let values = convert(list.values(), wanted.data_type())?;
            let field = retyped(found, &values);
            let list = ListArray::try_new(field, list.offsets().clone(), values, list.nulls().cloned());
            Some(Arc::new(list.ok()?))
        }
        (DataType::Float64, DataType::Float32) => {
            Some(Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float32Type>(|v| v as f32)))
        }
        (DataType::Utf8, DataType::Binary) => Some(Arc::new(BinaryArray::from(array.as_string::<i32>().clone()))),
        (DataType::Binary, DataType::Utf8) => {
            Some(Arc::new(StringArray::try_from_binary(array.as_binary::<i32>().clone()).ok()?))
        }
        (_, DataType::Int32) => whole(array),
        _ => None,
    }
}

fn retyped(field: &FieldRef, column: &ArrayRef) -> FieldRef {
    Arc::new(Field::new(field.name(), column.data_type().clone(), true))
}

/// Whole numbers of other widths; what does not fit becomes the largest or smallest that does, which breaks a rule of its
/// row there.
fn whole(array: &ArrayRef) -> Option<ArrayRef> {
    fn narrowed<T: ArrowPrimitiveType<Native: TryInto<i64>>>(array: &ArrayRef) -> Option<ArrayRef> {
        let values: &PrimitiveArray<T> = array.as_primitive_opt()?;
        let narrow = |v: T::Native| {
            let v: i64 = v.try_into().unwrap_or(i64::MAX);
            v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
        };
        Some(Arc::new(values.unary::<_, Int32Type>(narrow)))
    }
    narrowed::<Int64Type>(array)
        .or_else(|| narrowed::<UInt32Type>(array))
        .or_else(|| narrowed::<UInt64Type>(array))
        .or_else(|| narrowed::<Int16Type>(array))
        .or_else(|| narrowed::<UInt16Type>(array))
        .or_else(|| narrowed::<Int8Type>(array))
        .or_else(|| narrowed::<UInt8Type>(array))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Float64Array, Int64Array};

    #[test]
    fn lists_are_counted_by_the_schema() {
        assert_eq!(["width", "image.bytes", "regions.score", "regions.bbox"].map(lists), [0, 0, 1, 2].map(Some));
        assert_eq!(lists("regions.nothing"), None);
    }

    #[test]
    fn other_widths_become_ours_and_what_does_not_fit_stays_wrong() {
        let table = StructArray::from(vec![
            (
                Arc::new(Field::new("width", DataType::Int64, true)),
                Arc::new(Int64Array::from(vec![Some(7), None, Some(1 << 40), Some(-(1 << 40))])) as ArrayRef,
            ),
            (
                Arc::new(Field::new("clip_sim_l14", DataType::Float64, false)),
                Arc::new(Float64Array::from(vec![0.5; 4])) as ArrayRef,
            ),
            (Arc::new(Field::new("other", DataType::Int64, false)), Arc::new(Int64Array::from(vec![1; 4])) as ArrayRef),
        ]);
        let ours = canonical(table);
        let width = ours.column_by_name("width").expect("is there").as_primitive::<Int32Type>();
        assert_eq!(width.iter().collect::<Vec<_>>(), [Some(7), None, Some(i32::MAX), Some(i32::MIN)]);
        assert_eq!(ours.column_by_name("clip_sim_l14").map(|c| c.data_type().clone()), Some(DataType::Float32));
        assert_eq!(ours.column_by_name("other").map(|c| c.data_type().clone()), Some(DataType::Int64), "not ours");
    }

    #[test]
    fn text_without_a_note_that_it_is_text_is_text_if_it_can_be() {
        let bytes = |all: &[&[u8]]| Arc::new(BinaryArray::from_iter_values(all)) as ArrayRef;
        let text = convert(&bytes(&[b"a fox", b""]), &DataType::Utf8).expect("is text");
        assert_eq!(text.as_string::<i32>().value(0), "a fox");
        assert!(convert(&bytes(&[b"\xff"]), &DataType::Utf8).is_none());
    }
}
