//! `PIXFLEET_TRACE=STEP:FILE`: what one step does, operation by operation, in Chrome's trace format (Perfetto opens it). Every
//! worker writes a file of its own, `FILE-NAME.json`.

use std::path::PathBuf;

use pixfleet_cluster::Step;
use pixfleet_shim::profile::Profile;
use tch::Device;

use super::error::TrainError;

const VARIABLE: &str = "PIXFLEET_TRACE";

/// Which step is traced, and where to.
#[derive(Debug, PartialEq)]
pub(crate) struct Trace {
    step: u64,
    path: PathBuf,
}

impl Trace {
    /// As the environment of worker `name` says.
    ///
    /// # Errors
    /// A value of another form.
    pub(crate) fn from_env(name: &str) -> Result<Option<Self>, TrainError> {
        std::env::var(VARIABLE).ok().map(|value| Self::parse(&value, name)).transpose()
    }

    fn parse(value: &str, name: &str) -> Result<Self, TrainError> {
        let parsed = value.split_once(':').and_then(|(step, path)| Some((step.parse().ok()?, path)));
        let (step, path) = parsed.filter(|(_, path)| !path.is_empty()).ok_or_else(|| TrainError::Variable {
            name: VARIABLE,
            value: value.into(),
            expected: "STEP:FILE, such as 30:/tmp/trace",
        })?;
        Ok(Self { step, path: format!("{path}-{name}.json").into() })
    }

    /// Runs `work`, traced if this is the step.
    ///
    /// # Errors
    /// Those of `work`; [`TrainError::Device`] where the profiler fails.
    pub(crate) fn around<T>(
        this: Option<&Self>,
        (step, device): (Step, Device),
        work: impl FnOnce() -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let Some(trace) = this.filter(|trace| trace.step == step.0) else { return work() };
        let failed = |source| TrainError::Device { device: super::start::device_name(device), source };
        let profile = Profile::start(device).map_err(failed)?;
        let done = work();
        profile.finish(&trace.path).map_err(failed)?;
        tracing::info!("step {step} is traced in {}", trace.path.display());
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_a_step_and_a_file_and_each_worker_has_its_own() {
        let trace = Trace::parse("30:/tmp/t:1", "w1").expect("of the right form");
        assert_eq!(trace, Trace { step: 30, path: "/tmp/t:1-w1.json".into() });
        for wrong in ["30", "x:/tmp/t", "30:", ""] {
            let error = Trace::parse(wrong, "w0").expect_err("of another form").to_string();
            assert!(error.contains("PIXFLEET_TRACE") && error.contains("30:/tmp/trace"), "{error}");
        }
    }
}
