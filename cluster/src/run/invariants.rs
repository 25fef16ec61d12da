//! What must hold between any two events, each with a name: asserted in debug builds and in the simulator, counted as
//! a metric everywhere else.

use super::machine::{Phase, Run};

/// One named invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invariant {
    /// Every rank hosts at least one lane.
    RanksHaveLanes,
    /// No rank is held by two members.
    OneMemberARank,
    /// Nobody has a rank while no generation stands.
    NoRankWithoutGeneration,
    /// The phase is about the newest generation.
    PhaseIsNewest,
    /// A group that trains has all its ranks, but for those whose work was done.
    TrainingIsWhole,
    /// Nobody is ready before it can have heard of its generation.
    ClaimBeforeOrder,
    /// Whoever leaves takes no step with it: somebody else holds it, or a checkpoint does.
    LeaversTakeNothing,
}

impl Invariant {
    pub(super) const ALL: [Self; 7] = [
        Self::RanksHaveLanes,
        Self::OneMemberARank,
        Self::NoRankWithoutGeneration,
        Self::PhaseIsNewest,
        Self::TrainingIsWhole,
        Self::ClaimBeforeOrder,
        Self::LeaversTakeNothing,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RanksHaveLanes => "ranks_have_lanes",
            Self::OneMemberARank => "one_member_a_rank",
            Self::NoRankWithoutGeneration => "no_rank_without_generation",
            Self::PhaseIsNewest => "phase_is_newest",
            Self::TrainingIsWhole => "training_is_whole",
            Self::ClaimBeforeOrder => "claim_before_order",
            Self::LeaversTakeNothing => "leavers_take_nothing",
        }
    }

    pub(super) fn holds(self, run: &Run) -> bool {
        let active = run.members.active().len();
        match self {
            Self::RanksHaveLanes => active <= run.config.lanes as usize,
            Self::OneMemberARank => run.members.ranks_are_distinct_below(run.world),
            Self::NoRankWithoutGeneration => run.phase != Phase::Gathering || active == 0,
            Self::PhaseIsNewest => match run.phase {
                Phase::Claiming(g) | Phase::Forming(g) | Phase::Training(g) | Phase::Reforming(g) => {
                    Some(g) == run.generation
                }
                Phase::Gathering | Phase::Done(_) => true,
            },
            Self::TrainingIsWhole => {
                let accounted = active + run.finished_gone as usize;
                !matches!(run.phase, Phase::Training(_)) || accounted == run.world as usize
            }
            Self::ClaimBeforeOrder => !matches!(run.phase, Phase::Claiming(_)) || run.members.ready() == 0,
            Self::LeaversTakeNothing => !run.steps_gone,
        }
    }
}
