//! Faults on purpose, for tests: `PIXFLEET_FAULT="w1:step=5:after=forward"` makes the worker named `w1` kill itself
//! (SIGKILL, no farewell) in step 5 right after its forward, once. `:with=` names another fault than `kill`; several
//! faults stand with commas between them. Nothing happens without the variable.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pixfleet_cluster::Step;
use rustix::process::{Signal, getpid, kill_process};

/// The variable that asks for faults.
const VARIABLE: &str = "PIXFLEET_FAULT";
/// `with=hold` waits until the file `<this>-<step>` is there.
const HOLD_VARIABLE: &str = "PIXFLEET_HOLD";
/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);
/// What `with=slow` adds to a step.
const SLOW: Duration = Duration::from_millis(100);

/// Places within a step where a fault can strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Samples are there, nothing was computed.
    Feed,
    /// Features stand, nothing was exchanged.
    Forward,
    /// Losses are known.
    Exchange,
    /// Gradients are averaged.
    Backward,
    /// Weights are new, the step is not yet reported.
    Optimizer,
}

const POINTS: [(&str, Point); 5] = [
    ("feed", Point::Feed),
    ("forward", Point::Forward),
    ("exchange", Point::Exchange),
    ("backward", Point::Backward),
    ("optimizer", Point::Optimizer),
];

/// What strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: somebody must send SIGCONT.
    Stop,
    /// The process exits with code 1, without a farewell.
    Exit,
    /// SIGABRT, as after a failed assertion of a library.
    Abort,
    /// The trainer thread never comes back; heartbeats go on.
    Hang,
    /// It comes back when a file is there.
    Hold,
    /// This step and all later ones take longer.
    Slow,
    /// The first two lanes are fed in each other's place.
    Swap,
}

const MEANS: [(&str, Means); 8] = [
    ("kill", Means::Kill),
    ("stop", Means::Stop),
    ("exit", Means::Exit),
    ("abort", Means::Abort),
    ("hang", Means::Hang),
    ("hold", Means::Hold),
    ("slow", Means::Slow),
    ("swap", Means::Swap),
];

fn named<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
}

/// One planned fault.
#[derive(Debug)]
pub(crate) struct Fault {
    worker: String,
    step: Step,
    after: Point,
    with: Means,
    struck: AtomicBool,
}

/// A fault that cannot be planned as written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{VARIABLE}=`{text}` is not of the form \
     worker:step=N:after=feed|forward|exchange|backward|optimizer[:with=kill|stop|exit|abort|hang|hold|slow|swap]; \
     several have commas between them"
)]
pub(crate) struct BadFault {
    text: String,
}

/// All planned faults.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// What the environment asks for.
    pub(crate) fn from_env() -> Result<Self, BadFault> {
        let Ok(text) = std::env::var(VARIABLE) else { return Ok(Self::default()) };
        text.split(',').map(Fault::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Strikes if the time has come.
    pub(crate) fn strike(&self, worker: &str, step: Step, point: Point) {
        let process = |fault: &&Fault| fault.with != Means::Swap;
        for fault in self.0.iter().filter(process).filter(|fault| fault.is_due(worker, step, point)) {
            tracing::warn!(worker, %step, ?fault, "a fault on purpose");
            fault.with.strike(step);
        }
    }
}

impl Faults {
    /// Whether the worker is to feed two of its lanes in each other's place, as the feed's mistake: that is for the caller to do.
    pub(crate) fn swaps(&self, worker: &str, step: Step) -> bool {
        self.0.iter().any(|fault| fault.with == Means::Swap && fault.is_due(worker, step, Point::Feed))
    }
}

impl Fault {
    fn parse(text: &str) -> Result<Self, BadFault> {
        let bad = || BadFault { text: text.into() };
        let mut words = text.split(':');
        let worker = words.next().filter(|w| !w.is_empty()).ok_or_else(bad)?.to_string();
        let (mut step, mut after, mut with) = (None, None, Means::Kill);
        for word in words {
            match word.split_once('=').ok_or_else(bad)? {
                ("step", n) => step = Some(Step(n.parse().map_err(|_| bad())?)),
                ("after", name) => after = named(&POINTS, name),
                ("with", name) => with = named(&MEANS, name).ok_or_else(bad)?,
                _ => return Err(bad()),
            }
        }
        let (step, after) = (step.ok_or_else(bad)?, after.ok_or_else(bad)?);
        Ok(Self { worker, step, after, with, struck: AtomicBool::new(false) })
    }

    /// Once, but for those that last.
    fn is_due(&self, worker: &str, step: Step, point: Point) -> bool {
        let lasts = self.with == Means::Slow;
        let now = if lasts { step >= self.step } else { step == self.step };
        let here = self.worker == worker && now && self.after == point;
        here && (!self.struck.swap(true, Ordering::Relaxed) || lasts)
    }
}

impl Means {
    fn strike(self, step: Step) {
        // A signal to oneself cannot fail.
        match self {
            Self::Kill => drop(kill_process(getpid(), Signal::KILL)),
            Self::Stop => drop(kill_process(getpid(), Signal::STOP)),
            Self::Exit => std::process::exit(1),
            Self::Abort => std::process::abort(),
            Self::Hang => loop {
                std::thread::park();
            },
            Self::Hold => hold(std::env::var_os(HOLD_VARIABLE).unwrap_or_default(), step),
            Self::Slow => std::thread::sleep(SLOW),
            // Nothing of the process: the feed's.
            Self::Swap => {}
        }
    }
}

fn hold(mut path: OsString, step: Step) {
    path.push(format!("-{step}"));
    while !Path::new(&path).exists() {
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_once_and_a_slow_worker_stays_slow() {
        let due = |text: &str| {
            let fault = Fault::parse(text).expect("well-formed");
            [4, 5, 5, 6].map(|step| fault.is_due("w1", Step(step), Point::Feed))
        };
        assert_eq!(due("w1:step=5:after=feed:with=hold"), [false, true, false, false]);
        assert_eq!(due("w1:step=5:after=feed:with=slow"), [false, true, true, true]);
        assert_eq!(due("w2:step=5:after=feed"), [false; 4]);
        assert_eq!(due("w1:step=5:after=backward"), [false; 4]);
    }

    #[test]
    fn a_swap_of_lanes_is_the_feeds() {
        let faults = Faults(vec![Fault::parse("w1:step=5:after=feed:with=swap").expect("well-formed")]);
        faults.strike("w1", Step(5), Point::Feed);
        assert_eq!([4, 5, 5].map(|step| faults.swaps("w1", Step(step))), [false, true, false]);
    }

    #[test]
    fn a_fault_is_a_worker_a_step_a_phase_and_a_means() {
        let fault = |text: &str| Fault::parse(text).map(|f| (f.worker, f.step, f.after, f.with));
        let w1 = || "w1".to_string();
        assert_eq!(fault("w1:step=5:after=forward"), Ok((w1(), Step(5), Point::Forward, Means::Kill)));
        assert_eq!(fault("w1:step=5:after=feed:with=hang"), Ok((w1(), Step(5), Point::Feed, Means::Hang)));
        let incomplete = ["", "w1", "w1:step=5", "w1:after=forward"];
        let nonsense =
            ["w1:step=x:after=forward", "w1:step=5:after=lunch", "w1:when=now", "w1:step=5:after=feed:with=joy"];
        for bad in incomplete.into_iter().chain(nonsense) {
            assert!(Fault::parse(bad).is_err(), "{bad}");
        }
    }
}
