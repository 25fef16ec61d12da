//! What a chaos came to, as JSON and as a table.

use super::plan::StrikeKind;
use super::record::Fault;
use super::setup::StepPace;
use super::verdict::{Claim, Comparison};
use crate::stats::Spread;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct ChaosReport {
    pub(super) seed: u64,
    pub(super) minutes: f64,
    /// Whether each process had a host of its own.
    pub(super) hosts: bool,
    pub(super) calm: StepPace,
    pub(super) storm: StepPace,
    pub(super) kinds: BTreeMap<String, Row>,
    pub(super) comparison: Comparison,
    pub(super) claims: Vec<Claim>,
    pub(super) faults: Vec<Fault>,
}

/// All faults of a kind.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    count: usize,
    /// To the next committed step.
    next_commit: Option<Spread>,
    /// Of these, faults that struck while no other one lasted.
    alone: usize,
    alone_next_commit: Option<Spread>,
    pause_max_s: f64,
    steps_redone: usize,
}

impl Row {
    fn of(faults: &[&Fault]) -> Self {
        let spread = |faults: &mut dyn Iterator<Item = &&Fault>| {
            Spread::of(&faults.filter_map(|f| f.healed_s).collect::<Vec<_>>())
        };
        let alone = |f: &&&Fault| f.overlaps.is_empty();
        Self {
            count: faults.len(),
            next_commit: spread(&mut faults.iter()),
            alone: faults.iter().filter(alone).count(),
            alone_next_commit: spread(&mut faults.iter().filter(alone)),
            pause_max_s: faults.iter().map(|f| f.pause_s).fold(0.0, f64::max),
            steps_redone: faults.iter().map(|f| f.redone).sum(),
        }
    }
}

/// By kind, in their own order, all together last.
pub(super) fn rows(faults: &[Fault]) -> BTreeMap<String, Row> {
    let of = |kind: StrikeKind| faults.iter().filter(|f| f.kind == kind).collect::<Vec<_>>();
    let kinds = StrikeKind::ALL.iter().map(|&(kind, _)| (kind.word(), Row::of(&of(kind))));
    kinds.chain([("total".to_string(), Row::of(&faults.iter().collect::<Vec<_>>()))]).collect()
}

impl ChaosReport {
    /// Whether every claim holds.
    pub(super) fn is_good(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header([
            "fault",
            "count",
            "p50 s",
            "p99 s",
            "alone",
            "p50 s",
            "p99 s",
            "longest pause s",
            "steps redone",
        ]);
        let order = StrikeKind::ALL.iter().map(|(kind, _)| kind.word()).chain(["total".to_string()]);
        for (word, row) in order.filter_map(|word| Some((word.clone(), self.kinds.get(&word)?))) {
            if row.count == 0 {
                continue;
            }
            let s =
                |spread: Option<Spread>, of: fn(Spread) -> f64| spread.map_or("-".into(), |s| format!("{:.2}", of(s)));
            table.add_row([
                word,
                row.count.to_string(),
                s(row.next_commit, |s| s.p50_s),
                s(row.next_commit, |s| s.p99_s),
                row.alone.to_string(),
                s(row.alone_next_commit, |s| s.p50_s),
                s(row.alone_next_commit, |s| s.p99_s),
                format!("{:.2}", row.pause_max_s),
                row.steps_redone.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let pace = |name: &str, p: &StepPace| {
            let (steps, workers, each, whole) = (p.steps, p.workers, p.step_s, p.whole_s);
            format!("{name}: {steps} steps by {workers} workers, {each:.3} s each in the median, {whole:.0} s in all")
        };
        let mut lines = vec![
            table.to_string(),
            "p50, p99: from the fault to the next committed step; alone: while no other fault lasted.".into(),
            pace("undisturbed", &self.calm),
            pace("disturbed", &self.storm),
            format!(
                "seed {}, {}: {} generations, {} leaders",
                self.seed,
                if self.hosts { "each process on a host of its own" } else { "all processes on one host" },
                self.comparison.generations,
                self.comparison.leaders
            ),
        ];
        for claim in &self.claims {
            let word = if claim.holds { "yes" } else { "NO " };
            lines.push(format!("{word}  {}: {}", claim.what, claim.found));
        }
        lines.join("\n")
    }
}
