//! Batches of records -> rows: what they mean, their pictures, the checks. Meaning and checks run on threads that may block,
//! pictures are fetched side by side.

use crate::draft::{Draft, Outcome, Picture, PictureCheck};
use crate::error::IngestError;
use crate::formats::{Format, Meant, Reading};
use crate::pictures::Pictures;
use crate::records::{Found, Position};
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

/// Pictures of one batch that are fetched at the same time.
const PARALLEL: usize = 16;

/// How batches are worked on.
pub(crate) struct Work {
    pub(crate) format: Format,
    pub(crate) reading: Reading,
    pub(crate) pictures: Pictures,
    pub(crate) check: PictureCheck,
}

/// What became of a record, and the position after it.
pub(crate) type Done = (Position, Outcome);

impl Work {
    /// What became of the records of a batch, in their order.
    pub(crate) async fn batch(self: Arc<Self>, batch: Vec<Found>) -> Result<Vec<Done>, IngestError> {
        let work = Arc::clone(&self);
        let mean = move || -> Vec<_> {
            batch.into_iter().map(|found| (found.after, work.format.mean(found, &work.reading))).collect()
        };
        let meant = tokio::task::spawn_blocking(mean).await?;
        let fetched = futures::stream::iter(meant).map(|(after, meant)| {
            let work = Arc::clone(&self);
            async move {
                let meant = match meant {
                    Meant::Draft(draft) => work.fetch(draft).await?,
                    refused @ (Meant::Refused(_) | Meant::PassedOver) => refused,
                };
                Ok::<_, IngestError>((after, meant))
            }
        });
        let fetched: Vec<_> = fetched.buffered(PARALLEL).try_collect().await?;
        let check = self.check;
        let finish = move || fetched.into_iter().map(|(after, meant)| (after, outcome(meant, check))).collect();
        Ok(tokio::task::spawn_blocking(finish).await?)
    }

    async fn fetch(&self, mut draft: Box<Draft>) -> Result<Meant, IngestError> {
        if draft.picture != Picture::Elsewhere {
            return Ok(Meant::Draft(draft));
        }
        match self.pictures.get(&draft.row).await? {
            Ok(Some(bytes)) => draft.picture = Picture::Here(bytes),
            Ok(None) => {}
            Err(wrong) => return Ok(Meant::Refused(draft.spot.reject(wrong))),
        }
        Ok(Meant::Draft(draft))
    }
}

fn outcome(meant: Meant, check: PictureCheck) -> Outcome {
    match meant {
        Meant::Draft(draft) => draft.finish(check),
        Meant::Refused(reject) => Outcome { rejects: vec![reject], records: 1, ..Outcome::default() },
        Meant::PassedOver => Outcome { records: 1, passed_over: 1, ..Outcome::default() },
    }
}
