//! How a run drains, pauses and ends: always with a checkpoint that is committed.

use super::event::{Notice, Now, Resume, RunEffect};
use super::machine::{Phase, Run};
use super::messages::{Order, Outcome};
use crate::ids::{Generation, Step};
use crate::ledger::Record;

impl Run {
    pub(super) fn drain(&mut self, now: Now) {
        if self.draining || matches!(self.phase, Phase::Done(_)) {
            return;
        }
        self.draining = true;
        self.emit(RunEffect::Announce(Notice::State));
        if self.phase == Phase::Gathering && self.members.is_empty() {
            return self.finish(Outcome::Drained, String::new());
        }
        self.all_finished(now);
    }

    pub(super) fn stored(&mut self, now: Now, generation: Generation, step: Step, key: String) {
        self.commits.answered(step, generation);
        self.emit(RunEffect::Ledger(Record::Checkpoint { generation, step, manifest: key.clone() }));
        self.emit(RunEffect::Announce(Notice::Checkpoint { step, key: key.clone() }));
        if self.checkpoint.as_ref().is_none_or(|c| c.step <= step) {
            self.checkpoint = Some(Resume { step, key: key.clone() });
        }
        for member in self.active() {
            let order = Order::Checkpointed { generation, step, key: key.clone() };
            self.emit(RunEffect::Send { member, order });
        }
        self.all_finished(now);
        // Everybody may have gone while the store was slow; what they left behind is whole.
        if self.phase == Phase::Gathering && self.members.is_empty() && (self.draining || step.0 >= self.config.steps) {
            self.finish(self.outcome_at(step), String::new());
        }
    }

    pub(super) fn store_failed(&mut self, now: Now, generation: Generation, step: Step, message: String) {
        self.commits.answered(step, generation);
        self.message = format!("the checkpoint of step {step} could not be committed: {message}");
        self.emit(RunEffect::Announce(Notice::CheckpointFailed { step, message }));
        self.all_finished(now);
    }

    /// Once every member has finished: over if the checkpoint of that step is committed, at fault if it never will be.
    pub(super) fn all_finished(&mut self, now: Now) {
        let active = self.members.active();
        let first = active.first().and_then(|&first| self.members.get(first));
        let Some(step) = first.and_then(|m| m.next_step) else { return };
        if matches!(self.phase, Phase::Done(_)) || self.members.finished() < active.len() {
            return;
        }
        let Phase::Training(generation) = self.phase else {
            // While the generation is given up its missing parts are still to come, from the next one.
            if self.is_over(step) && self.is_saved(step) {
                self.finish(self.outcome_at(step), String::new());
            }
            return;
        };
        if self.is_saved(step) {
            if self.is_over(step) {
                return self.finish(self.outcome_at(step), String::new());
            }
            return self.pause(now, generation);
        }
        if self.commits.storing().is_some() {
            return;
        }
        if !self.has_formed {
            // The earlier leader may have told them that the checkpoint is there when it was not, or not yet.
            return self.give_up(now, "its last checkpoint is not to be found".into());
        }
        let cause =
            if self.message.is_empty() { "a part of it was never reported".into() } else { self.message.clone() };
        self.finish(Outcome::Fault, format!("the run stopped at step {step} without its checkpoint: {cause}"));
    }

    fn is_saved(&self, step: Step) -> bool {
        self.checkpoint.as_ref().is_some_and(|c| c.step == step)
    }

    fn is_over(&self, step: Step) -> bool {
        self.draining || step.0 >= self.config.steps
    }

    /// All have checkpointed because too few will be left; the next generation waits for more members.
    fn pause(&mut self, now: Now, generation: Generation) {
        for member in self.active() {
            self.out_of(member);
        }
        self.failure = "the others left".into();
        self.enter(Some(now), Phase::Reforming(generation));
    }

    pub(super) fn outcome_at(&self, step: Step) -> Outcome {
        if step.0 >= self.config.steps { Outcome::Done } else { Outcome::Drained }
    }

    pub(super) fn finish(&mut self, outcome: Outcome, message: String) {
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        self.end_handover();
        self.flush_steps();
        self.emit(RunEffect::Ledger(Record::Closed { outcome: outcome.word().into(), message: message.clone() }));
        for (member, _) in self.members.iter() {
            let order = Order::Stop { outcome, message: message.clone() };
            self.effects.push(RunEffect::Send { member, order });
        }
        self.message = message.clone();
        self.enter(None, Phase::Done(outcome));
        self.emit(RunEffect::Finish { outcome, message });
    }
}
