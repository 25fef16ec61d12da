//! Virtual time: one queue of what will happen, and dice whose every throw is a pure function of the seed.

use crate::rng::{key, mix};
use crate::run::Now;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What will happen, by time and then in the order in which it was decided.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: BTreeMap<(Now, u64), T>,
    decided: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { waiting: BTreeMap::new(), decided: 0 }
    }

    pub(super) fn push(&mut self, at: Now, what: T) {
        self.decided += 1;
        self.waiting.insert((at, self.decided), what);
    }

    /// What happens next, when, and its number.
    pub(super) fn pop(&mut self) -> Option<(Now, u64, T)> {
        self.waiting.pop_first().map(|((at, number), what)| (at, number, what))
    }
}

/// The chances of one part of the world. Each part has its own, so that a fault more or less changes only what it
/// touches.
#[derive(Debug)]
pub(super) struct Dice {
    key: u64,
    thrown: u64,
}

impl Dice {
    pub(super) fn new(seed: u64, whose: &[u64]) -> Self {
        Self { key: key(&[seed, key(whose)]), thrown: 0 }
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.thrown += 1;
        mix(self.key.wrapping_add(self.thrown.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// Uniform in `0..n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    pub(super) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Milliseconds, to the microsecond.
    pub(super) fn ms(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_micros(self.within(range.start() * 1000..=range.end() * 1000))
    }
}
