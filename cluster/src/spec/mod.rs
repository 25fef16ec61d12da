//! The run file: what a user wrote (TOML) -> what it means ([`RunSpec`], every value present and checked).
//!
//! All unknown keys and all bad values are reported at once, each with its key path. `--set section.key=value`
//! overrides are applied before parsing.

mod check;
mod data;
mod eval;
pub mod ladder;
mod loss;
mod model;
mod needs;
mod optimizer;
mod parse;
mod run;
mod spot;
pub mod terms;

#[cfg(test)]
mod tests;

pub use data::{CropBackground, CropMask, DataSpec, Fit, TextChoice};
pub use eval::EvalSpec;
pub use ladder::{Ladder, Rung};
pub use loss::*;
pub use model::{
    AlphaInit, LastBlock, LogitScaleSpec, ModelSpec, PatchMapMask, TextClipSpec, TextPreset, TextProjSpec, VisionPreset,
};
pub use needs::Needs;
pub use optimizer::{OptimizerSpec, ScheduleSpec};
pub use parse::{Problem, SpecError};
pub use run::{Cache, CheckpointSpec, Precision, Recompute, Reduce, RunSection, TrainSpec};
pub use spot::{SpotProvider, SpotSpec};

use serde::{Deserialize, Serialize};

/// One run, whole: every value that shapes training. Its digest is what a worker must match to join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// `[run]`
    pub run: RunSection,
    /// `[data]`
    pub data: DataSpec,
    /// `[model]`
    pub model: ModelSpec,
    /// `[loss]`
    pub loss: LossSpec,
    /// `[optimizer]`
    pub optimizer: OptimizerSpec,
    /// `[schedule]`
    pub schedule: ScheduleSpec,
    /// `[train]`
    pub train: TrainSpec,
    /// `[checkpoint]`
    pub checkpoint: CheckpointSpec,
    /// `[spot]`
    pub spot: SpotSpec,
    /// `[eval]`
    pub eval: EvalSpec,
}

impl RunSpec {
    /// Parses a run file and applies `key=value` overrides.
    ///
    /// # Errors
    /// [`SpecError`] lists every problem with its key path.
    pub fn parse(toml: &str, overrides: &[String]) -> Result<Self, SpecError> {
        parse::parse(toml, overrides)
    }

    /// Whether `key` (`section.key`) may change between two starts of one run: where things lie, how long to wait, what to keep.
    /// What shapes the weights may not.
    #[must_use]
    pub fn is_neutral(key: &str) -> bool {
        Self::neutral_keys()
            .any(|(section, name)| key.strip_prefix(section).is_some_and(|k| k.strip_prefix('.') == Some(name)))
    }

    /// Sections and keys that may change between two starts.
    fn neutral_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
        let sections: [(&str, &[&str]); 6] = [
            ("run", &RunSection::NEUTRAL),
            ("data", &DataSpec::NEUTRAL),
            ("train", &TrainSpec::NEUTRAL),
            ("checkpoint", &CheckpointSpec::NEUTRAL),
            ("spot", &SpotSpec::NEUTRAL),
            ("eval", &EvalSpec::NEUTRAL),
        ];
        sections.into_iter().flat_map(|(section, keys)| keys.iter().map(move |key| (section, *key)))
    }

    /// What the run needs of its data and its towers.
    #[must_use]
    pub fn needs(&self) -> Needs {
        Needs::of(&self.loss, &self.data)
    }

    /// How long everybody waits for what.
    #[must_use]
    pub fn ladder(&self) -> Ladder {
        Ladder::of(&self.run, &self.train)
    }

    /// The whole spec as TOML, every value written out but timeouts that only follow from others
    /// ([`RunSpec::ladder`]). Parses back to the same spec.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a checked spec has only TOML types")
    }

    /// blake3 of the spec's JSON, in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).expect("a checked spec has only JSON types");
        blake3::hash(&json).to_hex().to_string()
    }
}
