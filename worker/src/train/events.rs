//! TensorBoard event files of a run, written by rank 0 into `<run>/tb` where the run's store is a local folder.

use std::path::Path;

use pixfleet_cluster::run::StepReport;
use tensorboard_rs::summary_writer::SummaryWriter;

/// The run's event file.
pub(crate) struct Events(SummaryWriter);

/// Steps between flushes: a curve that is watched moves about once a second.
const FLUSH_STEPS: u64 = 10;

impl Events {
    /// A new event file in `<run>/tb`.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub(crate) fn create(run: &Path) -> std::io::Result<Self> {
        let folder = run.join("tb");
        std::fs::create_dir_all(&folder)?;
        Ok(Self(SummaryWriter::new(folder)))
    }

    /// The curves of one step.
    pub(crate) fn write(&mut self, report: &StepReport) {
        let step = usize::try_from(report.step.0).unwrap_or(usize::MAX);
        let losses = &report.losses;
        let curves = [("global", losses.global), ("crop", losses.crop), ("local", losses.local)];
        for (name, value) in curves.into_iter().chain([("total", Some(losses.total))]) {
            if let Some(value) = value {
                self.scalar(&format!("loss/{name}"), value, step);
            }
        }
        self.scalar("speed/samples_per_s", report.samples as f64 / report.seconds.max(1e-9), step);
        self.scalar("speed/data_wait_s", report.data_wait_s, step);
        self.scalar("speed/collective_wait_s", report.collective_wait_s, step);
        self.scalar("optimizer/lr", report.lr, step);
        for (name, value) in &report.metrics {
            self.scalar(&format!("metrics/{name}"), *value, step);
        }
        if report.step.0.is_multiple_of(FLUSH_STEPS) {
            self.0.flush();
        }
    }

    fn scalar(&mut self, name: &str, value: f64, step: usize) {
        self.0.add_scalar(name, value as f32, step);
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.0.flush();
    }
}
