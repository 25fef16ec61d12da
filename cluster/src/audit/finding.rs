//! What an audit finds wrong, and how it is said.

use crate::ids::{Generation, Step};
use crate::order::SampleId;
use std::fmt;
use std::mem::{Discriminant, discriminant};

/// Findings of one kind that are named; further ones are only counted.
pub const NAMED_MAX: usize = 100;

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No surviving step used this sample.
    Missing(SampleId),
    /// More than one did.
    Doubled(SampleId),
    /// No surviving record of this step, though later ones exist.
    StepMissing(Step),
    /// A record speaks of a step that the run does not have.
    StepBeyond {
        /// Which step.
        step: Step,
        /// Steps of the run.
        steps: u64,
    },
    /// A step does not cover the positions that are its own.
    WrongPositions {
        /// Which step.
        step: Step,
        /// First position that it must have.
        expected: u64,
        /// First position that it has.
        found: u64,
        /// Samples that it has.
        samples: u64,
    },
    /// A bad row was replaced at a position where the order has another row, or that is none of the step's.
    WrongSubstitution {
        /// Which step.
        step: Step,
        /// The position that the substitution names.
        position: u64,
        /// The sample that the substitution names.
        found: SampleId,
        /// The sample that the order has there; none if the position is not the step's.
        expected: Option<SampleId>,
    },
    /// The evidence of a step is not that of the rows that the plan has for it.
    FedOtherwise {
        /// Which step.
        step: Step,
        /// Whether ranks were lost that may have replaced rows and never told so.
        unreported: bool,
    },
    /// The rows are the plan's, but other regions or texts were drawn from them.
    DrawnOtherwise(Step),
    /// A generation's number did not grow.
    GenerationReused {
        /// The one before.
        before: Generation,
        /// The one that should be higher.
        after: Generation,
    },
    /// A coordinator opened the run with another plan.
    PlanChanged {
        /// What changed.
        what: &'static str,
        /// Its value in the plan.
        expected: String,
        /// Its value in the ledger.
        found: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(s) => write!(f, "missing: {s}"),
            Self::Doubled(s) => write!(f, "doubled: {s}"),
            Self::StepMissing(s) => write!(f, "step {s} is missing"),
            Self::StepBeyond { step, steps } => write!(f, "step {step} is recorded, but the run has {steps} steps"),
            Self::WrongPositions { step, expected, found, samples } => {
                write!(f, "step {step} should start at position {expected} but has {samples} samples from {found}")
            }
            Self::WrongSubstitution { step, position, found, expected: Some(expected) } => {
                write!(f, "step {step} replaced {found} at position {position}, where the order has {expected}")
            }
            Self::WrongSubstitution { step, position, found, expected: None } => {
                write!(f, "step {step} replaced {found} at position {position}, which is not the step's")
            }
            Self::FedOtherwise { step, unreported: false } => write!(f, "step {step} was not fed the rows of the plan"),
            Self::FedOtherwise { step, unreported: true } => write!(
                f,
                "step {step} was not fed the rows of the plan, nor those with one or two stand-ins that lost ranks did not tell of"
            ),
            Self::DrawnOtherwise(step) => write!(f, "step {step} drew other regions or texts than the plan"),
            Self::GenerationReused { before, after } => write!(f, "generation {after} was formed after {before}"),
            Self::PlanChanged { what, expected, found } => {
                write!(f, "the ledger was opened with {what} {found}, the plan says {expected}")
            }
        }
    }
}

/// Findings as they are named: of each kind the first [`NAMED_MAX`].
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) named: Vec<Finding>,
    by_kind: Vec<(Discriminant<Finding>, usize)>,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        let kind = discriminant(&finding);
        let known = self.by_kind.iter().position(|(of, _)| *of == kind);
        let known = known.unwrap_or_else(|| {
            self.by_kind.push((kind, 0));
            self.by_kind.len() - 1
        });
        let (_, named) = &mut self.by_kind[known];
        if *named < NAMED_MAX {
            *named += 1;
            self.named.push(finding);
        }
    }
}
