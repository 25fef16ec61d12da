//! What the process beside the run says of its checkpoints, and how long it is waited for.

use super::super::children::Exit;
use super::super::evaluations;
use super::Supervisor;
use anyhow::Result;
use pixfleet_cluster::run::Outcome;
use tokio::signal::unix::Signal;

impl Supervisor {
    /// Tells what was evaluated since the last time.
    pub(super) fn tell_evaluations(&mut self) -> Result<()> {
        let news = self.evaluations.as_mut().map(evaluations::Evaluations::news).unwrap_or_default();
        news.iter().try_for_each(|results| self.screen.evaluated(results))
    }

    /// It ended: after the run's last checkpoint, or with an error, of which no step knows.
    pub(super) fn evaluations_ended(&mut self, exit: &Exit) -> Result<()> {
        self.tell_evaluations()?;
        self.evaluations = None;
        match evaluations::failure(&self.children, exit) {
            Some(failure) => self.screen.evaluation_failed(&failure),
            None => Ok(()),
        }
    }

    /// A run that is done has a last checkpoint, which is evaluated too, unless somebody presses Ctrl-C. One that was drained
    /// goes on, and so does its evaluation.
    pub(super) async fn await_evaluations(
        &mut self,
        outcome: Outcome,
        (interrupt, terminate): (&mut Signal, &mut Signal),
    ) -> Result<()> {
        if outcome == Outcome::Done && self.evaluations.is_some() {
            self.screen.note("evaluating the last checkpoint; Ctrl-C leaves it out");
        }
        while outcome == Outcome::Done && self.evaluations.is_some() {
            tokio::select! {
                Some(exit) = self.children.exits.recv() => if exit.name == evaluations::NAME {
                    self.evaluations_ended(&exit)?;
                },
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                () = tokio::time::sleep(evaluations::LOOK) => self.tell_evaluations()?,
            }
        }
        // All others have ended.
        self.children.kill_all();
        Ok(())
    }
}
