//! A generation's collective group: an operation is done once every rank has come to it, and fails for those that wait
//! when a rank is gone, at a moment of its own for each.

use super::clock::Dice;
use super::habits::Habits;
use super::trainer::State;
use super::world::{ToWorker, What, WorkerId, World};
use crate::evidence::Evidence;
use crate::ids::{Generation, Rank, Step};
use crate::spec::Rung;
use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Op {
    Meet,
    Broadcast,
    Exchange(Step),
    Reduce(Step),
}

impl Op {
    pub(super) fn step(self) -> Option<Step> {
        match self {
            Self::Meet | Self::Broadcast => None,
            Self::Exchange(step) | Self::Reduce(step) => Some(step),
        }
    }
}

/// What a rank brings to an operation, and what all take away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Brought {
    /// Asked to checkpoint and finish.
    pub(super) asked: bool,
    /// The prepared generation that a rank holds the order of; the one that all do.
    pub(super) next: Option<Generation>,
    /// The step that a generation begins with, by whom that is known.
    pub(super) start: Option<Step>,
    pub(super) state: Option<State>,
    pub(super) positions: Range<u64>,
    /// What a rank feeds; what all of them feed.
    pub(super) fed: Evidence,
}

/// Who comes to an operation: a worker with the token of its activity, in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Participant {
    pub(super) group: Generation,
    pub(super) rank: Rank,
    pub(super) world: u32,
    pub(super) who: (WorkerId, u64),
}

#[derive(Debug)]
struct Arrival {
    who: (WorkerId, u64),
    brought: Brought,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Group {
    world: u32,
    ops: BTreeMap<Op, BTreeMap<Rank, Arrival>>,
    /// A rank is gone; `Some(true)`: without an orderly end, so that what was almost done may fail too.
    broken: Option<bool>,
}

impl Group {
    fn is_whole(&self, op: Op) -> bool {
        self.ops.get(&op).is_some_and(|arrivals| arrivals.len() == self.world as usize)
    }

    /// What a rank takes away from `op`; `None`: it fails there.
    pub(super) fn result(&self, op: Op, dice: &mut Dice, habits: &dyn Habits) -> Option<Brought> {
        if !self.is_whole(op) || (self.broken == Some(true) && dice.percent(50)) {
            return None;
        }
        let brought = || self.ops[&op].values().map(|arrival| &arrival.brought);
        let asked = brought().any(|b| b.asked);
        let next = habits.agreed(&brought().map(|b| b.next).collect::<Vec<_>>());
        let start = brought().find_map(|b| b.start);
        let states: Vec<_> = brought().filter_map(|b| b.state).collect();
        // Ranks with other weights, or rows that are not the plan's, make other weights of all.
        let same = states.windows(2).all(|two| two[0] == two[1]);
        let state = states.first().map(|&s| if same { s } else { State { chain: !s.chain, ..s } });
        let tiled = brought().zip(brought().skip(1)).all(|(a, b)| a.positions.end == b.positions.start);
        let ends = brought().next().map(|b| b.positions.start).zip(brought().next_back().map(|b| b.positions.end));
        let positions = ends.filter(|_| tiled).map_or(0..0, |(start, end)| start..end);
        let fed = brought().map(|b| b.fed).sum();
        Some(Brought { asked, next, start, state, positions, fed })
    }
}

impl World {
    pub(super) fn arrive_at(&mut self, participant: Participant, op: Op, brought: Brought) {
        let Participant { group: id, rank, world, who } = participant;
        // Whoever joins waits until those who train come.
        let waits_for_word = brought.start.is_none();
        let group = self.groups.entry(id).or_insert_with(|| Group { world, ..Group::default() });
        if let Some(step) = op.step() {
            group.ops.retain(|old, _| old.step().is_none_or(|old| old.0 + 1 >= step.0));
        }
        group.ops.entry(op).or_default().insert(rank, Arrival { who, brought });
        if group.broken.is_some() {
            let fails = self.now + self.net.dice.ms(5..=300);
            return self.tell(who, fails);
        }
        if group.is_whole(op) {
            let whos: Vec<_> = group.ops[&op].values().map(|arrival| arrival.who).collect();
            for who in whos {
                let done = self.now + self.net.dice.ms(1..=40);
                self.tell(who, done);
            }
            return;
        }
        let (worker, token) = who;
        if op == Op::Meet && waits_for_word {
            return;
        }
        let limit = self.setup.ladder[Rung::CollectiveTimeout];
        self.queue.push(self.now + limit, What::Worker(worker, ToWorker::TimedOut(token)));
    }

    fn tell(&mut self, (worker, token): (WorkerId, u64), at: crate::run::Now) {
        self.queue.push(at, What::Worker(worker, ToWorker::Collective(token)));
    }

    /// A rank is gone from its group: whoever waits for it fails.
    pub(super) fn rank_gone(&mut self, id: Generation, hard: bool) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let first = group.broken.is_none();
        group.broken = group.broken.max(Some(hard));
        if !first {
            return;
        }
        let world = group.world as usize;
        let waiting = group.ops.values().filter(|arrivals| arrivals.len() < world);
        let whos: Vec<_> = waiting.flat_map(|arrivals| arrivals.values().map(|a| a.who)).collect();
        for who in whos {
            let fails = self.now + self.net.dice.ms(5..=500);
            self.tell(who, fails);
        }
    }

    /// Groups that still work.
    pub(super) fn whole_groups(&self) -> Vec<Generation> {
        self.groups.iter().filter(|(_, group)| group.broken.is_none()).map(|(&id, _)| id).collect()
    }
}
