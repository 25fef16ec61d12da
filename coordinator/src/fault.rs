//! Faults on purpose, for tests: `PIXFLEET_COORDINATOR_FAULT=prepare=1` makes the coordinator kill itself (SIGKILL, no farewell)
//! when it has handed out one order of a prepared generation and is about to hand out the next. Once per process, and
//! nothing happens without the variable.

use pixfleet_cluster::create::Ask;
use pixfleet_cluster::run::Order;
use rustix::process::{Signal, getpid, kill_process};

/// The variable that asks for a fault.
const VARIABLE: &str = "PIXFLEET_COORDINATOR_FAULT";
/// How a segment tells that it prepares a generation.
const PREPARED: &[u8] = b"\"record\":\"prepared\"";

/// Moments at which it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before the record of a prepared generation goes to the store.
    Claim,
    /// When the store has answered, and nobody has heard of the generation.
    Claimed,
    /// Before one more of those that join is told, after so many.
    Form(u32),
    /// Before one more of the ranks that train is told, after so many.
    Prepare(u32),
    /// At the next event after so many ranks were told.
    Told(u32),
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    moment: Option<Moment>,
    /// The record of a prepared generation is on its way.
    claims: bool,
    forms: u32,
    prepares: u32,
}

impl Faults {
    /// What the environment asks for.
    ///
    /// # Errors
    /// A word that says no moment.
    pub(crate) fn from_env() -> Result<Self, String> {
        let Ok(text) = std::env::var(VARIABLE) else { return Ok(Self::default()) };
        let moment = parse(&text).ok_or_else(|| {
            format!("{VARIABLE}={text}: expected claim, claimed, form=N, prepare=N or told=N, as in prepare=1")
        })?;
        Ok(Self { moment: Some(moment), ..Self::default() })
    }

    /// The store is about to be asked.
    pub(crate) fn asks(&mut self, ask: &Ask) {
        if self.moment.is_none() {
            return;
        }
        let prepares = |body: &[u8]| body.windows(PREPARED.len()).any(|part| part == PREPARED);
        if matches!(ask, Ask::Create { body, .. } if prepares(body)) {
            self.claims = true;
            self.strike(self.moment == Some(Moment::Claim));
        }
    }

    /// Something happens.
    pub(crate) fn event(&self, is_answer: bool) {
        let told = matches!(self.moment, Some(Moment::Told(ranks)) if self.prepares >= ranks);
        self.strike(told || (is_answer && self.claims && self.moment == Some(Moment::Claimed)));
    }

    /// An order is about to be handed out.
    pub(crate) fn orders(&mut self, order: &Order) {
        match order {
            Order::Form(form) if form.start_step.is_none() => {
                self.strike(self.moment == Some(Moment::Form(self.forms)));
                self.forms += 1;
            }
            Order::Prepare(_) => {
                self.strike(self.moment == Some(Moment::Prepare(self.prepares)));
                self.prepares += 1;
            }
            Order::Form(_)
            | Order::Welcome(_)
            | Order::Withdraw { .. }
            | Order::Abort { .. }
            | Order::Yield { .. }
            | Order::Recorded { .. }
            | Order::Checkpointed { .. }
            | Order::Stop { .. } => {}
        }
    }

    fn strike(&self, now: bool) {
        if now {
            // Nothing comes after it, and if it fails there is nothing to strike with.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}

fn parse(text: &str) -> Option<Moment> {
    match text.split_once('=') {
        None if text == "claim" => Some(Moment::Claim),
        None if text == "claimed" => Some(Moment::Claimed),
        Some(("form", n)) => n.parse().ok().map(Moment::Form),
        Some(("prepare", n)) => n.parse().ok().map(Moment::Prepare),
        Some(("told", n)) => n.parse().ok().map(Moment::Told),
        None | Some(_) => None,
    }
}
