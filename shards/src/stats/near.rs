//! Groups of equal and nearly equal hashes of 64 bits.
//!
//! Two hashes that differ in at most three bits are equal in at least one of four bands of 16 bits (the pigeonhole principle;
//! Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007): so only hashes that share a band are
//! compared, and no pair is missed. Memory is three words a picture.

/// Bits in which hashes may differ.
pub const BITS: u32 = 3;
const BANDS: u32 = BITS + 1;
/// Values that share a band and are compared each with each, at most.
const SHARED_MAX: usize = 20_000;

/// Groups of two and more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Indices of equal hashes, ascending; groups in the order of their first.
    pub(crate) equal: Vec<Vec<u32>>,
    /// Indices of hashes that lead to each other by steps of at most [`BITS`], with at least two values among them.
    pub(crate) near: Vec<Vec<u32>>,
    /// Whether some hashes were not compared with all others.
    pub(crate) cut: bool,
}

/// The groups among `hashes`.
pub(crate) fn groups(hashes: &[u64]) -> Groups {
    let mut order: Vec<u32> = (0..hashes.len() as u32).collect();
    order.sort_unstable_by_key(|&i| (hashes[i as usize], i));
    let values: Vec<&[u32]> = order.chunk_by(|a, b| hashes[*a as usize] == hashes[*b as usize]).collect();
    let hash = |value: u32| hashes[values[value as usize][0] as usize];
    let (mut parents, mut cut) = (Parents((0..values.len() as u32).collect()), false);
    for band in 0..BANDS {
        let part = |value: u32| (hash(value) >> (16 * band)) as u16;
        let mut by_part: Vec<u32> = (0..values.len() as u32).collect();
        by_part.sort_unstable_by_key(|&value| part(value));
        for shared in by_part.chunk_by(|a, b| part(*a) == part(*b)) {
            let compared = &shared[..shared.len().min(SHARED_MAX)];
            cut |= compared.len() < shared.len();
            for (i, &a) in compared.iter().enumerate() {
                for &b in &compared[i + 1..] {
                    if (hash(a) ^ hash(b)).count_ones() <= BITS {
                        parents.join(a, b);
                    }
                }
            }
        }
    }
    let mut near: Vec<Vec<u32>> = vec![Vec::new(); values.len()];
    for value in 0..values.len() as u32 {
        near[parents.root(value) as usize].push(value);
    }
    let sorted = |mut group: Vec<u32>| {
        group.sort_unstable();
        group
    };
    let near = near.into_iter().filter(|group| group.len() > 1);
    let near = near.map(|group| sorted(group.into_iter().flat_map(|value| values[value as usize]).copied().collect()));
    let equal = values.iter().filter(|same| same.len() > 1).map(|same| same.to_vec());
    let mut groups = Groups { equal: equal.collect(), near: near.collect(), cut };
    groups.equal.sort_unstable();
    groups.near.sort_unstable();
    groups
}

/// Union-find with path halving.
struct Parents(Vec<u32>);

impl Parents {
    fn root(&mut self, mut at: u32) -> u32 {
        while self.0[at as usize] != at {
            let above = self.0[self.0[at as usize] as usize];
            self.0[at as usize] = above;
            at = above;
        }
        at
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b) as usize] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_and_near_are_told_apart() {
        let base = 0x0123_4567_89ab_cdef;
        // One bit in each of three bands; four bits; the first again.
        let hashes = [base, base ^ ((1 << 3) | (1 << 20) | (1 << 40)), base ^ 0xf, base, 7];
        let found = groups(&hashes);
        assert_eq!(found, Groups { equal: vec![vec![0, 3]], near: vec![vec![0, 1, 3]], cut: false });
        assert_eq!(groups(&[]), Groups::default());
    }

    proptest! {
        /// Against comparing each with each.
        #[test]
        fn no_pair_is_missed(seeds in prop::collection::vec((0u64..4, prop::collection::vec(0u32..64, 0..5)), 0..40)) {
            let hashes: Vec<u64> = seeds
                .iter()
                .map(|(seed, bits)| bits.iter().fold(pixfleet_cluster::rng::mix(*seed + 1), |hash, bit| hash ^ (1 << bit)))
                .collect();
            let found = groups(&hashes);
            for (a, x) in hashes.iter().enumerate() {
                for (b, y) in hashes.iter().enumerate().skip(a + 1) {
                    let together = |groups: &[Vec<u32>]| groups.iter().any(|g| g.contains(&(a as u32)) && g.contains(&(b as u32)));
                    prop_assert_eq!(together(&found.equal), x == y);
                    if x != y && (x ^ y).count_ones() <= BITS {
                        prop_assert!(together(&found.near));
                    }
                }
            }
        }
    }
}
