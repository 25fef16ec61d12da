//! Sums over lanes whose bits do not depend on who hosts which lane: lanes are the leaves of one fixed binary tree, and
//! every number is added along its edges.
//!
//! Node (l, i) is the sum of lanes `[i 2^l, (i + 1) 2^l)`; a node whose right child lies beyond the last lane is its left
//! child. A rank sums the nodes that lie wholly within its lanes, and whoever has all ranks' nodes sums the rest.

use std::ops::Range;

/// A node of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    level: u32,
    index: u32,
}

impl Node {
    fn leaf(lane: u32) -> Self {
        Self { level: 0, index: lane }
    }

    fn parent(self) -> Self {
        Self { level: self.level + 1, index: self.index / 2 }
    }

    fn is_right_sibling_of(self, other: Self) -> bool {
        self.level == other.level && self.index % 2 == 1 && other.index + 1 == self.index
    }
}

/// Sums of consecutive lanes, as few as the tree allows.
#[derive(Debug)]
pub struct LaneSum<T> {
    nodes: Vec<(Node, T)>,
}

impl<T> Default for LaneSum<T> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<T> LaneSum<T> {
    /// Adds the value of `lane`, the one after the last; `add` sums two neighbours, left and right.
    ///
    /// # Errors
    /// Those of `add`.
    pub fn push<E>(&mut self, lane: u32, value: T, add: impl FnMut(T, T) -> Result<T, E>) -> Result<(), E> {
        self.push_node(Node::leaf(lane), value, add)
    }

    /// As [`push`](Self::push) of `lane` and the one before it, which it [joins](joins_left): `value` is their sum.
    ///
    /// # Errors
    /// Those of `add`.
    pub fn push_pair<E>(&mut self, lane: u32, value: T, add: impl FnMut(T, T) -> Result<T, E>) -> Result<(), E> {
        self.push_node(Node::leaf(lane).parent(), value, add)
    }

    /// The sums that one rank can make of its lanes, from left to right; [`complete`] takes them.
    #[must_use]
    pub fn into_partial(self) -> Vec<T> {
        self.nodes.into_iter().map(|(_, value)| value).collect()
    }

    fn push_node<E>(
        &mut self,
        mut node: Node,
        mut value: T,
        mut add: impl FnMut(T, T) -> Result<T, E>,
    ) -> Result<(), E> {
        while let Some((left, sum)) = self.nodes.pop_if(|(left, _)| node.is_right_sibling_of(*left)) {
            value = add(sum, value)?;
            node = left.parent();
        }
        self.nodes.push((node, value));
        Ok(())
    }
}

/// The nodes of a rank that hosts `lanes`.
fn partial(lanes: Range<u32>) -> Vec<Node> {
    let mut sum = LaneSum::default();
    for lane in lanes {
        let Ok(()) = sum.push(lane, (), |(), ()| Ok::<(), std::convert::Infallible>(()));
    }
    sum.nodes.into_iter().map(|(node, ())| node).collect()
}

/// Whether `lane` is added to the lane before it and to nothing else first, on a rank whose lanes begin with `first`: then
/// whoever makes its value may add it there at once.
#[must_use]
pub fn joins_left(lane: u32, first: u32) -> bool {
    lane > first && Node::leaf(lane).is_right_sibling_of(Node::leaf(lane - 1))
}

/// How many sums [`LaneSum::into_partial`] gives for `lanes`.
#[must_use]
pub fn partial_count(lanes: Range<u32>) -> usize {
    partial(lanes).len()
}

/// The sum over all lanes. `ranks` are the lanes of each rank, one after the other from lane 0 to the last; `values` the
/// partial sums of all of them in the same order.
///
/// # Errors
/// Those of `add`.
///
/// # Panics
/// If there are fewer or more values than the ranks have partial sums, or no lanes.
pub fn complete<T, E>(
    ranks: impl IntoIterator<Item = Range<u32>>,
    values: impl IntoIterator<Item = T>,
    mut add: impl FnMut(T, T) -> Result<T, E>,
) -> Result<T, E> {
    let mut sum = LaneSum::default();
    let mut values = values.into_iter();
    for node in ranks.into_iter().flat_map(partial) {
        sum.push_node(node, values.next().expect("a value for each node"), &mut add)?;
    }
    assert!(values.next().is_none(), "a node for each value");
    // Nothing lies to the right of the last node: it stands for its parent, until its left sibling is met.
    let (mut node, mut value) = sum.nodes.pop().expect("at least one lane");
    while !sum.nodes.is_empty() {
        if let Some((_, other)) = sum.nodes.pop_if(|(left, _)| node.is_right_sibling_of(*left)) {
            value = add(other, value)?;
        }
        node = node.parent();
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// A sum that remembers its shape.
    fn written(left: String, right: String) -> Result<String, Infallible> {
        Ok(format!("({left}+{right})"))
    }

    /// The sum over `ends.last()` lanes, hosted by ranks that end at `ends`.
    fn sum_of(ends: &[u32]) -> String {
        let ranks: Vec<Range<u32>> =
            ends.iter().scan(0, |start, &end| Some(std::mem::replace(start, end)..end)).collect();
        let mut values = Vec::new();
        for lanes in ranks.iter().cloned() {
            let mut own = LaneSum::default();
            for lane in lanes.clone() {
                let Ok(()) = own.push(lane, lane.to_string(), written);
            }
            let own = own.into_partial();
            assert_eq!(own.len(), partial_count(lanes));
            values.extend(own);
        }
        let Ok(sum) = complete(ranks, values, written);
        sum
    }

    #[test]
    fn the_tree_is_balanced_as_far_as_lanes_reach() {
        assert_eq!(sum_of(&[1]), "0");
        assert_eq!(sum_of(&[4]), "((0+1)+(2+3))");
        assert_eq!(sum_of(&[3, 6]), "(((0+1)+(2+3))+(4+5))");
        assert_eq!(sum_of(&[2, 4, 7]), "(((0+1)+(2+3))+((4+5)+6))");
    }

    /// What `rank` sends, in units of all numbers, where each rank adds a slice of `1 / world` of them: to each other rank its
    /// partial sums of that one's slice, and its own slice when it is summed.
    fn sent(lanes: u32, world: u32, rank: u32) -> f64 {
        let map = crate::LaneMap::new(lanes, 1, world).expect("fewer ranks than lanes");
        let partial = partial_count(map.lanes_of(crate::Rank(rank))) as f64;
        f64::from(world - 1) * (partial + 1.0) / f64::from(world)
    }

    /// The least that any all-reduce sends (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
    /// workstations").
    #[test]
    fn with_one_sum_a_rank_the_bytes_are_those_of_a_ring_all_reduce() {
        for (lanes, world) in [(4, 2), (4, 3), (4, 4), (6, 3), (12, 3), (8, 4), (64, 64)] {
            let ring = 2.0 * f64::from(world - 1) / f64::from(world);
            for rank in 0..world {
                assert!((sent(lanes, world, rank) - ring).abs() < 1e-9, "{lanes} lanes, rank {rank} of {world}");
            }
        }
    }

    #[test]
    fn bytes_do_not_grow_with_the_ranks_beyond_the_sums_of_one_rank() {
        for world in 2..=64u32 {
            for lanes in world..=4 * world {
                // A rank of at most `n` lanes has at most 2 log2(n) + 1 sums.
                let most = 2.0 * f64::from(lanes.div_ceil(world)).log2() + 1.0;
                for rank in 0..world {
                    assert!(sent(lanes, world, rank) <= most + 1.0, "{lanes} lanes, rank {rank} of {world}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_who_hosts_what(ends in prop::collection::btree_set(1u32..70, 1..9)) {
            let ends: Vec<u32> = ends.into_iter().collect();
            let last = ends[ends.len() - 1];
            prop_assert_eq!(sum_of(&ends), sum_of(&[last]));
        }
    }
}
