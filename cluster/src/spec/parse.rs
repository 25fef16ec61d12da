//! TOML text + overrides -> [`RunSpec`], collecting every problem.

use super::{LossPreset, LossSpec, RunSpec, check};
use serde::Deserialize;
use std::fmt;
use toml::{Table, Value};

/// One thing that is wrong with a run file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key path, for instance `train.lanes`.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
}

/// Everything that is wrong with a run file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SpecError {
    /// In the order of the sections.
    pub problems: Vec<Problem>,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(f, "the run file has {n} problem{}:", if n == 1 { "" } else { "s" })?;
        for p in &self.problems {
            write!(f, "\n  {}: {}", p.key, p.message)?;
        }
        Ok(())
    }
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

const SECTIONS: [&str; 10] =
    ["run", "data", "model", "loss", "optimizer", "schedule", "train", "checkpoint", "spot", "eval"];

pub(super) fn parse(text: &str, overrides: &[String]) -> Result<RunSpec, SpecError> {
    let mut root: Table =
        text.parse().map_err(|e: toml::de::Error| one("(file)", format!("not TOML: {}", e.message())))?;
    for o in overrides {
        apply(&mut root, o)?;
    }
    let mut problems: Vec<Problem> = Vec::new();
    for key in root.keys().filter(|k| !SECTIONS.contains(&k.as_str())) {
        problems.push(Problem::new(key, format!("unknown section; expected one of {}", SECTIONS.join(", "))));
    }
    let loss = loss_table(&mut root, &mut problems);
    let spec = (|| {
        Some(RunSpec {
            run: section(&root, "run", &mut problems)?,
            data: section(&root, "data", &mut problems)?,
            model: section(&root, "model", &mut problems)?,
            loss: typed("loss", loss, &mut problems)?,
            optimizer: section(&root, "optimizer", &mut problems)?,
            schedule: section(&root, "schedule", &mut problems)?,
            train: section(&root, "train", &mut problems)?,
            checkpoint: section(&root, "checkpoint", &mut problems)?,
            spot: section(&root, "spot", &mut problems)?,
            eval: section(&root, "eval", &mut problems)?,
        })
    })();
    if let Some(spec) = &spec {
        check::check(spec, &mut problems);
    }
    match spec {
        Some(spec) if problems.is_empty() => Ok(spec),
        _ => Err(SpecError { problems }),
    }
}

fn one(key: &str, message: String) -> SpecError {
    SpecError { problems: vec![Problem::new(key, message)] }
}

/// `[loss]` on top of its preset's values.
fn loss_table(root: &mut Table, problems: &mut Vec<Problem>) -> Value {
    let written = match root.remove("loss") {
        Some(Value::Table(t)) => t,
        _ => Table::new(),
    };
    let preset = match written.get("preset").cloned().map(LossPreset::deserialize) {
        None => LossPreset::Default,
        Some(Ok(p)) => p,
        Some(Err(e)) => {
            problems.push(Problem::new("loss.preset", e.message().to_string()));
            LossPreset::Default
        }
    };
    let mut values = Table::try_from(LossSpec::preset(preset)).expect("a preset has only TOML types");
    values.extend(written.into_iter().filter(|(k, _)| k != "preset"));
    Value::Table(values)
}

fn section<T: for<'de> Deserialize<'de>>(root: &Table, name: &str, problems: &mut Vec<Problem>) -> Option<T> {
    typed(name, root.get(name).cloned().unwrap_or_else(|| Value::Table(Table::new())), problems)
}

fn typed<T: for<'de> Deserialize<'de>>(name: &str, value: Value, problems: &mut Vec<Problem>) -> Option<T> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut unknown = Vec::new();
    let parsed = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));
    for path in unknown {
        problems.push(Problem::new(
            format!("{name}.{path}"),
            "unknown key; see `pixfleet train --print-plan` for all keys",
        ));
    }
    match parsed {
        Ok(v) => Some(v),
        Err(e) => {
            let e: toml::de::Error = e;
            let path = track.path().to_string();
            let key = if path == "." { name.to_string() } else { format!("{name}.{path}") };
            problems.push(Problem::new(key, e.message().to_string()));
            None
        }
    }
}

/// `section.key=value`; the value is TOML if it parses as such, else a string.
fn apply(root: &mut Table, text: &str) -> Result<(), SpecError> {
    let (path, value) =
        text.split_once('=').ok_or_else(|| one("--set", format!("`{text}` is not of the form section.key=value")))?;
    let value: Value = format!("v = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(value.to_string()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|k| !k.is_empty()).ok_or_else(|| one("--set", format!("`{text}` names no key")))?;
    let mut table = root;
    for k in keys {
        table = table
            .entry(k)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| one("--set", format!("`{path}`: `{k}` is not a section")))?;
    }
    table.insert(last.to_string(), value);
    Ok(())
}
