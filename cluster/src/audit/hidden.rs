//! Stand-ins that nobody told of. A rank that is lost after a step takes along its word of which rows it replaced, but not its
//! part of the step's evidence: so the audit looks which stand-ins would make the evidence what it is.

use super::expect::ExpectedRows;
use super::trail::Stretch;
use crate::ledger::Substitution;
use crate::order::SampleOrder;
use std::ops::Range;

/// The words of an audit for what it found out by itself.
const REASON: &str = "told by nobody: a rank was lost before it reported the step";

/// The one or two substitutions at `positions` that change the sum by `difference`, if there are such.
pub(super) fn hidden(
    difference: u128,
    positions: Range<u64>,
    stretch: &Stretch,
    (rows, order): (&mut ExpectedRows<'_>, &mut SampleOrder),
) -> Option<Vec<Substitution>> {
    let told = |position: &u64| stretch.substitutions.iter().any(|s| s.position == *position);
    let mut candidates: Vec<(u128, u64, u32)> = Vec::new();
    for position in positions.filter(|p| !told(p)) {
        let wanted = order.locate(position);
        for attempt in 1..=SampleOrder::SUBSTITUTES_MAX {
            let used = order.substitute(wanted, attempt);
            candidates.push((rows.change(position, (wanted, used), order).rows, position, attempt));
        }
    }
    candidates.sort_unstable();
    let find = |change: u128| {
        let at = candidates.partition_point(|(other, ..)| *other < change);
        candidates.get(at).filter(|(other, ..)| *other == change)
    };
    let one = find(difference).map(|one| vec![one]);
    let two = || {
        candidates.iter().find_map(|one| {
            let other = find(difference.wrapping_sub(one.0)).filter(|other| other.1 != one.1)?;
            Some(vec![one, other])
        })
    };
    let mut found: Vec<(u64, u32)> =
        one.or_else(two)?.into_iter().map(|&(_, position, attempt)| (position, attempt)).collect();
    found.sort_unstable();
    let substitution = |(position, attempt)| {
        let wanted = order.locate(position);
        Substitution { position, wanted, used: order.substitute(wanted, attempt), reason: REASON.into() }
    };
    Some(found.into_iter().map(substitution).collect())
}
