//! The evaluation report: one HTML file with everything inline, and `report.json` with the numbers. This room only
//! renders what it is given; it measures and reads nothing.

mod benchmarks;
pub(crate) mod gallery;
pub(crate) mod hard;
mod page;
pub(crate) mod plots;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_captions;

use crate::eval::benchmarks::result::BenchmarkResult;
use crate::eval::captions::measure::Measures;
use crate::eval::scores::{Evaluated, TextKind};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// All that the page shows.
#[derive(Debug, Clone)]
pub(crate) struct EvalReport {
    /// What was evaluated, as a heading.
    pub(crate) title: String,
    /// One or two sentences for a reader who never heard of the run.
    pub(crate) lead: String,
    /// What was measured.
    pub(crate) findings: Findings,
    /// Loss per term over steps, of each run.
    pub(crate) losses: Vec<LossCurve>,
    /// Samples per second over steps.
    pub(crate) speed: Option<plots::Plot>,
    /// How it was made.
    pub(crate) facts: RunFacts,
}

/// What was measured, by system.
#[derive(Debug, Clone)]
pub(crate) enum Findings {
    /// PixCLIP: regions shown by their masks.
    Masks {
        /// The measurements, one per kind of text.
        results: Vec<Evaluated>,
        /// What texts find, one per kind of text.
        galleries: Vec<Gallery>,
    },
    /// FG-CLIP: captions, regions and hard negatives.
    Captions(CaptionFindings),
    /// Benchmarks of the papers, of either.
    Benchmarks(Vec<BenchmarkResult>),
}

/// What was measured of FG-CLIP's runs.
#[derive(Debug, Clone)]
pub(crate) struct CaptionFindings {
    /// Name and numbers of each run; the last is the one that was evaluated, one before it stands beside.
    pub(crate) runs: Vec<(String, Measures)>,
    /// Regions and the texts that they chose.
    pub(crate) gallery: Vec<hard::HardQuery>,
}

/// The losses of a run.
#[derive(Debug, Clone)]
pub(crate) struct LossCurve {
    /// The run's name; shown where there are two.
    pub(crate) run: String,
    /// A line per term.
    pub(crate) plot: plots::Plot,
}

/// What the texts of one kind find.
#[derive(Debug, Clone)]
pub(crate) struct Gallery {
    /// The kind.
    pub(crate) text: TextKind,
    /// The queries shown.
    pub(crate) queries: Vec<gallery::Query>,
}

/// What is known of the run, in the order it is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunFacts {
    /// Under the heading: what is counted, and its value.
    pub(crate) chips: Vec<(String, String)>,
    /// At the end of the page.
    pub(crate) tables: Vec<FactTable>,
    /// Further keys of `report.json`.
    pub(crate) keys: Map<String, Value>,
}

/// Names and values under a heading.
#[derive(Debug, Clone)]
pub(crate) struct FactTable {
    /// The heading.
    pub(crate) heading: &'static str,
    /// Name and value.
    pub(crate) rows: Vec<(String, String)>,
}

impl EvalReport {
    /// `report.json`: an object with facts of the run, then the numbers. Where a run stands beside, the plain keys are of the
    /// one that was evaluated, and both have keys that end in their names. Of benchmarks, a list with an object for each.
    pub(crate) fn json(&self) -> Value {
        let mut keys = self.facts.keys.clone();
        match &self.findings {
            Findings::Benchmarks(results) => return results.iter().map(|result| result.json(&keys)).collect(),
            Findings::Masks { results, .. } => results.iter().for_each(|result| result.keys(&mut keys)),
            Findings::Captions(CaptionFindings { runs, .. }) => {
                if let Some((_, main)) = runs.last() {
                    main.keys(&mut keys);
                }
                if runs.len() > 1 {
                    runs.iter().for_each(|(run, measures)| measures.keys_of(run, &mut keys));
                }
            }
        }
        Value::Object(keys)
    }

    /// Writes `report.html` and `report.json` into `dir`; the path of the page.
    pub(crate) fn write(&self, dir: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
        let html = dir.join("report.html");
        std::fs::write(&html, page::page(self)).with_context(|| format!("cannot write {}", html.display()))?;
        let json = dir.join("report.json");
        let text =
            serde_json::to_string_pretty(&self.json()).context("the report has a number that JSON cannot hold")?;
        std::fs::write(&json, text + "\n").with_context(|| format!("cannot write {}", json.display()))?;
        Ok(html)
    }
}
