//! TensorBoard event files of a run, written by rank 0 into `<run>/tb` where the run's store is a local folder.

mod record;

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use pixfleet_cluster::run::StepReport;

use record::{TfEvent, TfSummary, Value, write_record};

/// Steps between flushes: a curve that is watched moves about once a second.
const FLUSH_STEPS: u64 = 10;

/// The run's event file.
pub(crate) struct Events {
    /// `None` once it could not be written: curves are not worth a run.
    file: Option<BufWriter<File>>,
}

impl Events {
    /// A new event file in `<run>/tb`.
    ///
    /// # Errors
    /// Where the folder or the file cannot be made.
    pub(crate) fn create(run: &Path) -> io::Result<Self> {
        let folder = run.join("tb");
        std::fs::create_dir_all(&folder)?;
        let mut file = BufWriter::new(new_file(&folder)?);
        let version = TfEvent { wall_time: now(), file_version: Some("brain.Event:2".into()), ..TfEvent::default() };
        write_record(&mut file, &version)?;
        file.flush()?;
        Ok(Self { file: Some(file) })
    }

    /// The curves of one step.
    pub(crate) fn write(&mut self, report: &StepReport) {
        let step = report.step.0;
        let event = TfEvent {
            wall_time: now(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            summary: Some(TfSummary { values: curves(report) }),
            ..TfEvent::default()
        };
        self.attempt(|file| write_record(file, &event));
        if step.is_multiple_of(FLUSH_STEPS) {
            self.attempt(Write::flush);
        }
    }

    fn attempt(&mut self, act: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        if let Some(Err(error)) = self.file.as_mut().map(act) {
            tracing::warn!(%error, "the run's event file cannot be written, its curves end here");
            self.file = None;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.attempt(Write::flush);
    }
}

/// TensorBoard knows event files by `tfevents` in their name, and reads those of a folder in the order of their names.
fn new_file(folder: &Path) -> io::Result<File> {
    let (seconds, process) = (now() as u64, std::process::id());
    let mut number = 0u32;
    loop {
        let name = format!("events.out.tfevents.{seconds:010}.pixfleet.{process}.{number}");
        match File::create_new(folder.join(name)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            made => return made,
        }
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn curves(report: &StepReport) -> Vec<Value> {
    let mut values: Vec<Value> =
        report.losses.named().map(|(name, loss)| Value::scalar(format!("loss/{name}"), loss)).collect();
    let speed = report.samples as f64 / report.seconds.max(1e-9);
    values.push(Value::scalar("speed/samples_per_s".into(), speed));
    values.push(Value::scalar("speed/data_wait_s".into(), report.data_wait_s));
    values.push(Value::scalar("speed/collective_wait_s".into(), report.collective_wait_s));
    values.push(Value::scalar("optimizer/lr".into(), report.lr));
    values.extend(report.metrics.iter().map(|(name, value)| Value::scalar(format!("metrics/{name}"), *value)));
    values
}

#[cfg(test)]
mod tests;
