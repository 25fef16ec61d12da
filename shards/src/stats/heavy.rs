//! The most frequent of many names in bounded memory: lossy counting (Manku and Motwani, "Approximate frequency counts over
//! data streams", VLDB 2002).

use std::collections::BTreeMap;
use std::collections::HashMap;

/// Names after which rare ones are dropped: no count is more than one in this many too low.
const WIDTH: u64 = 200_000;
/// Longest name that is kept, in letters.
const LETTERS: usize = 80;

/// Counts of names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heavy {
    /// Name -> count, and how many may have been dropped before it came.
    counts: HashMap<String, (u64, u64)>,
    seen: u64,
    dropped: bool,
}

impl Heavy {
    pub(crate) fn add(&mut self, name: &str) {
        self.put(name.chars().take(LETTERS).collect(), 1);
    }

    fn put(&mut self, name: String, count: u64) {
        let epoch = self.seen / WIDTH;
        self.counts.entry(name).or_insert((0, epoch)).0 += count;
        self.seen += count;
        let now = self.seen / WIDTH;
        if now > epoch {
            let before = self.counts.len();
            self.counts.retain(|_, (count, missed)| *count + *missed > now);
            self.dropped |= self.counts.len() < before;
        }
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn merge(&mut self, other: Self) {
        self.dropped |= other.dropped;
        // In an order of their own, so that what is dropped is the same each time.
        let ordered: BTreeMap<String, (u64, u64)> = other.counts.into_iter().collect();
        for (name, (count, _)) in ordered {
            self.put(name, count);
        }
    }

    /// The `n` most frequent, of equally frequent ones the first by name.
    pub(crate) fn head(&self, n: usize) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = self.counts.iter().map(|(name, (count, _))| (name.clone(), *count)).collect();
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(n);
        all
    }

    /// Names that are known now; whether rare ones were dropped, so that counts are lower bounds.
    pub(crate) fn names(&self) -> (usize, bool) {
        (self.counts.len(), self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_names_stay_and_memory_is_bounded() {
        let mut heavy = Heavy::default();
        for i in 0..3 * WIDTH {
            heavy.add(if i % 10 == 0 { "fox" } else { "" });
            heavy.add(&format!("rare {i}"));
        }
        let head = heavy.head(2);
        assert_eq!(head[1].0, "fox");
        assert!(head[1].1.abs_diff(3 * WIDTH / 10) <= 6, "{head:?}");
        assert!(heavy.names().0 < 2 * WIDTH as usize && heavy.names().1);
    }

    #[test]
    fn merging_is_counting() {
        let (mut a, mut b) = (Heavy::default(), Heavy::default());
        ["x", "y", "y"].into_iter().for_each(|n| a.add(n));
        ["y", "z"].into_iter().for_each(|n| b.add(n));
        a.merge(b);
        assert_eq!(a.head(5), [("y".into(), 3), ("x".into(), 1), ("z".into(), 1)]);
        assert_eq!(a.names(), (3, false));
    }
}
