//! What a coordinator that opens a run finds in its store, and what it may therefore do: one pure function.

use crate::ids::{Generation, MemberId, Step};
use crate::ledger::History;
use crate::run::Adopted;

/// Numbers of members that each leader may give. A member that no record names, because it only ever stood by, is known
/// by its number to nobody but itself and a leader that is gone: the next one must not give it to another.
const MEMBERS_PER_LEADER: u64 = 1_000_000;

/// What a new leader starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// Its number: one more than any before.
    pub leader: u64,
    /// The first generation that was never used.
    pub first_generation: Generation,
    /// The first member number that was never given.
    pub first_member: MemberId,
    /// The first step that the ledger does not hold.
    pub recorded: Step,
    /// The generation that may still be training.
    pub adopted: Option<Adopted>,
}

impl Takeover {
    /// Judges the run by its records; `manifests` are the keys (step, generation) that exist, of whatever leader.
    #[must_use]
    pub fn assess(history: &History, manifests: &[(Step, Generation)]) -> Self {
        let highest = history.generation.max(manifests.iter().map(|&(_, g)| g).max());
        let first_of_leader = MemberId(history.leader * MEMBERS_PER_LEADER + 1);
        Self {
            leader: history.leader + 1,
            first_generation: highest.map_or(Generation(1), Generation::next),
            first_member: history.member.map_or(first_of_leader, |m| m.next().max(first_of_leader)),
            recorded: history.steps.keys().next_back().map_or(Step(0), |s| s.next()),
            adopted: history.standing.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Losses, Record, StateSource, StepRecord};

    fn opened(leader: u64) -> Record {
        let (run, spec_digest, dataset_digest) = (String::new(), String::new(), String::new());
        Record::Opened { run, spec_digest, dataset_digest, seed: 1, global_batch: 8, leader, address: String::new() }
    }

    fn formed(generation: u64, start: u64, members: &[u64]) -> Record {
        Record::Formed {
            generation: Generation(generation),
            start_step: Step(start),
            members: members.iter().copied().map(MemberId).collect(),
            source: StateSource::Initial,
        }
    }

    fn step(step: u64, generation: u64) -> Record {
        Record::Step(StepRecord {
            step: Step(step),
            generation: Generation(generation),
            world: 2,
            first_position: step * 8,
            samples: 8,
            losses: Losses::default(),
            lr: 0.0,
            seconds: 1.0,
            substitutions: Vec::new(),
            unreported: Vec::new(),
            evidence: None,
        })
    }

    #[test]
    fn a_run_that_never_was_begins_at_one() {
        let found = Takeover::assess(&History::default(), &[]);
        assert_eq!((found.leader, found.first_generation, found.first_member), (1, Generation(1), MemberId(1)));
        assert_eq!((found.recorded, found.adopted), (Step(0), None));
    }

    #[test]
    fn the_last_generation_is_adopted_unless_the_run_was_closed() {
        let mut records = vec![opened(1), formed(4, 0, &[3, 5]), step(0, 4), step(1, 4)];
        let found = Takeover::assess(&History::replay(&records), &[(Step(9), Generation(6))]);
        assert_eq!((found.leader, found.first_generation, found.first_member), (2, Generation(7), MemberId(1_000_001)));
        assert_eq!(found.recorded, Step(2));
        let members = vec![MemberId(3), MemberId(5)];
        assert_eq!(
            found.adopted,
            Some(Adopted { generation: Generation(4), members, start_step: Step(0), prepared: [].into() })
        );

        records.push(Record::Closed { outcome: "drained".into(), message: String::new() });
        assert_eq!(Takeover::assess(&History::replay(&records), &[]).adopted, None);
    }

    #[test]
    fn a_cut_back_takes_manifests_with_it() {
        let history = History::replay(&[formed(1, 0, &[1]), step(0, 1), step(1, 1), formed(2, 1, &[1])]);
        assert!(history.survives(Generation(1), Step(1)), "generation 2 starts from there");
        assert!(!history.survives(Generation(1), Step(2)), "those weights are gone");
        assert!(history.survives(Generation(2), Step(2)));
    }
}
