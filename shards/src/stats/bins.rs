//! Counts of numbers in bins.

/// Counts of numbers by the bins between `edges`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Bins {
    /// Ascending.
    pub edges: Vec<f64>,
    /// `counts[i]` is of `edges[i - 1] <= x < edges[i]`; the first is of all below, the last of all above.
    pub counts: Vec<u64>,
    /// Least number; infinite before the first.
    #[serde(skip)]
    pub least: f64,
    /// Greatest number.
    #[serde(skip)]
    pub greatest: f64,
    /// Sum of the numbers.
    pub sum: f64,
}

impl Bins {
    /// No numbers yet; `edges` ascend.
    #[must_use]
    pub fn new(edges: &[f64]) -> Self {
        let counts = vec![0; edges.len() + 1];
        Self { edges: edges.to_vec(), counts, least: f64::INFINITY, greatest: f64::NEG_INFINITY, sum: 0.0 }
    }

    /// Counts one more; NaN is not counted.
    pub fn add(&mut self, x: f64) {
        if x.is_nan() {
            return;
        }
        self.counts[self.edges.partition_point(|edge| *edge <= x)] += 1;
        self.least = self.least.min(x);
        self.greatest = self.greatest.max(x);
        self.sum += x;
    }

    /// Adds what was counted with the same edges.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.edges, other.edges);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
        self.sum += other.sum;
    }

    /// Numbers in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their mean; `None` without any.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.total() > 0).then(|| self.sum / self.total() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_the_bin_above_it() {
        let mut bins = Bins::new(&[0.0, 1.0, 2.0]);
        for x in [-1.0, 0.0, 0.5, 1.0, 2.0, 9.0, f64::NAN] {
            bins.add(x);
        }
        assert_eq!(bins.counts, [1, 2, 1, 2]);
        let mut twice = bins.clone();
        twice.merge(&bins);
        assert_eq!((twice.total(), twice.least, twice.greatest), (12, -1.0, 9.0));
        assert_eq!((twice.mean(), Bins::new(&[]).mean()), (Some(11.5 / 6.0), None));
    }
}
