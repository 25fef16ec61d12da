//! Lanes to ranks. The global batch is cut into L fixed lanes; a rank hosts a contiguous run of them, so features
//! gathered in rank order are in global sample order whatever the world size.

use crate::ids::{Lane, Position, Rank, Step};
use std::ops::Range;

/// Which rank hosts which lanes, for one world size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneMap {
    lanes: u32,
    lane_size: u32,
    world: u32,
}

impl LaneMap {
    /// `lanes` lanes of `lane_size` samples over `world` ranks; `None` unless `1 <= world <= lanes`.
    #[must_use]
    pub fn new(lanes: u32, lane_size: u32, world: u32) -> Option<Self> {
        (world >= 1 && world <= lanes && lane_size >= 1).then_some(Self { lanes, lane_size, world })
    }

    /// Samples in a step over all ranks.
    #[must_use]
    pub fn global_batch(&self) -> u32 {
        self.lanes * self.lane_size
    }

    /// Samples in one lane.
    #[must_use]
    pub fn lane_size(&self) -> u32 {
        self.lane_size
    }

    /// Ranks.
    #[must_use]
    pub fn world(&self) -> u32 {
        self.world
    }

    /// The contiguous lanes of `rank`: sizes differ by at most one.
    #[must_use]
    pub fn lanes_of(&self, rank: Rank) -> Range<u32> {
        let at = |r: u32| (u64::from(r) * u64::from(self.lanes) / u64::from(self.world)) as u32;
        at(rank.0)..at(rank.0 + 1)
    }

    /// The rows of the global batch (`0..global_batch`) that `rank` holds.
    #[must_use]
    pub fn rows_of(&self, rank: Rank) -> Range<u32> {
        let lanes = self.lanes_of(rank);
        lanes.start * self.lane_size..lanes.end * self.lane_size
    }

    /// The most rows that any rank holds: the padded size of an equal-sized all-gather.
    #[must_use]
    pub fn rows_max(&self) -> u32 {
        self.lanes.div_ceil(self.world) * self.lane_size
    }

    /// The positions of `lane` in `step`.
    #[must_use]
    pub fn positions(&self, step: Step, lane: Lane) -> Range<u64> {
        let start = step.0 * u64::from(self.global_batch()) + u64::from(lane.0) * u64::from(self.lane_size);
        start..start + u64::from(self.lane_size)
    }

    /// The first position of `step`.
    #[must_use]
    pub fn first_position(&self, step: Step) -> Position {
        Position(step.0 * u64::from(self.global_batch()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_has_exactly_one_rank(lanes in 1u32..200, size in 1u32..9, world in 1u32..200) {
            prop_assume!(world <= lanes);
            let map = LaneMap::new(lanes, size, world).expect("checked above");
            let mut next = 0;
            for rank in 0..world {
                let rows = map.rows_of(Rank(rank));
                prop_assert_eq!(rows.start, next);
                prop_assert!(!rows.is_empty() && rows.len() as u32 <= map.rows_max());
                next = rows.end;
            }
            prop_assert_eq!(next, map.global_batch());
        }
    }

    #[test]
    fn more_ranks_than_lanes_are_refused() {
        assert_eq!(LaneMap::new(2, 8, 3), None);
    }
}
