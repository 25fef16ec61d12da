//! What a measurement came to, as JSON and as a table, alone or beside the peer's.

use super::{HealingArgs, Mode};
use crate::stats::Spread;
use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::spec::Rung;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One fault and what it cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Recovery {
    /// Who was hurt.
    pub(super) target: String,
    /// The generation that was hurt, and its members.
    pub(super) generation: u64,
    pub(super) world: usize,
    /// Whether all workers trained when the fault struck.
    pub(super) whole: bool,
    /// From the signal to the next committed step, that step's own time included; absent: it never came.
    pub(super) from_signal_s: Option<f64>,
    /// The longest time between two commits from the signal until the run was whole again: replacements' joins count.
    pub(super) pause_s: f64,
    /// Committed steps that were committed again.
    pub(super) steps_redone: usize,
    /// Steps committed while the coordinator was dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) while_dead: Option<usize>,
}

/// A measurement. Of the peer's file the summary is read; its events have other fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HealingReport {
    program: String,
    mode: Mode,
    workers: u32,
    faults: usize,
    never_back: usize,
    step_median_s: f64,
    /// From the signal to the next commit, less a median step.
    next_commit: Option<Spread>,
    /// The longest pause around each fault, less a median step.
    #[serde(default)]
    pause: Option<Spread>,
    steps_redone: usize,
    /// After which a stopped worker is given up; of faults of that kind.
    #[serde(default)]
    heartbeat_timeout_s: Option<f64>,
    /// Whether every sample of every epoch was used once; absent: the run did not get to its end.
    #[serde(default)]
    audit_clean: Option<bool>,
    #[serde(default, skip_deserializing)]
    events: Vec<Recovery>,
}

impl HealingReport {
    /// Of `events`, in a run of `spec` whose steps took `step_median_s`.
    pub(super) fn new(
        args: &HealingArgs,
        spec: &RunSpec,
        events: Vec<Recovery>,
        step_median_s: f64,
        audit: Option<bool>,
    ) -> Self {
        let stops = args.mode == Mode::Stop;
        let beyond_a_step =
            |seconds: Vec<f64>| Spread::of(&seconds.iter().map(|s| s - step_median_s).collect::<Vec<_>>());
        let back: Vec<f64> = events.iter().filter_map(|e| e.from_signal_s).collect();
        Self {
            program: "pixfleet".into(),
            mode: args.mode,
            workers: args.workers,
            faults: events.len(),
            never_back: events.len() - back.len(),
            step_median_s,
            next_commit: beyond_a_step(back),
            pause: beyond_a_step(events.iter().map(|e| e.pause_s).collect()),
            steps_redone: events.iter().map(|e| e.steps_redone).sum(),
            heartbeat_timeout_s: stops.then_some(spec.ladder()[Rung::HeartbeatTimeout].as_secs_f64()),
            audit_clean: audit,
            events,
        }
    }

    /// The file that a measurement was written to.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no measurement", path.display()))
    }

    /// Every fault was healed, and the audit is clean.
    pub(super) fn is_good(&self) -> bool {
        self.never_back == 0 && self.faults > 0 && self.audit_clean == Some(true)
    }

    /// A row for this measurement, one for the peer, and one for the ratio if both suffered the same.
    pub(super) fn table(&self, peer: Option<&Self>) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header([
            "program",
            "fault",
            "workers",
            "count",
            "never back",
            "step s",
            "p50 s",
            "p99 s",
            "max s",
            "pause p99 s",
            "steps redone",
        ]);
        table.add_row(self.row());
        if let Some(peer) = peer {
            table.add_row(peer.row());
        }
        if let Some(peer) = peer.filter(|peer| peer.mode == self.mode) {
            table.add_row(self.ratios(peer));
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut lines = vec![table.to_string()];
        lines.push("p50, p99, max: from the signal to the next committed step, less a median step.".into());
        let partial = self.events.iter().filter(|e| !e.whole).count();
        if partial > 0 {
            lines.push(format!("{partial} faults struck a generation of fewer than {} workers.", self.workers));
        }
        if let Some(timeout) = self.heartbeat_timeout_s {
            lines.push(format!("A stopped worker is given up after {timeout} s."));
        }
        if let Some(steps) = self.events.iter().filter_map(|e| e.while_dead).min() {
            lines.push(format!("{steps} steps were committed while the coordinator was dead."));
        }
        lines.push(match self.audit_clean {
            Some(true) => "audit: clean".into(),
            Some(false) => "audit: NOT CLEAN".into(),
            None => "audit: not reached".into(),
        });
        lines.join("\n")
    }

    fn row(&self) -> Vec<String> {
        let mut row = vec![self.program.clone(), format!("{:?}", self.mode).to_lowercase()];
        row.extend([self.workers.to_string(), self.faults.to_string(), self.never_back.to_string()]);
        row.push(format!("{:.3}", self.step_median_s));
        row.extend(figures(self.next_commit).map(seconds));
        row.push(seconds(self.pause.map(|p| p.p99_s)));
        row.push(self.steps_redone.to_string());
        row
    }

    fn ratios(&self, peer: &Self) -> Vec<String> {
        let mut row = vec![format!("{} / {}", peer.program, self.program)];
        row.extend(std::iter::repeat_n(String::new(), 5));
        let pairs = figures(peer.next_commit).into_iter().zip(figures(self.next_commit));
        row.extend(pairs.map(|(theirs, ours)| theirs.zip(ours).map_or("-".into(), |(t, o)| format!("{:.1} x", t / o))));
        row.extend([String::new(), String::new()]);
        row
    }
}

fn figures(spread: Option<Spread>) -> [Option<f64>; 3] {
    [spread.map(|s| s.p50_s), spread.map(|s| s.p99_s), spread.map(|s| s.max_s)]
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or("-".into(), |s| format!("{s:.3}"))
}

#[cfg(test)]
mod tests;
