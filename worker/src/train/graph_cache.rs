//! Which of a rank's lanes keep their graph until backward: `train.cache`.
//!
//! Invariant: the first lanes do, one at least. Their backward comes first, so no other graph is made anew before theirs are
//! gone.

use pixfleet_cluster::spec::Cache;
use tch::Device;

/// Asked once a lane, in order.
pub(crate) struct GraphCache {
    lanes: usize,
    kept: usize,
    /// How many lanes may keep theirs; `None` as long as it must be measured.
    most: Option<usize>,
    /// Bytes that were free before the first lane's forward.
    free_at_first: Option<u64>,
}

impl GraphCache {
    /// For a step of so many own lanes.
    pub(crate) fn new(cache: Cache, device: Device, lanes: usize) -> Self {
        let most = match (cache, device) {
            (Cache::Graphs, _) => Some(lanes),
            (Cache::Features, _) => Some(1),
            (Cache::Auto, Device::Cpu) if lanes > 1 => None,
            (Cache::Auto, _) => Some(1),
        };
        Self { lanes, kept: 0, most, free_at_first: None }
    }

    /// Whether the next lane's forward keeps its graph.
    pub(crate) fn keeps_another(&mut self) -> bool {
        let most = self.most.unwrap_or_else(|| match (self.kept, self.free_at_first) {
            (0, _) => {
                self.free_at_first = free_bytes();
                1
            }
            (_, before) => *self.most.insert(fitting(self.lanes, before, free_bytes())),
        });
        let keeps = self.kept < most;
        self.kept += usize::from(keeps);
        keeps
    }

    /// How many have kept theirs.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }
}

/// How many graphs fit into half of the memory that is free, by what the first one took; all where that cannot be told.
fn fitting(lanes: usize, before: Option<u64>, after: Option<u64>) -> usize {
    let (Some(before), Some(after)) = (before, after) else { return lanes };
    match before.saturating_sub(after) {
        0 => lanes,
        taken => lanes.min(1 + (after / 2 / taken) as usize),
    }
}

/// Memory of this machine that is free, bytes; `None` where it does not say.
fn free_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(cache: Cache, device: Device, lanes: usize) -> Vec<bool> {
        let mut cache = GraphCache::new(cache, device, lanes);
        let answers: Vec<bool> = (0..lanes).map(|_| cache.keeps_another()).collect();
        assert_eq!(cache.kept(), answers.iter().filter(|kept| **kept).count());
        answers
    }

    #[test]
    fn the_first_lanes_keep_their_graphs() {
        for device in [Device::Cpu, Device::Cuda(0)] {
            assert_eq!(kept(Cache::Graphs, device, 3), [true; 3]);
            assert_eq!(kept(Cache::Features, device, 3), [true, false, false]);
            assert_eq!(kept(Cache::Auto, device, 1), [true]);
        }
        assert_eq!(kept(Cache::Auto, Device::Cuda(0), 3), [true, false, false]);
        assert!(kept(Cache::Auto, Device::Cpu, 3).is_sorted_by(|a, b| a >= b), "kept ones come first");
    }

    #[test]
    fn as_many_graphs_are_kept_as_fit_into_half_of_what_is_free() {
        let gib = |n: u64| Some(n << 30);
        assert_eq!(fitting(8, gib(20), gib(18)), 5, "9 GiB hold four more of 2");
        assert_eq!(fitting(3, gib(20), gib(18)), 3);
        assert_eq!(fitting(8, gib(20), gib(1)), 1);
        assert_eq!(fitting(8, gib(20), gib(20)), 8, "too small to be seen");
        assert_eq!(fitting(8, None, gib(1)), 8);
        assert!(free_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
