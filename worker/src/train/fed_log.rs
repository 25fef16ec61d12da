//! `PIXFLEET_FED_LOG=<prefix>`: what each committed step was fed, row by row, appended to `<prefix>-<worker>.log`: a line of JSON
//! ([`LoggedLane`]) for each lane. The ledger's evidence tells that a step was fed otherwise than planned; `pixfleet audit --bisect`
//! finds the row in here. About 150 bytes a row.

use pixfleet_cluster::evidence::{FedRow, LoggedLane, LoggedRow};
use pixfleet_cluster::{Generation, Lane, Rank, Step};

use super::error::TrainError;
use super::worker_log::WorkerLog;

/// The variable that asks for it.
const VARIABLE: &str = "PIXFLEET_FED_LOG";

/// See the module.
#[derive(Debug)]
pub(crate) struct FedLog(WorkerLog);

impl FedLog {
    /// That of the worker called `name`, if the environment asks for one.
    ///
    /// # Errors
    /// [`TrainError::File`] if it cannot be opened.
    pub(crate) fn from_env(name: &str) -> Result<Option<Self>, TrainError> {
        Ok(WorkerLog::from_env(VARIABLE, name)?.map(Self))
    }

    /// These lanes of a step are committed now; each with its number.
    ///
    /// # Errors
    /// [`TrainError::File`] if it cannot be written.
    pub(crate) fn committed<'f>(
        &mut self,
        (step, generation, rank): (Step, Generation, Rank),
        lanes: impl Iterator<Item = (u32, &'f [FedRow])>,
    ) -> Result<(), TrainError> {
        let mut lines = String::new();
        for (lane, rows) in lanes {
            let rows = rows.iter().map(LoggedRow::from).collect();
            lines.push_str(&LoggedLane { step, generation, rank, lane: Lane(lane), rows }.to_line());
            lines.push('\n');
        }
        self.0.append(&lines)
    }
}
