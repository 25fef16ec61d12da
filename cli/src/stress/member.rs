//! One member: it says what a worker says, over a session of its own, and computes nothing.

use super::fleet::{Cue, StressBook};
use pixfleet_cluster::ledger::Losses;
use pixfleet_cluster::run::{Form, Join, LeaveKind, Left, Order, PartReport, Report, Standing, StepReport};
use pixfleet_cluster::{Generation, Manifest, PartEntry, Rank, Step};
use pixfleet_proto::{Reports, Session};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};

/// First pause between two attempts to open a session; each further one is twice as long, up to a second.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Every rank says that its weights are the same.
const DIGEST: u64 = 7;
/// Values that workers report with each step.
const METRICS: [&str; 10] = [
    "grad_norm",
    "logit_scale",
    "forward_s",
    "exchange_s",
    "backward_s",
    "optimizer_s",
    "gather_s",
    "reduce_wait_s",
    "reduce_bytes",
    "flops",
];

/// Its place in a generation.
struct StressSeat {
    generation: Generation,
    rank: Rank,
    world: u32,
}

/// See the module.
pub(super) struct StressMember {
    number: u32,
    /// Samples of a step.
    batch: u32,
    join: Join,
    cues: watch::Receiver<Cue>,
    book: Arc<StressBook>,
    seat: Option<StressSeat>,
    /// The step that it would run next; `None`: it has no state.
    at: Option<Step>,
    /// Steps that no coordinator has said to be in the store.
    owed: VecDeque<StepReport>,
}

/// How a session ended.
enum Parting {
    /// There is nothing more to say.
    Over,
    Broken(String),
}

impl StressMember {
    pub(super) fn new((number, batch): (u32, u32), cues: watch::Receiver<Cue>, book: Arc<StressBook>) -> Self {
        let (name, device) = (format!("m{number}"), "cpu".into());
        let join = Join { name, host: super::HOST.into(), pid: super::pid_of(number), device, ..Join::default() };
        Self { number, batch, join, cues, book, seat: None, at: None, owed: VecDeque::new() }
    }

    /// From its first session to the run's end, or its own.
    pub(super) async fn run(mut self) {
        while let Some((life, mut session)) = self.connect().await {
            match self.talk(&mut session).await {
                Parting::Over => return,
                Parting::Broken(how) => self.book.broke(life, self.number, &how),
            }
        }
    }

    /// A session with the coordinator of the newest cue; `None`: it is to die first.
    async fn connect(&mut self) -> Option<(u32, Session)> {
        let mut pause = PAUSE_FIRST;
        loop {
            let cue = self.cues.borrow_and_update().clone();
            if cue.kills(self.number) {
                return None;
            }
            if let Some(mut client) = cue.client_of(self.number) {
                match Session::open(&mut client, self.join.clone(), self.owed.len()).await {
                    Ok(session) => return Some((cue.life, session)),
                    Err(error) => tracing::debug!(self.number, %error, "no session"),
                }
            }
            let gone = tokio::select! {
                changed = self.cues.changed() => changed.is_err(),
                () = tokio::time::sleep(pause), if cue.leads() => false,
            };
            if gone {
                return None;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn talk(&mut self, session: &mut Session) -> Parting {
        let welcome = match session.next().await {
            Ok(Some(Order::Welcome(welcome))) => welcome,
            Ok(other) => return Parting::Broken(format!("instead of a welcome: {other:?}")),
            Err(error) => return Parting::Broken(error.to_string()),
        };
        self.join.member = Some(welcome.member);
        let reports = session.reports();
        self.greet(&reports);
        self.book.welcomed(welcome.leader);
        // Twice as often as it must, as workers do; not all at once.
        let beat = Duration::from_millis(welcome.heartbeat_ms / 2);
        let mut beats = interval_at(Instant::now() + beat.mul_f64(f64::from(self.number % 100 + 1) / 100.0), beat);
        loop {
            let parting = tokio::select! {
                order = session.next() => match order {
                    Ok(Some(order)) => self.ordered(&reports, order),
                    Ok(None) => Some(Parting::Broken("the coordinator hung up".into())),
                    Err(error) => Some(Parting::Broken(error.to_string())),
                },
                changed = self.cues.changed() => self.cued(&reports, changed.is_ok()),
                _ = beats.tick() => {
                    say(&reports, Report::Heartbeat { next_step: self.at });
                    None
                }
            };
            if let Some(parting) = parting {
                return parting;
            }
        }
    }

    /// What it owes, and where it stands.
    fn greet(&mut self, reports: &Reports) {
        for owed in &self.owed {
            say(reports, Report::Committed(owed.clone()));
        }
        let standing = match (&self.seat, self.at) {
            (Some(seat), Some(next_step)) => Standing::Training { generation: seat.generation, next_step },
            (Some(_), None) | (None, _) => Standing::Free { next_step: self.at, digest: self.at.map(|_| DIGEST) },
        };
        say(reports, Report::Standing(standing));
        self.step_on(reports);
    }

    fn ordered(&mut self, reports: &Reports, order: Order) -> Option<Parting> {
        match order {
            Order::Form(form) => self.form(reports, &form),
            Order::Abort { generation, .. } => self.leave(reports, generation),
            Order::Recorded { through } => while self.owed.pop_front_if(|owed| owed.step <= through).is_some() {},
            Order::Yield { .. } => {
                self.book.yields();
                self.finish(reports);
            }
            Order::Stop { outcome, .. } => {
                self.book.stopped(outcome);
                return Some(Parting::Over);
            }
            Order::Welcome(_) | Order::Prepare(_) | Order::Withdraw { .. } | Order::Checkpointed { .. } => {}
        }
        None
    }

    fn cued(&mut self, reports: &Reports, told: bool) -> Option<Parting> {
        if !told || self.cues.borrow_and_update().kills(self.number) {
            return Some(Parting::Over);
        }
        self.step_on(reports);
        None
    }

    fn form(&mut self, reports: &Reports, form: &Form) {
        let Some(next_step) = form.start_step else { return };
        self.owed.clear();
        let (generation, rank, world) = (form.generation, form.rank, form.world());
        self.seat = Some(StressSeat { generation, rank, world });
        self.at = Some(next_step);
        say(reports, Report::Ready { generation, next_step });
        self.book.formed(generation);
    }

    /// Its generation is over.
    fn leave(&mut self, reports: &Reports, generation: Generation) {
        let Some(seat) = self.seat.take_if(|seat| seat.generation <= generation) else { return };
        let left = Left {
            generation: seat.generation,
            next_step: self.at,
            digest: Some(DIGEST),
            kind: LeaveKind::Aborted,
            message: "aborted".into(),
            lost_rank: None,
        };
        say(reports, Report::Left(left));
    }

    /// Commits the steps that the cue lets it do.
    fn step_on(&mut self, reports: &Reports) {
        let through = self.cues.borrow().through;
        let (Some(seat), Some(at)) = (&self.seat, &mut self.at) else { return };
        while at.0 < through {
            let report = step_report(seat, *at, (self.number, self.batch));
            *at = at.next();
            self.owed.push_back(report.clone());
            say(reports, Report::Committed(report));
        }
    }

    /// Its part of the last checkpoint, which nobody will read, and that it is done.
    fn finish(&self, reports: &Reports) {
        let (Some(seat), Some(step)) = (&self.seat, self.at) else { return };
        let path = Manifest::part_key(step, seat.generation, seat.rank, seat.world);
        let entry = PartEntry { path, rank: seat.rank, bytes: 0, blake3: String::new(), tensors: Vec::new() };
        say(reports, Report::Part(PartReport { generation: seat.generation, step, entry }));
        say(reports, Report::Finished { generation: seat.generation, next_step: step });
    }
}

/// A session that is gone shows where orders come from.
fn say(reports: &Reports, report: Report) {
    let _ = reports.try_send(report);
}

/// A step as rank after rank tells it: the same but for its own times.
fn step_report(seat: &StressSeat, step: Step, (number, batch): (u32, u32)) -> StepReport {
    let own = f64::from(number % 17) / 100.0;
    StepReport {
        generation: seat.generation,
        step,
        losses: Losses::new([("global", 1.0), ("crop", 0.5)], 1.5 / (1.0 + step.0 as f64)),
        lr: 1e-4,
        samples: batch.into(),
        seconds: 1.0,
        data_wait_s: 0.01,
        collective_wait_s: own,
        digest: Some(DIGEST),
        metrics: METRICS.iter().map(|name| ((*name).to_string(), own)).collect(),
        ..StepReport::default()
    }
}
