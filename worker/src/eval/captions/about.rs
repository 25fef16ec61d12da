//! What the report says of the runs in words, and how long they took.

use super::MeasuredRun;
use crate::eval::facts::{StageTime, thousands};

/// The heading of the report.
pub(super) fn title(runs: &[MeasuredRun]) -> String {
    let names: Vec<&str> = runs.iter().rev().map(|run| run.subject.name.as_str()).collect();
    format!("Pictures, regions and fine differences of texts: {}", names.join(" beside "))
}

/// One or two sentences for a reader who never heard of the run.
pub(super) fn lead(run: &MeasuredRun, split: &str) -> String {
    let (subject, model) = (&run.subject, &run.subject.model);
    let trained = subject.spec.as_ref().map_or(String::new(), |spec| {
        let (steps, batch) = (thousands(subject.steps), spec.train.global_batch);
        format!(" It was trained for {steps} steps of {batch} pictures.")
    });
    let seen = subject.spec.as_ref().is_some_and(|spec| spec.data.split == split);
    let unseen = if seen { "" } else { ", none of which it was trained on" };
    format!(
        "Can a model find the picture that a caption describes, the region that an expression means, and the true text among \
         ten that are almost right? This one ({:.1} million parameters, pictures at {side} x {side}) reads texts itself and \
         pools regions from its map of the picture.{trained} Here it meets {} pictures with {} regions of the split \
         \u{201c}{split}\u{201d}{unseen}.",
        model.params.elements() as f64 / 1e6,
        thousands(run.split.images.len() as u64),
        thousands(run.split.regions.len() as u64),
        side = model.vision().image(),
    )
}

/// The stages before the evaluation: those that are known, else the training of each run.
pub(super) fn stages(runs: &[MeasuredRun], known: Vec<StageTime>) -> Vec<StageTime> {
    if !known.is_empty() || runs.len() < 2 {
        return known;
    }
    let training = |run: &MeasuredRun| StageTime {
        name: format!("training of {}", run.label),
        seconds: run.subject.training.seconds(),
    };
    runs.iter().map(training).collect()
}
