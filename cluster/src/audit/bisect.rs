//! From a step that was fed otherwise to the rank, the lane and the row: what workers logged of it, row by row, against the plan.

use super::AuditPlan;
use super::expect::{DrawnWords, ExpectedRows};
use crate::evidence::{FileId, LoggedLane, LoggedRow, Origin};
use crate::ids::{Generation, Lane, Rank, Step};
use crate::ledger::Substitution;

/// What is odd about a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Oddity {
    /// Its parts came from elsewhere; `None` is a file that no hash names.
    From(Vec<Option<Origin>>),
    /// Its draws were keyed by another row.
    Keyed,
    /// Another region or text was drawn.
    Drawn,
}

/// A row that was fed otherwise than planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OddRow {
    /// Which step.
    pub step: Step,
    /// The membership that ran it.
    pub generation: Generation,
    /// Who fed it.
    pub rank: Rank,
    /// In which lane.
    pub lane: Lane,
    /// Where in the lane.
    pub row: u64,
    /// Its place in the stream of samples.
    pub position: u64,
    /// Where its bytes should have come from.
    pub planned: Origin,
    /// What was found instead.
    pub oddity: Oddity,
}

impl OddRow {
    /// In words; `name` says what a file is called.
    pub fn said(&self, name: impl Fn(FileId) -> String) -> String {
        let Self { step, generation, rank, lane, row, position, planned, oddity } = self;
        let of = |origin: &Origin| format!("row {} of {}", origin.row, name(origin.file));
        let planned = of(planned);
        let found = match oddity {
            Oddity::From(parts) => {
                let mut parts: Vec<String> =
                    parts.iter().map(|part| part.as_ref().map_or("a row of no file".into(), of)).collect();
                parts.dedup();
                format!("was fed {}, the plan has {planned}", parts.join(" and "))
            }
            Oddity::Keyed => format!("is {planned} as planned, but its draws were keyed by another row"),
            Oddity::Drawn => format!("is {planned} as planned, but another region or text was drawn"),
        };
        format!(
            "step {step}, generation {generation}, rank {rank}, lane {lane}, row {row} (position {position}) {found}"
        )
    }
}

/// The rows of `step` that were fed otherwise, by what the logs of its newest generation say of its lanes. `substitutions` are
/// those that the ledger has.
pub fn bisect<'d>(
    plan: &AuditPlan,
    (step, substitutions): (Step, &[Substitution]),
    lanes: &[LoggedLane],
    drawn: Option<&'d mut DrawnWords<'d>>,
) -> Vec<OddRow> {
    let mut order = plan.order.clone();
    let of_step = || lanes.iter().filter(|lane| lane.step == step);
    let Some(generation) = of_step().map(|lane| lane.generation).max() else { return Vec::new() };
    let mut rows = ExpectedRows::new(plan, drawn);
    let mut odd = Vec::new();
    for lane in of_step().filter(|lane| lane.generation == generation) {
        let first = step.0 * u64::from(plan.global_batch) + u64::from(lane.lane.0) * lane.rows.len() as u64;
        for (row, found) in (0..).zip(&lane.rows) {
            let position = first + row;
            let replaced = substitutions.iter().find(|s| s.position == position).map(|s| s.used);
            let sample = replaced.unwrap_or_else(|| order.locate(position));
            let knows_draws = rows.knows_draws();
            let Some(fed) = rows.fed(sample, &order) else { continue };
            let planned = fed.origins.narrow;
            let Some(oddity) = oddity(found, &LoggedRow::from(&fed), planned, knows_draws) else { continue };
            odd.push(OddRow { step, generation, rank: lane.rank, lane: lane.lane, row, position, planned, oddity });
        }
    }
    odd.sort_by_key(|odd| odd.position);
    odd
}

fn oddity(found: &LoggedRow, planned: &LoggedRow, origin: Origin, knows_draws: bool) -> Option<Oddity> {
    let parts: Vec<Option<Origin>> = found.origins().collect();
    if parts.is_empty() || parts.iter().any(|part| *part != Some(origin)) {
        Some(Oddity::From(parts))
    } else if found.keyed != planned.keyed {
        Some(Oddity::Keyed)
    } else {
        (knows_draws && found.drawn != planned.drawn).then_some(Oddity::Drawn)
    }
}
