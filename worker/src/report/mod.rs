//! The evaluation report: one HTML file with everything inline, and `report.json` with the numbers. This room only
//! renders what it is given; it measures and reads nothing.

pub(crate) mod gallery;
mod page;
pub(crate) mod plots;
#[cfg(test)]
mod tests;

use crate::eval::scores::{Evaluated, TextKind};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// All that the page shows.
#[derive(Debug, Clone, Default)]
pub(crate) struct EvalReport {
    /// What was evaluated, as a heading.
    pub(crate) title: String,
    /// One or two sentences for a reader who never heard of the run.
    pub(crate) lead: String,
    /// The measurements, one per kind of text.
    pub(crate) results: Vec<Evaluated>,
    /// Loss per term over steps.
    pub(crate) losses: Option<plots::Plot>,
    /// Samples per second over steps.
    pub(crate) speed: Option<plots::Plot>,
    /// What texts find, one per kind of text.
    pub(crate) galleries: Vec<Gallery>,
    /// How it was made.
    pub(crate) facts: RunFacts,
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
    /// The object of `report.json`: facts of the run, then the numbers of every kind of text.
    pub(crate) fn json(&self) -> Value {
        let mut keys = self.facts.keys.clone();
        for result in &self.results {
            result.keys(&mut keys);
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
