//! What the report says of a run besides its measurements: headline facts, tables, and their keys in `report.json`.

use super::subject::Subject;
use crate::report::{FactTable, RunFacts};
use anyhow::{Context, Result};
use pixfleet_cluster::spec::{GlobalLoss, RunSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// How long a stage before the evaluation took; `pixfleet demo` writes a list of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct StageTime {
    /// What was done.
    pub(crate) name: String,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// Reads a file of stages: a JSON list of `{"name": ..., "seconds": ...}`.
///
/// # Errors
/// A file that is not such a list.
pub(crate) fn stages(path: &Path) -> Result<Vec<StageTime>> {
    let failed = || format!("{} is not a list of stages", path.display());
    let text = std::fs::read_to_string(path).with_context(failed)?;
    serde_json::from_str(&text).with_context(failed)
}

/// The facts of `subject`; `seconds` is the evaluation's own time.
pub(crate) fn facts(subject: &Subject, stages: &[StageTime], seconds: f64) -> RunFacts {
    let training = &subject.training;
    let parameters = subject.model.params.elements();
    let (samples, speed) = (training.samples(), training.samples_per_s());
    let before: f64 = if stages.is_empty() { training.seconds() } else { stages.iter().map(|s| s.seconds).sum() };
    let mut keys = Map::new();
    let mut put = |name: &str, value: Value| keys.insert(name.into(), value);
    put("run", subject.name.clone().into());
    put("steps", subject.steps.into());
    put("samples_seen", samples.into());
    put("samples_per_s", tenth(speed).into());
    put("train_s", tenth(training.seconds()).into());
    put("eval_s", tenth(seconds).into());
    put("wall_s", tenth(before + seconds).into());
    put("workers", training.world.into());
    put("members_lost", training.losses.into());
    put("parameters", parameters.into());
    let mut chips = vec![("parameters".into(), thousands(parameters))];
    if !training.steps.is_empty() {
        chips.insert(0, ("steps".into(), thousands(subject.steps)));
        chips.insert(1, ("samples seen".into(), thousands(samples)));
        chips.insert(2, ("samples/s".into(), format!("{speed:.0}")));
        chips.insert(3, ("workers".into(), training.world.to_string()));
    }
    let mut tables = subject.spec.as_ref().map(|spec| settings(spec, subject)).unwrap_or_default();
    tables.push(times(subject, stages, before, seconds));
    RunFacts { chips, tables, keys }
}

/// Keys of a run that stands beside another: what its training was, each key with `_` and `label` behind it.
pub(crate) fn keys_of(subject: &Subject, label: &str, keys: &mut Map<String, Value>) {
    let training = &subject.training;
    let mut put = |name: &str, value: Value| keys.insert(format!("{name}_{label}"), value);
    put("run", subject.name.clone().into());
    put("steps", subject.steps.into());
    put("samples_seen", training.samples().into());
    put("samples_per_s", tenth(training.samples_per_s()).into());
    put("train_s", tenth(training.seconds()).into());
}

/// One or two sentences for a reader who never heard of the run.
pub(crate) fn lead(subject: &Subject, split: &str, regions: usize, images: usize) -> String {
    let size = subject.model.vision().image();
    let parameters = subject.model.params.elements() as f64 / 1e6;
    let trained = match (&subject.spec, subject.training.world) {
        (Some(spec), world) if world > 0 => format!(
            " It was trained for {} steps of {} samples by {world} worker{}.",
            thousands(subject.steps),
            spec.train.global_batch,
            if world == 1 { "" } else { "s" }
        ),
        _ => String::new(),
    };
    let unseen = if subject.spec.as_ref().is_some_and(|s| s.data.split == split) {
        ""
    } else {
        ", none of which it was trained on"
    };
    format!(
        "Can a model find the one region of a picture that a text describes? This one ({parameters:.1} million parameters, \
         pictures at {size} x {size}) sees a picture together with a mask of the region.{trained} Here it meets {} \
         regions in {} pictures of the split \u{201c}{split}\u{201d}{unseen}.",
        thousands(regions as u64),
        thousands(images as u64),
    )
}

fn settings(spec: &RunSpec, subject: &Subject) -> Vec<FactTable> {
    let row = |name: &str, value: String| (name.to_owned(), value);
    let start = if spec.model.weights.is_empty() { "from scratch".into() } else { spec.model.weights.clone() };
    let mut model = vec![row("vision tower", word(&spec.model.vision)), row("start", start)];
    if spec.model.text.reads_tokens() {
        let lengths = format!("{} (long captions {})", spec.data.short_tokens, spec.data.long_tokens);
        model.extend([row("text tower", word(&spec.model.text)), row("most tokens", lengths)]);
    } else {
        let adapter = &spec.model.text_proj;
        model.push(row("text vectors", format!("{} ({} numbers)", subject.data.vectors, adapter.width)));
        model.push(row("text adapter", format!("{} layers, hidden {}", adapter.layers, adapter.hidden)));
    }
    model.push(row("precision", word(&spec.train.precision)));
    let training = vec![
        row("losses", losses(spec)),
        row("global batch", format!("{} in {} lanes", spec.train.global_batch, spec.train.lanes)),
        row("steps", format!("{}, {} of them warm-up", thousands(spec.schedule.steps), spec.schedule.warmup)),
        row(
            "learning rate",
            format!("{:e} (alpha {:e}, text {:e})", spec.optimizer.lr, spec.optimizer.alpha_lr, spec.optimizer.text_lr),
        ),
        row("weight decay", spec.optimizer.weight_decay.to_string()),
        row(
            "training text",
            format!("{}, long with probability {}", word(&spec.data.text), spec.data.long_probability),
        ),
        if spec.needs().draws_region() {
            row("whole-image pairs", spec.data.common_pair.to_string())
        } else {
            row("regions of a picture", format!("at most {}", spec.data.regions))
        },
        row("seed", spec.run.seed.to_string()),
    ];
    vec![FactTable { heading: "Model", rows: model }, FactTable { heading: "Training", rows: training }]
}

/// The preset and what it stands for.
fn losses(spec: &RunSpec) -> String {
    let preset = word(&spec.loss.preset);
    let of = match spec.loss.global {
        GlobalLoss::MaskText => format!("crop {}, local {}", word(&spec.loss.crop), word(&spec.loss.local)),
        GlobalLoss::Captions => {
            let needs = spec.needs();
            let terms: Vec<_> = needs.terms().iter().map(|t| format!("{} {}", t.name, t.coefficient)).collect();
            terms.join(", ")
        }
    };
    format!("{preset} ({of})")
}

fn times(subject: &Subject, stages: &[StageTime], before: f64, own: f64) -> FactTable {
    let clock = |seconds: f64| format!("{:.0} s", seconds);
    let mut rows: Vec<(String, String)> = stages.iter().map(|s| (s.name.clone(), clock(s.seconds))).collect();
    if stages.is_empty() && !subject.training.steps.is_empty() {
        rows.push(("training".into(), clock(subject.training.seconds())));
    }
    rows.push(("evaluation".into(), clock(own)));
    rows.push(("in all".into(), clock(before + own)));
    FactTable { heading: "Time", rows }
}

/// An enum's value as it stands in a run file.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// `23456` as `23 456`, with a narrow no-break space.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let plain = |n| thousands(n).replace('\u{202f}', " ");
        assert_eq!([plain(7), plain(999), plain(1000), plain(3_312_641)], ["7", "999", "1 000", "3 312 641"]);
    }

    #[test]
    fn a_file_of_stages_keeps_its_order() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("stages.json");
        std::fs::write(&path, r#"[{"name":"compose","seconds":61.5},{"name":"train","seconds":270}]"#)
            .expect("written");
        let read = stages(&path).expect("stages");
        assert_eq!(read.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["compose", "train"]);
        std::fs::write(&path, "{}").expect("written");
        assert!(stages(&path).expect_err("no list").to_string().contains("is not a list of stages"));
    }
}
