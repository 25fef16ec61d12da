//! Whether a condition holds of a row and of its regions.
//!
//! A comparison with what is not there is false, so `not (score < 0.5)` holds of a region without a score. Where a region is
//! asked for and none is given, the answer is not known, and `and`, `or` and `not` go on from there as Kleene's logic does.

use super::field::{Field, FieldValue};
use super::parse::{Expr, Node, Operand, Relation};
use crate::row::{ImageRow, Region};
use crate::tokens::Tokenizer;
use std::cmp::Ordering;

/// What a condition is asked about.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) row: &'a ImageRow,
    /// `None`: of the row alone.
    pub(crate) region: Option<&'a Region>,
    /// Counts the tokens that a condition asks for.
    pub(crate) tokenizer: Option<&'a Tokenizer>,
}

/// A side of a comparison; `Err` where it depends on the region and there is none.
type Side<'a> = Result<Option<FieldValue<'a>>, ()>;

impl<'a> Subject<'a> {
    fn field(&self, field: Field) -> Side<'a> {
        match self.region {
            _ if !field.is_of_region() => Ok(field.of_row(self.row, self.tokenizer)),
            Some(region) => Ok(field.of_region(region, self.tokenizer)),
            None => Err(()),
        }
    }

    fn side(&self, operand: &'a Operand) -> Side<'a> {
        match operand {
            Operand::Field(field) => self.field(*field),
            Operand::Number(n) => Ok(Some(FieldValue::Number(*n))),
            Operand::Text(text) => Ok(Some(FieldValue::Text(text))),
            Operand::Truth(truth) => Ok(Some(FieldValue::Truth(*truth))),
        }
    }
}

/// Whether `node` holds; `None` where that depends on the region and there is none.
pub(crate) fn holds<'a>(node: &'a Node, of: &Subject<'a>) -> Option<bool> {
    match &node.expr {
        Expr::All(nodes) => list(nodes, of, false),
        Expr::Any(nodes) => list(nodes, of, true),
        Expr::Not(inner) => holds(inner, of).map(|holds| !holds),
        Expr::Compare(left, relation, right) => {
            let (left, right) = (of.side(left).ok()?, of.side(right).ok()?);
            Some(left.zip(right).is_some_and(|(left, right)| compares(left, *relation, right)))
        }
        Expr::In(left, values) => {
            let Some(left) = of.side(left).ok()? else { return Some(false) };
            let mut unknown = false;
            for value in values {
                match of.side(value) {
                    Ok(Some(value)) if compares(left, Relation::Equal, value) => return Some(true),
                    Ok(_) => {}
                    Err(()) => unknown = true,
                }
            }
            (!unknown).then_some(false)
        }
        Expr::Has(field) => Some(of.field(*field).ok()?.is_some()),
        Expr::Is(operand) => Some(of.side(operand).ok()? == Some(FieldValue::Truth(true))),
    }
}

/// One that is `decisive` decides, and otherwise one that is not known.
fn list<'a>(nodes: &'a [Node], of: &Subject<'a>, decisive: bool) -> Option<bool> {
    let mut all = Some(!decisive);
    for node in nodes {
        match holds(node, of) {
            Some(found) if found == decisive => return Some(decisive),
            Some(_) => {}
            None => all = None,
        }
    }
    all
}

fn compares(left: FieldValue<'_>, relation: Relation, right: FieldValue<'_>) -> bool {
    let order = match (left, right) {
        (FieldValue::Number(a), FieldValue::Number(b)) => a.partial_cmp(&b),
        (FieldValue::Text(a), FieldValue::Text(b)) => Some(a.cmp(b)),
        (FieldValue::Truth(a), FieldValue::Truth(b)) => Some(a.cmp(&b)),
        // The parser lets only equal kinds meet.
        (FieldValue::Number(_) | FieldValue::Text(_) | FieldValue::Truth(_), _) => None,
    };
    match relation {
        Relation::Less => order == Some(Ordering::Less),
        Relation::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Relation::More => order == Some(Ordering::Greater),
        Relation::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        Relation::Equal => order == Some(Ordering::Equal),
        Relation::Unequal => order != Some(Ordering::Equal),
    }
}
