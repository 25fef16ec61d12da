//! A bar of rows, and a line for each stage: how many questions came up, how many were answered.

use crate::progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pixfleet_annotate::{Job, JobTally};
use std::collections::BTreeMap;

/// See the module.
pub(crate) struct Screen {
    rows: ProgressBar,
    stages: BTreeMap<String, ProgressBar>,
    total: u64,
}

impl Screen {
    pub(crate) fn new(job: &Job) -> Self {
        let all = MultiProgress::new();
        let rows = all.add(progress::bar("annotate", "rows"));
        let style = ProgressStyle::with_template("  {prefix:12} {msg}").expect("the template is well-formed");
        let stage = |name: &str| {
            let line = all.add(ProgressBar::no_length().with_style(style.clone()).with_prefix(name.to_owned()));
            (name.to_owned(), line)
        };
        Self { rows, stages: job.recipe().stages().map(stage).collect(), total: job.rows() }
    }

    pub(crate) fn show(&self, tally: &JobTally) {
        progress::set(&self.rows, tally.rows, self.total);
        for (name, line) in &self.stages {
            let stage = tally.stages.get(name).copied().unwrap_or_default();
            let asked =
                format!("{} answered, {} known before, {} rejected", stage.answered, stage.kept, stage.rejected);
            let tokens = stage.tokens_in + stage.tokens_out;
            line.set_message(match tokens {
                0 => asked,
                _ => format!("{asked}; {tokens} tokens, cost {:.2}", stage.cost),
            });
        }
    }

    pub(crate) fn finish(&self) {
        for line in self.stages.values().chain([&self.rows]) {
            line.finish_and_clear();
        }
    }
}
