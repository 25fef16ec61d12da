//! A keyed permutation of `0..n`: a four-round balanced Feistel network over the next even power of two, walking
//! cycles until the value lies below `n` (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").

use crate::rng::mix;

/// Values that [`Many::fill`] takes at a time.
pub(super) const BLOCK: usize = 256;

const ROUNDS: u64 = 4;

/// The permutation of `0..n` that a key chooses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permutation {
    key: u64,
    n: u64,
    half: u32,
    mask: u64,
}

impl Permutation {
    pub(super) fn new(key: u64, n: u64) -> Self {
        let half = (64 - n.saturating_sub(1).leading_zeros()).div_ceil(2);
        Self { key, n, half, mask: (1 << half) - 1 }
    }

    /// Where `value` goes.
    pub(super) fn of(&self, value: u64) -> u64 {
        debug_assert!(value < self.n);
        let pass = |v| self.network(v, |round, right| self.round(round, right));
        let mut v = pass(value);
        while v >= self.n {
            v = pass(v);
        }
        v
    }

    /// The same permutation for about `values` values.
    pub(super) fn many(self, values: u64) -> Many {
        let of_round = |round| (0..=self.mask).map(move |right| self.round(round, right) as u32);
        let worth = ROUNDS << self.half <= values;
        Many { rounds: worth.then(|| (0..ROUNDS).flat_map(of_round).collect()), permutation: self }
    }

    /// Once through the network, which permutes the power of two.
    #[inline]
    fn network(&self, v: u64, of_round: impl Fn(u64, u64) -> u64) -> u64 {
        let (mut left, mut right) = (v >> self.half, v & self.mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ of_round(round, right));
        }
        (left << self.half) | right
    }

    #[inline]
    fn round(&self, round: u64, right: u64) -> u64 {
        mix(self.key ^ mix(right.wrapping_add(round.wrapping_mul(0xA24B_AED4_963E_E407)))) & self.mask
    }
}

/// A permutation of many values: what a round makes of each half of a value is looked up, where there are more values
/// than halves.
#[derive(Debug)]
pub(super) struct Many {
    permutation: Permutation,
    /// Of each round, what it makes of each half.
    rounds: Option<Vec<u32>>,
}

impl Many {
    #[cfg(test)]
    pub(super) fn looks_up(&self) -> bool {
        self.rounds.is_some()
    }

    /// Where `first`, `first + 1`, ... go, as [`Permutation::of`] says.
    pub(super) fn fill(&self, first: u64, block: &mut [u64]) {
        let p = self.permutation;
        match &self.rounds {
            Some(rounds) => {
                let looked_up = |round, right| u64::from(rounds[((round << p.half) | right) as usize]);
                self.walk(first, block, |v| p.network(v, looked_up));
            }
            None => self.walk(first, block, |v| p.network(v, |round, right| p.round(round, right))),
        }
    }

    /// All values pass the network before any of them walks on, so that no pass waits for the one before.
    #[inline]
    fn walk(&self, first: u64, block: &mut [u64], pass: impl Fn(u64) -> u64) {
        let n = self.permutation.n;
        debug_assert!(block.len() <= BLOCK && first + block.len() as u64 <= n);
        let mut walking = [0u16; BLOCK];
        let mut left = 0;
        for (i, v) in block.iter_mut().enumerate() {
            *v = pass(first + i as u64);
            walking[left] = i as u16;
            left += usize::from(*v >= n);
        }
        while left > 0 {
            let mut still = 0;
            for at in 0..left {
                let i = walking[at];
                let v = &mut block[usize::from(i)];
                *v = pass(*v);
                walking[still] = i;
                still += usize::from(*v >= n);
            }
            left = still;
        }
    }
}
