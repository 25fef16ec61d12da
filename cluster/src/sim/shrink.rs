//! The shortest list of faults that still shows a violation: Zeller and Hildebrandt's delta debugging over the
//! schedule.

use super::faults::Fault;
use super::oracle::Violation;
use super::simulate;

/// Schedules that are tried for one violation.
const TRIES_MAX: u32 = 400;

/// A smaller schedule with the same kind of violation.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The faults that are needed.
    pub faults: Vec<Fault>,
    /// What they bring about.
    pub violation: Violation,
}

/// Leaves out of `faults` what `seed` does not need to bring about `violation`.
#[must_use]
pub fn shrink(seed: u64, faults: &[Fault], violation: &Violation) -> Shrunk {
    shrink_by(faults, violation, |faults| simulate(seed, faults, false).violation)
}

pub(super) fn shrink_by(
    faults: &[Fault],
    violation: &Violation,
    run: impl Fn(&[Fault]) -> Option<Violation>,
) -> Shrunk {
    let mut best = Shrunk { faults: faults.to_vec(), violation: violation.clone() };
    let (mut pieces, mut tries) = (2, 0);
    while !best.faults.is_empty() && tries < TRIES_MAX {
        let size = best.faults.len().div_ceil(pieces);
        let mut smaller = None;
        for start in (0..best.faults.len()).step_by(size) {
            let end = (start + size).min(best.faults.len());
            let rest: Vec<_> = best.faults[..start].iter().chain(&best.faults[end..]).copied().collect();
            tries += 1;
            if let Some(found) = run(&rest).filter(|found| found.name == violation.name) {
                smaller = Some(Shrunk { faults: rest, violation: found });
                break;
            }
        }
        match smaller {
            Some(found) => {
                best = found;
                pieces = pieces.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => pieces = (pieces * 2).min(best.faults.len()),
        }
    }
    best
}
