//! Counts of what was asked, by stage.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Counts of one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StageTally {
    /// Questions that came up.
    pub questions: u64,
    /// Of these, answered by what the store held.
    pub kept: u64,
    /// Answered by a server.
    pub answered: u64,
    /// Of these, at the second try, after an answer outside the schema.
    pub repaired: u64,
    /// Questions without a usable answer.
    pub rejected: u64,
    /// Fields that were left as they were: they had a value, or `when` said so.
    pub skipped: u64,
    /// Tokens that the model read.
    pub tokens_in: u64,
    /// Tokens that it wrote.
    pub tokens_out: u64,
    /// What the tokens cost, in the recipe's currency.
    pub cost: f64,
}

/// Counts of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct JobTally {
    /// Files that are done.
    pub files: u64,
    /// Rows that are done.
    pub rows: u64,
    /// Their regions.
    pub regions: u64,
    /// By stage.
    pub stages: BTreeMap<String, StageTally>,
}

/// A tally that many tasks add to.
#[derive(Debug, Default)]
pub(crate) struct Tallying(Mutex<JobTally>);

impl Tallying {
    pub(crate) fn add(&self, change: impl FnOnce(&mut JobTally)) {
        change(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    pub(crate) fn stage(&self, name: &str, change: impl FnOnce(&mut StageTally)) {
        self.add(|tally| change(tally.stages.entry(name.to_owned()).or_default()));
    }

    pub(crate) fn get(&self) -> JobTally {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
