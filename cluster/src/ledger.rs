//! The ledger: what was done to the weights, record by record, in numbered create-only segments of JSON lines at
//! `<store>/<run>/ledger/<20-digit number>.jsonl`.
//!
//! Nothing is ever rewritten. A [`Record::Formed`] says from which step a generation starts, and thereby cuts off all
//! step records at or beyond it: those were done to weights that did not survive. [`History`] applies the cuts.

use crate::ids::{Generation, MemberId, Step};
use crate::order::SampleId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Losses of one step over the global batch; a branch that is off is absent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Losses {
    /// Branch 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<f64>,
    /// Branch 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<f64>,
    /// Branch 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<f64>,
    /// The weighted sum.
    pub total: f64,
}

/// A bad row and what stood in for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Substitution {
    /// The position whose sample was bad.
    pub position: u64,
    /// The sample that the plan names.
    pub wanted: SampleId,
    /// The sample that was used.
    pub used: SampleId,
    /// What was wrong with it.
    pub reason: String,
}
