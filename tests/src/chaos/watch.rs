//! How far the disturbed run is, for whoever waits: a bar on a terminal, a line every few seconds elsewhere.

use super::record::Fault;
use crate::steps::{self, Commit};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Watch {
    steps: u64,
    bar: Option<ProgressBar>,
    begun: Instant,
    told: Instant,
}

impl Watch {
    /// Of a run of so many steps.
    pub(super) fn new(steps: u64) -> Self {
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} steps, {msg}");
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps);
            style.into_iter().for_each(|style| bar.set_style(style));
            bar
        });
        let now = Instant::now();
        Self { steps, bar, begun: now, told: now }
    }

    /// Says where the run is, if it is time to.
    pub(super) fn tell(&mut self, commits: &[Commit], faults: &[Fault]) {
        if self.told.elapsed() < EVERY && self.bar.is_none() {
            return;
        }
        self.told = Instant::now();
        let done = commits.iter().map(|c| c.step + 1).max().unwrap_or(0);
        let (generation, members) = steps::newest(commits);
        let open = faults.iter().filter(|f| f.healed.is_none()).count();
        let last = faults.last().map_or("none yet".into(), |f| format!("the last {} of {}", f.kind.word(), f.target));
        let words =
            format!("generation {generation} of {}, {} faults, {open} not healed, {last}", members.len(), faults.len());
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(words);
            }
            None => {
                let seconds = self.begun.elapsed().as_secs();
                // Whoever closed standard error does not want to know.
                let _ = writeln!(std::io::stderr(), "{seconds:>5} s: step {done} of {}, {words}", self.steps);
            }
        }
    }

    /// The run is over.
    pub(super) fn end(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}
