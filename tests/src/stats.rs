//! Percentiles of a few measurements.

use serde::{Deserialize, Serialize};

/// Percentiles by nearest rank: each is a value that was measured, and of fewer than 100 values p99 is the largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the values are at most this, seconds.
    pub p50_s: f64,
    /// 99 of 100 are.
    pub p99_s: f64,
    /// The largest.
    pub max_s: f64,
}

impl Spread {
    /// Of seconds in any order; `None` of nothing.
    pub fn of(seconds: &[f64]) -> Option<Self> {
        let sorted = sorted(seconds);
        let max_s = *sorted.last()?;
        Some(Self { p50_s: nearest(&sorted, 0.5), p99_s: nearest(&sorted, 0.99), max_s })
    }
}

/// The median by nearest rank; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    (!sorted.is_empty()).then(|| nearest(&sorted, 0.5))
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// `sorted` is not empty.
fn nearest(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Spread::of(&hundred), Some(Spread { p50_s: 50.0, p99_s: 99.0, max_s: 100.0 }));
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { p50_s: 2.0, p99_s: 3.0, max_s: 3.0 }));
        assert_eq!((Spread::of(&[]), median(&[]), median(&[4.0])), (None, None, Some(4.0)));
    }
}
