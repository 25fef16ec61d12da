//! Who takes part in the next generation, with which rank, and where its weights come from: one pure function.

use super::event::Resume;
use crate::ids::{MemberId, Rank, Step};
use crate::ledger::StateSource;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A member that waits, with the step that it would run next and the digest of its state, if it holds whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub member: MemberId,
    /// The step that its state would run next.
    pub next_step: Option<Step>,
    /// Digest of that state, if it was taken.
    pub digest: Option<u64>,
}

/// Of those that are furthest, whoever does not hold what most of them hold: their weights are not to be trusted. With
/// no majority that is all of them.
#[must_use]
pub fn odd_ones(candidates: &[Candidate]) -> Vec<MemberId> {
    let furthest = candidates.iter().filter_map(|c| c.next_step).max();
    let told: Vec<_> = candidates.iter().filter(|c| c.next_step == furthest && c.next_step.is_some()).collect();
    let mut votes = BTreeMap::<u64, usize>::new();
    for digest in told.iter().filter_map(|c| c.digest) {
        *votes.entry(digest).or_default() += 1;
    }
    let all: usize = votes.values().sum();
    let trusted = |digest: u64| 2 * votes[&digest] > all;
    told.iter().filter(|c| c.digest.is_some_and(|d| !trusted(d))).map(|c| c.member).collect()
}

/// The next generation, all but its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deal {
    /// Members, by rank.
    pub members: Arc<[MemberId]>,
    /// The step to run first.
    pub start_step: Step,
    /// The rank that broadcasts.
    pub source: Option<Rank>,
    /// The ranks that need it.
    pub receivers: Arc<[Rank]>,
    /// The checkpoint that all load, if nobody holds newer state.
    pub resume: Option<Resume>,
}

/// The members of a generation that is prepared while another one trains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// By rank: first those that stay, who all hold the same state, then those that join.
    pub members: Arc<[MemberId]>,
    /// How many stay.
    pub stayers: u32,
}

impl Roster {
    /// `stayers`, and as many of `joiners` as there is room for.
    #[must_use]
    pub fn new(stayers: &[MemberId], joiners: &[MemberId], world_max: u32) -> Self {
        let room = (world_max as usize).saturating_sub(stayers.len());
        let members = stayers.iter().chain(joiners.iter().take(room)).copied().collect();
        Self { members, stayers: u32::try_from(stayers.len()).expect("no more members than lanes, a u32") }
    }

    /// Its members and their ranks.
    pub fn ranks(&self) -> impl Iterator<Item = (MemberId, Rank)> {
        self.members.iter().copied().zip((0..).map(Rank))
    }

    /// Those that join, and their ranks.
    pub fn joiners(&self) -> impl Iterator<Item = (MemberId, Rank)> {
        self.ranks().skip(self.stayers as usize)
    }
}

/// Deals `candidates` to at most `world_max` ranks.
///
/// The furthest member is the source; whoever is not as far receives its state, so at most the step in flight is done
/// again. Members that hold state come first, then by number. If a checkpoint is further than every member, all load
/// it. `None` without candidates.
#[must_use]
pub fn deal(candidates: &[Candidate], world_max: u32, checkpoint: Option<&Resume>) -> Option<Deal> {
    let mut chosen: Vec<_> = candidates.iter().map(|c| (c.member, c.next_step)).collect();
    // Furthest first, so that a cut to `world_max` never leaves the source outside.
    chosen.sort_by_key(|&(member, step)| (std::cmp::Reverse(step), member));
    chosen.truncate(world_max as usize);
    chosen.sort_by_key(|&(member, step)| (step.is_none(), member));
    let members: Arc<[MemberId]> = chosen.iter().map(|&(member, _)| member).collect();
    if members.is_empty() {
        return None;
    }
    let furthest = chosen.iter().filter_map(|&(_, step)| step).max();
    let rank = |i: usize| Rank(u32::try_from(i).expect("no more members than world_max, a u32"));
    if let Some(step) = furthest.filter(|&step| checkpoint.is_none_or(|c| c.step <= step)) {
        let source = chosen.iter().position(|&(_, s)| s == Some(step)).map(rank);
        let behind = |&(_, (_, s)): &(usize, &(MemberId, Option<Step>))| *s != Some(step);
        let receivers = chosen.iter().enumerate().filter(behind).map(|(i, _)| rank(i)).collect();
        return Some(Deal { members, start_step: step, source, receivers, resume: None });
    }
    let start_step = checkpoint.map_or(Step(0), |c| c.step);
    Some(Deal { members, start_step, source: None, receivers: [].into(), resume: checkpoint.cloned() })
}

impl Deal {
    /// For the ledger.
    #[must_use]
    pub fn state_source(&self) -> StateSource {
        match (self.source, &self.resume) {
            (Some(rank), _) => StateSource::Member(self.members[rank.0 as usize]),
            (None, Some(resume)) => StateSource::Manifest(resume.key.clone()),
            (None, None) => StateSource::Initial,
        }
    }
}
