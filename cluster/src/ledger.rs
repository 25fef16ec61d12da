//! The ledger: what was done to the weights, record by record, in numbered create-only segments of JSON lines at
//! `<store>/<run>/ledger/<20-digit number>.jsonl`.
//!
//! Nothing is ever rewritten. A [`Record::Formed`] says from which step a generation starts, and thereby cuts off all
//! step records at or beyond it: those were done to weights that did not survive. [`History`] applies the cuts.

use crate::evidence::Evidence;
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::order::SampleId;
use crate::run::{Adopted, Roster};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod losses;
#[cfg(test)]
mod tests;

pub use losses::{BadTerms, Losses};

/// Version of the ledger's format: 2 since steps hold evidence of what was fed, 3 since generations are prepared. Later ones
/// only add, so this program reads them all.
pub const LEDGER_SCHEMA: u32 = 3;

/// A bad row and what stood in for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Substitution {
    /// The position whose sample was bad.
    pub position: u64,
    /// The sample that the plan names.
    pub wanted: SampleId,
    /// The sample that was used.
    pub used: SampleId,
    /// What was wrong with it.
    pub reason: String,
}

/// One committed step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which step.
    pub step: Step,
    /// The membership that ran it.
    pub generation: Generation,
    /// Ranks of that membership.
    pub world: u32,
    /// The first position of its global batch, by the plan.
    pub first_position: u64,
    /// Samples of its global batch: positions `first_position .. first_position + samples`.
    pub samples: u64,
    /// Losses of the global batch.
    pub losses: Losses,
    /// Learning rate.
    pub lr: f64,
    /// How long it took.
    pub seconds: f64,
    /// Bad rows that were replaced, by position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub substitutions: Vec<Substitution>,
    /// Ranks that were lost before they reported this step; substitutions among their rows are unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreported: Vec<Rank>,
    /// What its global batch was fed. `None`: those who fed it kept no evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// Where a generation's weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateSource {
    /// Initial weights.
    Initial,
    /// A member that survived.
    Member(MemberId),
    /// A checkpoint: key of its manifest.
    Manifest(String),
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// First line of each segment.
    Segment {
        /// [`LEDGER_SCHEMA`].
        schema: u32,
        /// The segment's number: 0, 1, 2, ... without a gap.
        number: u64,
        /// blake3 of the segment before, in hex; empty for the first.
        previous: String,
        /// Says who wrote it, when a put's answer got lost.
        nonce: String,
    },
    /// A coordinator took the run over.
    Opened {
        /// The run's name.
        run: String,
        /// Digest of the run file.
        spec_digest: String,
        /// The dataset version.
        dataset_digest: String,
        /// Seed of the order of samples.
        seed: u64,
        /// Samples in a step.
        global_batch: u32,
        /// The number of this leader: one more than the last. Whoever wrote the segment before it leads no more.
        #[serde(default)]
        leader: u64,
        /// Where workers reach it.
        #[serde(default)]
        address: String,
    },
    /// A generation was formed; step records at or beyond `start_step` count no more.
    Formed {
        /// Its number.
        generation: Generation,
        /// The step that it runs first.
        start_step: Step,
        /// Its members, by rank.
        members: Vec<MemberId>,
        /// Where its weights come from.
        source: StateSource,
    },
    /// A generation was prepared while another one trained: its number is used, and its members may go over into it by
    /// themselves. A [`Record::Formed`] of the same number says that they did, and with which step it began.
    Prepared {
        /// Its number.
        generation: Generation,
        /// Its members, by rank; the first `stayers` of them are of the generation that trains.
        members: Vec<MemberId>,
        /// How many stay.
        stayers: u32,
    },
    /// A step was committed.
    Step(StepRecord),
    /// A member was lost.
    Lost {
        /// The membership at that time.
        generation: Generation,
        /// Who.
        member: MemberId,
        /// How it was noticed.
        cause: String,
    },
    /// A member left by its own wish.
    Left {
        /// The membership at that time.
        generation: Generation,
        /// Who.
        member: MemberId,
        /// Why.
        reason: String,
    },
    /// A checkpoint was committed.
    Checkpoint {
        /// The membership that wrote it.
        generation: Generation,
        /// Steps done.
        step: Step,
        /// Key of its manifest.
        manifest: String,
    },
    /// The run ended, or was drained.
    Closed {
        /// `done`, `drained` or `fault`.
        outcome: String,
        /// The first cause of a fault.
        message: String,
    },
}

impl Record {
    /// Key, below `<store>/<run>/`, of segment `number`.
    #[must_use]
    pub fn segment_key(number: u64) -> String {
        format!("ledger/{number:020}.jsonl")
    }

    /// The number of the segment called `name` (`00000000000000000007.jsonl`); `None` for any other object.
    #[must_use]
    pub fn parse_segment_name(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(".jsonl")?;
        (digits.len() == 20).then(|| digits.parse().ok())?
    }

    /// The record as one line, line feed included.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a record has only JSON types");
        line.push('\n');
        line
    }
}

/// A line of the ledger that is not a record.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not a ledger record")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// The parser's own words.
    #[source]
    pub source: serde_json::Error,
}

/// The records of one segment's text.
///
/// # Errors
/// [`BadLine`] with the line's number.
pub fn parse_lines(text: &str) -> Result<Vec<Record>, BadLine> {
    let parse = |(i, line)| serde_json::from_str(line).map_err(|source| BadLine { line: i + 1, source });
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(parse).collect()
}

/// What the ledger says after its cuts: the steps that made the weights as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Surviving records of each step; more than one means that the step was applied twice.
    pub steps: BTreeMap<Step, Vec<StepRecord>>,
    /// Step records that were cut off: work redone.
    pub redone: u64,
    /// Members lost. A leader may find out again what an earlier one has recorded; each counts once.
    pub losses: u64,
    lost: BTreeSet<MemberId>,
    /// The highest generation formed or prepared.
    pub generation: Option<Generation>,
    /// The highest member number.
    pub member: Option<MemberId>,
    /// Generations that did not grow: (before, after).
    pub reused: Vec<(Generation, Generation)>,
    /// The newest checkpoint.
    pub checkpoint: Option<(Step, String)>,
    /// The highest leader.
    pub leader: u64,
    /// From which step each generation started: a later one that started lower cuts off what is beyond.
    pub formed: BTreeMap<Generation, Step>,
    /// The generation that stood when the records end, unless the run was closed.
    pub standing: Option<Adopted>,
}

impl History {
    /// Replays records in order.
    #[must_use]
    pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut history = Self::default();
        for record in records {
            history.apply(record);
        }
        history
    }

    /// Whether weights of `step` steps done in `generation` are on the surviving history: no later generation started
    /// before them. A manifest that a deposed leader creates late may be on none.
    #[must_use]
    pub fn survives(&self, generation: Generation, step: Step) -> bool {
        self.formed.range(generation.next()..).all(|(_, start)| *start >= step)
    }

    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Segment { .. } => {}
            Record::Closed { .. } => self.standing = None,
            Record::Opened { leader, .. } => self.leader = self.leader.max(*leader),
            Record::Left { member, .. } => self.member = self.member.max(Some(*member)),
            Record::Formed { generation, start_step, members, .. } => {
                let was_prepared = self.standing.as_ref().is_some_and(|s| s.prepared.contains_key(generation));
                let used = if was_prepared { self.formed.keys().next_back().copied() } else { self.generation };
                if let Some(before) = used.filter(|before| before >= generation) {
                    self.reused.push((before, *generation));
                }
                self.generation = self.generation.max(Some(*generation));
                self.formed.insert(*generation, *start_step);
                let (generation, start_step) = (*generation, *start_step);
                let prepared = BTreeMap::new();
                self.standing = Some(Adopted { generation, members: members.clone(), start_step, prepared });
                self.member = self.member.max(members.iter().max().copied());
                let cut = self.steps.split_off(&start_step);
                self.redone += cut.values().map(|v| v.len() as u64).sum::<u64>();
            }
            Record::Prepared { generation, members, stayers } => {
                if let Some(before) = self.generation.filter(|before| before >= generation) {
                    self.reused.push((before, *generation));
                }
                self.generation = self.generation.max(Some(*generation));
                self.member = self.member.max(members.iter().max().copied());
                if let Some(standing) = &mut self.standing {
                    let roster = Roster { members: members.as_slice().into(), stayers: *stayers };
                    standing.prepared.insert(*generation, roster);
                }
            }
            Record::Step(step) => self.steps.entry(step.step).or_default().push(step.clone()),
            Record::Lost { member, .. } => {
                self.losses += u64::from(self.lost.insert(*member));
                self.member = self.member.max(Some(*member));
            }
            Record::Checkpoint { step, manifest, .. } => self.checkpoint = Some((*step, manifest.clone())),
        }
    }
}
