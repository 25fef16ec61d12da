//! Whether a row group can hold a row that a condition holds of, by the statistics in the footer alone.
//!
//! `may` is true unless the statistics rule it out; `must` is false unless they say that every row and region is so. The two
//! meet in `not`. Of floats nothing must be: their statistics are silent about NaN (parquet-format, `ColumnOrder`).

use super::field::{Field, FieldValue};
use super::parse::{Expr, Node, Operand, Relation};
use crate::schema::leaf_name;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

/// What is known of a row group.
pub(crate) struct Known<'a> {
    pub(crate) group: &'a RowGroupMetaData,
    /// Rows without regions may be kept, so that what is said of regions rules no row out.
    pub(crate) keep_empty: bool,
}

/// Least and greatest value of a column.
struct Bounds {
    least: Bound,
    greatest: Bound,
    /// Whether nothing lies outside them, null or NaN.
    complete: bool,
}

enum Bound {
    Number(f32),
    Text(Vec<u8>),
    Truth(bool),
}

/// What the statistics of a column say.
enum Column {
    Unknown,
    /// Every value is null.
    Nulls,
    Bounds(Bounds),
}

/// Whether `node` may hold of some row of the group, or of a region in it.
pub(crate) fn may(node: &Node, known: &Known<'_>) -> bool {
    match &node.expr {
        Expr::All(nodes) => nodes.iter().all(|node| may(node, known)),
        Expr::Any(nodes) => nodes.iter().any(|node| may(node, known)),
        Expr::Not(inner) => !must(inner, known),
        Expr::Compare(left, relation, right) => match sided(left, *relation, right) {
            Some((field, relation, value)) => known.may_compare(field, relation, value),
            None => true,
        },
        Expr::In(Operand::Field(field), values) => values
            .iter()
            .any(|value| literal(value).is_none_or(|value| known.may_compare(*field, Relation::Equal, value))),
        Expr::In(_, _) => true,
        Expr::Has(field) => !matches!(known.column(*field), Column::Nulls),
        Expr::Is(Operand::Field(field)) => known.may_compare(*field, Relation::Equal, FieldValue::Truth(true)),
        Expr::Is(_) => true,
    }
}

/// Whether `node` holds of every row of the group and every region.
fn must(node: &Node, known: &Known<'_>) -> bool {
    match &node.expr {
        Expr::All(nodes) => nodes.iter().all(|node| must(node, known)),
        Expr::Any(nodes) => nodes.iter().any(|node| must(node, known)),
        Expr::Not(inner) => !may(inner, known),
        Expr::Compare(left, relation, right) => {
            sided(left, *relation, right).is_some_and(|(field, relation, value)| {
                matches!(known.column(field), Column::Bounds(bounds) if bounds.must(relation, value))
            })
        }
        Expr::Has(field) => matches!(known.column(*field), Column::Bounds(Bounds { complete: true, .. })),
        Expr::In(_, _) | Expr::Is(_) => false,
    }
}

/// A comparison with its field on the left, where one side is a field and the other is not.
fn sided<'o>(left: &'o Operand, relation: Relation, right: &'o Operand) -> Option<(Field, Relation, FieldValue<'o>)> {
    if let (Operand::Field(field), Some(value)) = (left, literal(right)) {
        return Some((*field, relation, value));
    }
    if let (Some(value), Operand::Field(field)) = (literal(left), right) {
        return Some((*field, relation.turned(), value));
    }
    None
}

fn literal(operand: &Operand) -> Option<FieldValue<'_>> {
    match operand {
        Operand::Field(_) => None,
        Operand::Number(n) => Some(FieldValue::Number(*n)),
        Operand::Text(text) => Some(FieldValue::Text(text)),
        Operand::Truth(truth) => Some(FieldValue::Truth(*truth)),
    }
}

impl Known<'_> {
    fn may_compare(&self, field: Field, relation: Relation, value: FieldValue<'_>) -> bool {
        match self.column(field) {
            Column::Unknown => true,
            // A comparison with what is not there is false.
            Column::Nulls => false,
            Column::Bounds(bounds) => bounds.may(relation, value),
        }
    }

    fn column(&self, field: Field) -> Column {
        if self.keep_empty && field.is_of_region() {
            return Column::Unknown;
        }
        let leaf = field.leaf();
        let found = leaf.and_then(|leaf| {
            self.group.columns().iter().find(|column| leaf_name(column.column_path().parts()) == leaf)
        });
        match (leaf, found) {
            // A column that the file does not have is null in every row.
            (Some(_), None) => Column::Nulls,
            (Some(_), Some(column)) => column.statistics().map_or(Column::Unknown, |statistics| {
                let nulls = statistics.null_count_opt();
                if nulls.is_some_and(|nulls| i64::try_from(nulls) == Ok(column.num_values())) {
                    return Column::Nulls;
                }
                bounds(statistics, nulls == Some(0)).map_or(Column::Unknown, Column::Bounds)
            }),
            (None, _) => Column::Unknown,
        }
    }
}

fn bounds(statistics: &Statistics, no_nulls: bool) -> Option<Bounds> {
    let of = |least, greatest, complete| Some(Bounds { least, greatest, complete });
    let number = |n: f32| (!n.is_nan()).then_some(Bound::Number(n));
    match statistics {
        Statistics::Boolean(v) => of(Bound::Truth(*v.min_opt()?), Bound::Truth(*v.max_opt()?), no_nulls),
        Statistics::Int32(v) => of(number(*v.min_opt()? as f32)?, number(*v.max_opt()? as f32)?, no_nulls),
        Statistics::Int64(v) => of(number(*v.min_opt()? as f32)?, number(*v.max_opt()? as f32)?, no_nulls),
        Statistics::Float(v) => of(number(*v.min_opt()?)?, number(*v.max_opt()?)?, false),
        // As the reader rounds them, which keeps their order.
        Statistics::Double(v) => of(number(*v.min_opt()? as f32)?, number(*v.max_opt()? as f32)?, false),
        // The order of the oldest statistics of texts is not that of their bytes.
        Statistics::ByteArray(v) if !statistics.is_min_max_deprecated() => {
            let (least, greatest) = (v.min_opt()?.data().to_vec(), v.max_opt()?.data().to_vec());
            // An empty text counts as none in some fields.
            let complete = no_nulls && !least.is_empty();
            of(Bound::Text(least), Bound::Text(greatest), complete)
        }
        _ => None,
    }
}

impl Bounds {
    /// How `value` lies to the least and to the greatest.
    fn place(&self, value: FieldValue<'_>) -> Option<(std::cmp::Ordering, std::cmp::Ordering)> {
        let to = |bound: &Bound| match (bound, value) {
            (Bound::Number(bound), FieldValue::Number(value)) => value.partial_cmp(bound),
            (Bound::Text(bound), FieldValue::Text(value)) => Some(value.as_bytes().cmp(bound)),
            (Bound::Truth(bound), FieldValue::Truth(value)) => Some(value.cmp(bound)),
            (Bound::Number(_) | Bound::Text(_) | Bound::Truth(_), _) => None,
        };
        to(&self.least).zip(to(&self.greatest))
    }

    fn may(&self, relation: Relation, value: FieldValue<'_>) -> bool {
        let Some((least, greatest)) = self.place(value) else { return true };
        match relation {
            // Some value is below `value` if the least is.
            Relation::Less => least.is_gt(),
            Relation::AtMost => least.is_ge(),
            Relation::More => greatest.is_lt(),
            Relation::AtLeast => greatest.is_le(),
            Relation::Equal => least.is_ge() && greatest.is_le(),
            // Bounds of texts may be cut, so that equal ones do not say that there is one value.
            Relation::Unequal => {
                matches!(self.least, Bound::Text(_)) || !self.complete || !(least.is_eq() && greatest.is_eq())
            }
        }
    }

    fn must(&self, relation: Relation, value: FieldValue<'_>) -> bool {
        let Some((least, greatest)) = self.place(value).filter(|_| self.complete) else { return false };
        match relation {
            Relation::Less => greatest.is_gt(),
            Relation::AtMost => greatest.is_ge(),
            Relation::More => least.is_lt(),
            Relation::AtLeast => least.is_le(),
            Relation::Equal => !matches!(self.least, Bound::Text(_)) && least.is_eq() && greatest.is_eq(),
            Relation::Unequal => least.is_lt() || greatest.is_gt(),
        }
    }
}
