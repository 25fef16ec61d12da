//! `PIXFLEET_STEP_LOG=<prefix>`: the moment of every committed step, appended to `<prefix>-<worker>.log` as
//! `<nanoseconds since 1970> <step> <generation>`. For measurements that hurt the run: it needs no coordinator, and each
//! line is one write(2), so a kill takes none away.

use std::time::{SystemTime, UNIX_EPOCH};

use pixfleet_cluster::{Generation, Step};

use super::error::TrainError;
use super::worker_log::WorkerLog;

/// The variable that asks for it.
const VARIABLE: &str = "PIXFLEET_STEP_LOG";

/// See the module.
#[derive(Debug)]
pub(crate) struct StepLog(WorkerLog);

impl StepLog {
    /// That of the worker called `name`, if the environment asks for one.
    ///
    /// # Errors
    /// [`TrainError::File`] if it cannot be opened.
    pub(crate) fn from_env(name: &str) -> Result<Option<Self>, TrainError> {
        Ok(WorkerLog::from_env(VARIABLE, name)?.map(Self))
    }

    /// `step` is committed now.
    ///
    /// # Errors
    /// [`TrainError::File`] if it cannot be written.
    pub(crate) fn committed(&mut self, step: Step, generation: Generation) -> Result<(), TrainError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.append(&format!("{} {step} {generation}\n", since.as_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_a_line_and_a_second_life_appends() {
        let dir = tempfile::tempdir().expect("a folder");
        for step in [3, 4] {
            let mut log = StepLog(WorkerLog::open(dir.path().join("s").into(), "w1").expect("writable"));
            log.committed(Step(step), Generation(2)).expect("written");
        }
        let text = std::fs::read_to_string(dir.path().join("s-w1.log")).expect("there");
        let lines: Vec<Vec<u128>> =
            text.lines().map(|l| l.split(' ').map(|n| n.parse().expect("a number")).collect()).collect();
        assert_eq!((lines[0][1..].to_vec(), lines[1][1..].to_vec()), (vec![3, 2], vec![4, 2]));
        assert!(lines[0][0] <= lines[1][0], "{text}");
    }
}
