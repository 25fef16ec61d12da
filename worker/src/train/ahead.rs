//! The feed's steps, the next one staged on the device while the present one runs there.

use std::time::{Duration, Instant};

use pixfleet_cluster::Step;
use pixfleet_shards::batch::Batch;

use super::error::TrainError;
use super::feed::{Feed, StepBatches};
use super::inputs::{StagedStep, Stager};
use super::step::Core;

/// A feed, and at most one step that left it.
pub(crate) struct Ahead {
    feed: Feed,
    stager: Stager,
    /// An error waits here for its turn: the step that runs meanwhile is none the worse for it.
    staged: Option<Result<StagedBatches, TrainError>>,
}

/// One step, staged.
pub(crate) struct StagedBatches {
    /// What is told of the lanes; their planes are in `staged`.
    pub(crate) lanes: Vec<Batch>,
    pub(crate) staged: StagedStep,
    step: Step,
}

impl Ahead {
    /// # Errors
    /// A GPU that gives no stream.
    pub(crate) fn of(feed: Feed, core: &Core) -> Result<Self, TrainError> {
        Ok(Self { feed, stager: Stager::new(&core.needs, core.device)?, staged: None })
    }

    /// The batches of `step`, and how long they were waited for. Cancelled, it loses nothing that comes later.
    ///
    /// # Errors
    /// Those of the feed and of [`Stager::stage`].
    pub(crate) async fn next(&mut self, step: Step) -> Result<(StagedBatches, Duration), TrainError> {
        let started = Instant::now();
        let staged = match self.staged.take() {
            Some(staged) => staged?,
            None => staged(&self.stager, self.feed.next(step).await?.0)?,
        };
        assert_eq!(staged.step, step, "the feed deals steps in order");
        Ok((staged, started.elapsed()))
    }

    /// Stages the next step if it is there.
    pub(crate) fn stage_another(&mut self) {
        if self.staged.is_none() {
            self.staged = self.feed.ready().map(|batches| staged(&self.stager, batches?));
        }
    }
}

fn staged(stager: &Stager, StepBatches { step, mut lanes }: StepBatches) -> Result<StagedBatches, TrainError> {
    let staged = stager.stage(&mut lanes)?;
    Ok(StagedBatches { lanes, staged, step })
}
