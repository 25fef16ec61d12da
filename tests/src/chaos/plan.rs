//! What is done to a run, how often, and in which order: a stack of cards, shuffled by the seed. The first stack holds
//! each kind once, so that a short run meets most of them; later ones hold each by its weight, so that a long run meets
//! all again and again.

use crate::dice::Dice;
use serde::Serialize;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StrikeKind {
    /// kill -9 of a worker; another one starts later.
    Kill,
    /// SIGSTOP of a worker for longer than the heartbeat timeout, then SIGCONT.
    StopLong,
    /// SIGSTOP of a worker for less than that: costs time and nothing else.
    StopShort,
    /// The link of a worker's host is down for longer than the heartbeat timeout: nothing arrives, and nothing closes.
    LinkDown,
    /// SIGTERM to a worker; another one starts later.
    Drain,
    /// One more worker.
    Join,
    /// kill -9 of the coordinator; another one starts later on another port.
    CoordinatorKill,
    /// A second coordinator while the first one lives.
    CoordinatorRival,
    /// All connections between workers and coordinator are cut, and new ones for a while.
    LinkCut,
    /// What they say to each other is late.
    LinkSlow,
    /// What they say to each other does not arrive, and no connection closes.
    LinkSilent,
    /// The store answers 503 SlowDown.
    StoreBusy,
    /// The store does what it is asked, and the answer never comes.
    StoreNoAnswer,
    /// The store is slow.
    StoreSlow,
}

impl StrikeKind {
    /// All, each with the number of its cards in a stack.
    pub(super) const ALL: [(Self, usize); 14] = [
        (Self::Kill, 4),
        (Self::StopLong, 2),
        (Self::StopShort, 2),
        (Self::LinkDown, 2),
        (Self::Drain, 3),
        (Self::Join, 3),
        (Self::CoordinatorKill, 2),
        (Self::CoordinatorRival, 1),
        (Self::LinkCut, 1),
        (Self::LinkSlow, 1),
        (Self::LinkSilent, 1),
        (Self::StoreBusy, 1),
        (Self::StoreNoAnswer, 1),
        (Self::StoreSlow, 1),
    ];

    /// As it is typed and printed.
    pub(super) fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).expect("a unit variant is a string")
    }

    /// The word's kind.
    pub(super) fn parse(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().map(|(kind, _)| kind).find(|kind| kind.word() == word);
        found.ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(|(kind, _)| kind.word()).collect();
            format!("`{word}` is none of {}", all.join(", "))
        })
    }

    /// Whether it needs the run's store to be on S3.
    pub(super) fn is_of_store(self) -> bool {
        matches!(self, Self::StoreBusy | Self::StoreNoAnswer | Self::StoreSlow)
    }

    /// Whether it needs each process to have a host of its own.
    pub(super) fn is_of_hosts(self) -> bool {
        self == Self::LinkDown
    }

    /// Whether the generation that it strikes ends by it.
    pub(super) fn ends_generation(self) -> bool {
        matches!(self, Self::Kill | Self::StopLong | Self::LinkDown | Self::Drain)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stack {
    kinds: Vec<(StrikeKind, usize)>,
    cards: Vec<StrikeKind>,
}

impl Stack {
    /// Of these kinds only.
    pub(super) fn new(dice: &mut Dice, kinds: impl IntoIterator<Item = StrikeKind>) -> Self {
        let wanted: Vec<StrikeKind> = kinds.into_iter().collect();
        let kinds: Vec<_> = StrikeKind::ALL.into_iter().filter(|(kind, _)| wanted.contains(kind)).collect();
        let mut cards: Vec<StrikeKind> = kinds.iter().map(|&(kind, _)| kind).collect();
        shuffle(dice, &mut cards);
        Self { kinds, cards }
    }

    /// The topmost card that is `possible` now; the others keep their places. Under a stack without such a card lies
    /// another one.
    pub(super) fn draw(&mut self, dice: &mut Dice, possible: impl Fn(StrikeKind) -> bool) -> Option<StrikeKind> {
        let topmost = |cards: &[StrikeKind]| cards.iter().position(|&kind| possible(kind));
        if topmost(&self.cards).is_none() && self.kinds.iter().any(|&(kind, _)| possible(kind)) {
            let mut more: Vec<StrikeKind> =
                self.kinds.iter().flat_map(|&(kind, n)| std::iter::repeat_n(kind, n)).collect();
            shuffle(dice, &mut more);
            self.cards.extend(more);
        }
        topmost(&self.cards).map(|at| self.cards.remove(at))
    }
}

fn shuffle(dice: &mut Dice, cards: &mut [StrikeKind]) {
    for last in (1..cards.len()).rev() {
        let other = dice.between(0.0, (last + 1) as f64) as usize;
        cards.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn all() -> Vec<StrikeKind> {
        StrikeKind::ALL.iter().map(|&(kind, _)| kind).collect()
    }

    #[test]
    fn a_short_run_meets_every_kind_and_a_long_one_meets_it_again() {
        let mut dice = Dice::new(3);
        let mut stack = Stack::new(&mut dice, all());
        let mut counts = BTreeMap::<StrikeKind, usize>::new();
        for drawn in 1..=60 {
            let kind = stack.draw(&mut dice, |_| true).expect("all are possible");
            *counts.entry(kind).or_default() += 1;
            if drawn == StrikeKind::ALL.len() {
                assert!(counts.values().all(|&n| n == 1) && counts.len() == StrikeKind::ALL.len(), "{counts:?}");
            }
        }
        assert!(counts.values().all(|&n| n >= 2), "{counts:?}");
    }

    #[test]
    fn what_is_not_possible_waits_for_its_turn() {
        let mut dice = Dice::new(1);
        let mut stack = Stack::new(&mut dice, [StrikeKind::Kill, StrikeKind::Join]);
        for _ in 0..20 {
            assert_eq!(stack.draw(&mut dice, |kind| kind == StrikeKind::Join), Some(StrikeKind::Join));
        }
        assert_eq!(stack.draw(&mut dice, |kind| kind == StrikeKind::Kill), Some(StrikeKind::Kill));
        assert_eq!(stack.draw(&mut dice, |kind| kind == StrikeKind::StoreBusy), None, "not of this stack");
    }

    #[test]
    fn the_order_is_the_seeds() {
        let order = |seed| {
            let mut dice = Dice::new(seed);
            let mut stack = Stack::new(&mut dice, all());
            (0..40).filter_map(|_| stack.draw(&mut dice, |_| true)).collect::<Vec<_>>()
        };
        assert_eq!(order(5), order(5));
        assert_ne!(order(5), order(6));
    }

    #[test]
    fn a_kind_is_found_by_its_word() {
        assert!(all().into_iter().all(|kind| StrikeKind::parse(&kind.word()) == Ok(kind)));
        assert_eq!(StrikeKind::StoreNoAnswer.word(), "store-no-answer");
        assert!(StrikeKind::parse("flood").is_err());
    }
}
