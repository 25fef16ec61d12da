//! One JSON object per line on standard output: a step, or an event (`lost`, `left`, `respawned`, `straggler`,
//! `diverged`, `coordinator`, `state`, `checkpoint`, `evaluation`, `finished`).
//! A step that is done again after a loss, or told again to a new coordinator, is printed again; the last line of a step
//! counts.

use super::children::Exit;
use pixfleet_proto::pb;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

/// A committed step. `step` comes first, so that a line can be found by its beginning.
#[derive(Debug, Serialize)]
pub(crate) struct StepLine {
    step: u64,
    steps: u64,
    generation: u64,
    world: u32,
    epoch: u64,
    /// By term, with their `total`.
    losses: BTreeMap<String, f64>,
    lr: f64,
    samples: u64,
    samples_per_s: f64,
    seconds: f64,
    data_wait_s: f64,
    collective_wait_s: f64,
    substitutions: usize,
    metrics: BTreeMap<String, f64>,
}

/// The line of a step; `None` if the notice lacks its report.
pub(crate) fn step(done: &pb::StepDone) -> Option<String> {
    let report = done.report.clone()?;
    let losses = report.losses?;
    let line = StepLine {
        step: report.step,
        steps: done.steps,
        generation: report.generation,
        world: done.world,
        epoch: done.epoch,
        losses: losses.named().map(|(term, loss)| (term.to_string(), loss)).collect(),
        lr: report.lr,
        samples: report.samples,
        samples_per_s: done.samples_per_s,
        seconds: report.seconds,
        data_wait_s: report.data_wait_s,
        collective_wait_s: report.collective_wait_s,
        substitutions: report.substitutions.len(),
        metrics: report.metrics.into_iter().collect(),
    };
    Some(serde_json::to_string(&line).expect("the line has only JSON types"))
}

/// The line of a lost worker; `exit` if its end was seen.
pub(crate) fn lost(loss: &pb::LossNotice, exit: Option<&Exit>) -> String {
    event(json!({
        "event": "lost",
        "worker": loss.name,
        "pid": loss.pid,
        "generation": loss.generation,
        "cause": loss.cause,
        "signal": exit.and_then(|e| e.status.signal()),
        "exit_code": exit.and_then(|e| e.status.code()),
    }))
}

/// The line of a worker that left by its own wish.
pub(crate) fn left(left: &pb::LeftNotice) -> String {
    event(json!({ "event": "left", "worker": left.name, "reason": left.reason }))
}

/// The line of a worker that was started again.
pub(crate) fn respawned(name: &str) -> String {
    event(json!({ "event": "respawned", "worker": name }))
}

/// The line of a worker that has become slower than the others: its own time a step, against their median.
pub(crate) fn straggler(straggler: &pb::StragglerNotice) -> String {
    event(json!({ "event": "straggler", "worker": straggler.name, "ratio": straggler.ratio }))
}

/// The line of a worker whose weights are not those of the others.
pub(crate) fn diverged(diverged: &pb::DivergedNotice) -> String {
    event(json!({
        "event": "diverged",
        "worker": diverged.name,
        "rank": diverged.rank,
        "next_step": diverged.next_step,
    }))
}

/// The line of the coordinator: `lost`, `restarted` or `found`, with how or where.
pub(crate) fn coordinator(state: &str, detail: &str) -> String {
    event(json!({ "event": "coordinator", "state": state, "detail": detail }))
}

/// The line of a checkpoint that was evaluated; `results` is what `pixfleet eval --bench --json` says.
pub(crate) fn evaluation(results: &Value) -> String {
    let brief = results_of(results)
        .map(|(result, steps)| json!({ "benchmark": result["benchmark"], "steps": steps, "scores": result["scores"] }));
    event(json!({ "event": "evaluation", "results": brief.collect::<Vec<_>>() }))
}

/// The same in a line for people.
pub(crate) fn evaluation_text(results: &Value) -> String {
    let percent =
        |(key, value): (&String, &Value)| format!("{key} {:.1} %", 100.0 * value.as_f64().unwrap_or(f64::NAN));
    let one = |(result, steps): (&Value, &Value)| {
        let scores: Vec<_> = result["scores"].as_object().into_iter().flatten().map(percent).collect();
        format!("step {steps}: {}: {}", result["title"].as_str().unwrap_or_default(), scores.join(", "))
    };
    results_of(results).map(one).collect::<Vec<_>>().join("\n")
}

fn results_of(results: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    results.as_array().into_iter().flatten().map(|result| (result, &result["steps"]))
}

/// The line of an evaluation that ended with an error.
pub(crate) fn evaluation_failed(cause: &str) -> String {
    event(json!({ "event": "evaluation", "failed": cause }))
}

/// The line of a change of state.
pub(crate) fn state(state: &pb::StateNotice) -> String {
    event(json!({
        "event": "state",
        "state": state.state,
        "generation": state.generation,
        "world": state.world,
        "next_step": state.next_step,
    }))
}

/// The line of a checkpoint.
pub(crate) fn checkpoint(checkpoint: &pb::CheckpointNotice) -> String {
    event(json!({ "event": "checkpoint", "next_step": checkpoint.step, "manifest": checkpoint.key }))
}

/// The line of the end.
pub(crate) fn finished(outcome: &str, message: &str) -> String {
    event(json!({ "event": "finished", "outcome": outcome, "message": message }))
}

fn event(value: Value) -> String {
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_line_has_the_promised_keys_with_the_step_first() {
        let losses = pb::Losses { terms: [("region".into(), 1.5)].into(), total: 1.5 };
        let report = pb::StepReport {
            step: 3,
            generation: 2,
            losses: Some(losses),
            lr: 0.1,
            samples: 8,
            ..pb::StepReport::default()
        };
        let done = pb::StepDone { report: Some(report), world: 2, epoch: 0, samples_per_s: 16.0, steps: 20 };
        let line = step(&done).expect("whole");
        assert!(line.starts_with("{\"step\":3,"), "{line}");
        let value: Value = serde_json::from_str(&line).expect("JSON");
        for key in ["generation", "world", "losses", "lr", "samples", "samples_per_s", "epoch"] {
            assert!(!value[key].is_null(), "{key} is missing in {line}");
        }
        assert_eq!(value["losses"], json!({ "region": 1.5, "total": 1.5 }));
    }

    #[test]
    fn a_loss_line_names_the_signal() {
        let exit = Exit { name: "w1".into(), pid: 7, status: std::process::ExitStatus::from_raw(9) };
        let loss = pb::LossNotice { name: "w1".into(), pid: 7, ..pb::LossNotice::default() };
        let value: Value = serde_json::from_str(&lost(&loss, Some(&exit))).expect("JSON");
        assert_eq!((value["signal"].as_i64(), value["exit_code"].as_i64()), (Some(9), None));
    }
}
