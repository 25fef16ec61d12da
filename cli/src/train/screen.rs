//! What a person or a program sees of a run: a progress bar on standard error, or JSON lines on standard output.

use super::Log;
use super::children::Exit;
use super::log_line;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use pixfleet_proto::pb;
use serde_json::Value;
use std::io::Write;
use std::time::{Duration, Instant};

/// Without a terminal the bar becomes a line now and then.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
const TEMPLATE: &str = "{prefix} {bar:24} {pos}/{len} {wide_msg} {elapsed} ETA {eta}";
/// Columns of [`TEMPLATE`] without prefix, numbers of steps and message: `1000d` is the longest time.
const BESIDE: usize = 24 + 1 + 5 + 3 + 5 + 5;

/// See the module.
pub(crate) struct Screen {
    log: Log,
    bar: ProgressBar,
    /// Columns of the bar beside its message.
    beside: usize,
    plain: Option<Instant>,
    first_step: Option<u64>,
    stepped: bool,
    /// The last line of a state: a notice that says the same again is no news.
    state: String,
}

impl Screen {
    pub(crate) fn new(log: Log, run: &str, steps: u64) -> Self {
        let bar = match log {
            Log::Json => ProgressBar::hidden(),
            Log::Bar => ProgressBar::new(steps),
        };
        bar.set_style(ProgressStyle::with_template(TEMPLATE).expect("a constant template"));
        bar.set_prefix(run.to_string());
        let beside = run.chars().count() + 2 * steps.to_string().len() + BESIDE;
        Self { log, bar, beside, plain: None, first_step: None, stepped: false, state: String::new() }
    }

    /// Columns that the bar leaves for its message; a line of its own has no end.
    fn room(&self) -> usize {
        let width = (!self.bar.is_hidden()).then(|| console::Term::stderr().size_checked()).flatten();
        width.map_or(usize::MAX, |(_, columns)| usize::from(columns).saturating_sub(self.beside))
    }

    pub(crate) fn step(&mut self, done: &pb::StepDone) -> Result<()> {
        self.stepped = true;
        if self.log == Log::Json {
            return log_line::step(done).map_or(Ok(()), |line| out(&line));
        }
        let Some(report) = &done.report else { return Ok(()) };
        if self.first_step.is_none() {
            self.first_step = Some(report.step);
            // A resumed run: the estimate must not count what an earlier life has done.
            self.bar.set_position(report.step);
            self.bar.reset_eta();
        }
        self.bar.set_position(report.step + 1);
        let message = sentence(report, done, self.room());
        if self.bar.is_hidden() && self.plain.is_none_or(|at| at.elapsed() >= PLAIN_EVERY) {
            self.plain = Some(Instant::now());
            eprintln!("step {}/{} {message}", report.step + 1, done.steps);
        }
        self.bar.set_message(message);
        Ok(())
    }

    pub(crate) fn state(&mut self, state: &pb::StateNotice) -> Result<()> {
        match self.log {
            Log::Json => {
                let line = log_line::state(state);
                if std::mem::replace(&mut self.state, line.clone()) == line { Ok(()) } else { out(&line) }
            }
            Log::Bar => {
                if self.first_step.is_none() || state.state != "training" {
                    self.bar.set_message(format!("{} ({} workers)", state.state, state.world));
                }
                Ok(())
            }
        }
    }

    pub(crate) fn checkpoint(&mut self, checkpoint: &pb::CheckpointNotice) -> Result<()> {
        match self.log {
            Log::Json => out(&log_line::checkpoint(checkpoint)),
            Log::Bar => Ok(()),
        }
    }

    pub(crate) fn lost(&mut self, loss: &pb::LossNotice, exit: Option<&Exit>) -> Result<()> {
        let how = exit.map(|e| format!(" ({})", e.how())).unwrap_or_default();
        self.event(log_line::lost(loss, exit), &format!("{} was lost: {}{how}", loss.name, loss.cause))
    }

    pub(crate) fn left(&mut self, left: &pb::LeftNotice) -> Result<()> {
        self.event(log_line::left(left), &format!("{} left: {}", left.name, left.reason))
    }

    pub(crate) fn respawned(&mut self, name: &str) -> Result<()> {
        self.event(log_line::respawned(name), &format!("{name} is started again"))
    }

    pub(crate) fn straggler(&mut self, straggler: &pb::StragglerNotice) -> Result<()> {
        let pb::StragglerNotice { name, ratio, .. } = straggler;
        let text = format!("{name} holds the others up: its own time a step is {ratio:.1} times theirs");
        self.event(log_line::straggler(straggler), &text)
    }

    pub(crate) fn diverged(&mut self, diverged: &pb::DivergedNotice) -> Result<()> {
        let pb::DivergedNotice { name, next_step, .. } = diverged;
        let text = format!("{name} holds other weights than the others at step {next_step}; it takes theirs");
        self.event(log_line::diverged(diverged), &text)
    }

    pub(crate) fn coordinator(&mut self, state: &str, detail: &str) -> Result<()> {
        self.event(log_line::coordinator(state, detail), &format!("the coordinator was {state}: {detail}"))
    }

    /// A checkpoint was evaluated: a JSON list with one result for each benchmark.
    pub(crate) fn evaluated(&mut self, results: &Value) -> Result<()> {
        self.event(log_line::evaluation(results), &log_line::evaluation_text(results))
    }

    pub(crate) fn evaluation_failed(&mut self, cause: &str) -> Result<()> {
        let text = format!("checkpoints are evaluated no more, training goes on: {cause}");
        self.event(log_line::evaluation_failed(cause), &text)
    }

    pub(crate) fn standby_lost(&mut self, how: &str) -> Result<()> {
        let text = format!("a coordinator that stood by was lost and is started again: {how}");
        self.event(log_line::coordinator("standby_lost", how), &text)
    }

    /// A JSON line for programs, or a sentence for people.
    fn event(&self, line: String, text: &str) -> Result<()> {
        match self.log {
            Log::Json => out(&line),
            Log::Bar => {
                self.note(text);
                Ok(())
            }
        }
    }

    /// Whether a step was seen.
    pub(crate) fn has_stepped(&self) -> bool {
        self.stepped
    }

    pub(crate) fn finished(&mut self, outcome: pb::Outcome, message: &str) -> Result<()> {
        let word = outcome.as_str_name().trim_start_matches("OUTCOME_").to_lowercase();
        match self.log {
            Log::Json => out(&log_line::finished(&word, message)),
            Log::Bar => {
                self.bar.abandon_with_message(word);
                Ok(())
            }
        }
    }

    /// A line for people, above the bar.
    pub(crate) fn note(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }
}

/// Losses and speed in a line of at most `room` columns, if the total and the speed do not take more.
fn sentence(report: &pb::StepReport, done: &pb::StepDone, room: usize) -> String {
    let losses = report.losses.clone().unwrap_or_default();
    let (total, speed) = (format!("loss {:.3}", losses.total), format!(" {:.1} samples/s", done.samples_per_s));
    let terms: Vec<String> = losses.terms.iter().map(|(name, loss)| format!(" {name} {loss:.3}")).collect();
    let terms = fitting(&terms, room.saturating_sub(total.len() + speed.len()));
    format!("{total}{terms}{speed}")
}

/// The first of `terms` as far as `room` columns hold them; an ellipsis stands for the others.
fn fitting(terms: &[String], room: usize) -> String {
    let columns = |n: usize| terms[..n].iter().map(String::len).sum::<usize>();
    if columns(terms.len()) <= room {
        return terms.concat();
    }
    let fit = (0..terms.len()).rev().find(|&n| columns(n) + 2 <= room).unwrap_or(0);
    format!("{} …", terms[..fit].concat())
}

/// A line on standard output, at once: whoever reads it may be waiting for it.
fn out(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_holds_as_many_terms_as_there_is_room_for() {
        let terms =
            [("hard", 2.0), ("long", 1.5), ("region", 0.25)].map(|(name, loss)| (name.to_string(), loss)).into();
        let report = pb::StepReport { losses: Some(pb::Losses { terms, total: 3.5 }), ..pb::StepReport::default() };
        let done = pb::StepDone { samples_per_s: 48.0, ..pb::StepDone::default() };
        let whole = "loss 3.500 hard 2.000 long 1.500 region 0.250 48.0 samples/s";
        for (room, line) in [
            (usize::MAX, whole),
            (whole.len(), whole),
            (whole.len() - 1, "loss 3.500 hard 2.000 long 1.500 … 48.0 samples/s"),
            (48, "loss 3.500 hard 2.000 … 48.0 samples/s"),
            (0, "loss 3.500 … 48.0 samples/s"),
        ] {
            assert_eq!(sentence(&report, &done, room), line, "{room} columns");
        }
    }
}
