//! Faults on purpose, for tests: `PIXFLEET_FAULT="w1:step=5:after=forward"` makes the worker named `w1` kill itself
//! (SIGKILL, no farewell) in step 5 right after its forward. Nothing happens without the variable.

use pixfleet_cluster::Step;

/// The variable that asks for a fault.
pub(crate) const VARIABLE: &str = "PIXFLEET_FAULT";

/// Places within a step where a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Features stand, nothing was exchanged.
    Forward,
    /// Losses are known.
    Exchange,
    /// Gradients are averaged.
    Backward,
    /// Weights are new, the step is not yet reported.
    Optimizer,
}

impl Phase {
    const NAMES: [(&'static str, Self); 4] = [
        ("forward", Self::Forward),
        ("exchange", Self::Exchange),
        ("backward", Self::Backward),
        ("optimizer", Self::Optimizer),
    ];
}

/// One planned death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    worker: String,
    step: Step,
    after: Phase,
}

/// A fault that cannot be planned as written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}=`{text}` is not of the form worker:step=N:after=forward|exchange|backward|optimizer")]
pub(crate) struct BadFault {
    text: String,
}

impl Fault {
    /// What the environment asks for.
    pub(crate) fn from_env() -> Result<Option<Self>, BadFault> {
        std::env::var(VARIABLE).ok().map(|text| Self::parse(&text)).transpose()
    }

    fn parse(text: &str) -> Result<Self, BadFault> {
        let bad = || BadFault { text: text.into() };
        let mut words = text.split(':');
        let worker = words.next().filter(|w| !w.is_empty()).ok_or_else(bad)?.to_string();
        let (mut step, mut after) = (None, None);
        for word in words {
            match word.split_once('=').ok_or_else(bad)? {
                ("step", n) => step = Some(Step(n.parse().map_err(|_| bad())?)),
                ("after", name) => after = Phase::NAMES.iter().find(|(n, _)| *n == name).map(|(_, phase)| *phase),
                _ => return Err(bad()),
            }
        }
        Ok(Self { worker, step: step.ok_or_else(bad)?, after: after.ok_or_else(bad)? })
    }

    /// Kills this process if the time has come.
    pub(crate) fn strike(&self, worker: &str, step: Step, phase: Phase) {
        if self.worker == worker && self.step == step && self.after == phase {
            // SIGKILL cannot fail on oneself, and nothing runs after it.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_worker_a_step_and_a_phase() {
        let fault = Fault::parse("w1:step=5:after=forward").expect("well-formed");
        assert_eq!(fault, Fault { worker: "w1".into(), step: Step(5), after: Phase::Forward });
        for bad in ["", "w1", "w1:step=x:after=forward", "w1:step=5:after=lunch", "w1:step=5", "w1:when=now"] {
            assert!(Fault::parse(bad).is_err(), "{bad}");
        }
    }
}
