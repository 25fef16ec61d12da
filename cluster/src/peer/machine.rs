//! See the module above.

use crate::ids::{Generation, MemberId};
use crate::run::{
    Form, Join, Left, MedianStep, Now, Order, Outcome, PartReport, Prepared, Report, Standing, StepReport, Switched,
};
use crate::spec::{Ladder, Rung};
use std::collections::VecDeque;
use std::time::Duration;

/// First pause between two attempts to reach a coordinator; each further one is twice as long, up to
/// [`Rung::ReconnectPause`].
const PAUSE_FIRST: Duration = Duration::from_millis(20);

/// What the trainer says.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// Model and data are open.
    Warm,
    /// The group stands and the state is in place.
    Ready {
        /// Which membership.
        generation: Generation,
        /// The step that runs now.
        next_step: crate::Step,
    },
    /// The optimizer has run.
    Committed(StepReport),
    /// Out of the generation.
    Left(Left),
    /// In the next one, by itself, or at the side of those who are.
    Switched(Switched),
    /// A share of a checkpoint is in the store.
    Part(PartReport),
    /// All steps are done and the own part is in the store.
    Finished {
        /// Which membership.
        generation: Generation,
        /// Steps done.
        next_step: crate::Step,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerEvent {
    /// A session is open; nothing was said yet.
    Connected,
    /// It broke, or could not be opened.
    Broken {
        /// The transport's words.
        how: String,
    },
    /// The coordinator said something.
    Ordered(Order),
    /// The store says that the run is over.
    RunClosed {
        /// How it ended.
        outcome: Outcome,
    },
    /// The trainer said something.
    Trainer(Word),
    /// SIGTERM, or notice that this machine will be taken away.
    Leave {
        /// Why.
        reason: String,
    },
    /// [`Peer::deadline`] has come.
    Tick,
}

/// What must now be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerEffect {
    /// Find the coordinator that leads and open a session with it.
    Connect,
    /// Say this to it.
    Send(Report),
    /// End the session.
    HangUp,
    /// Tell the trainer to take its place in a generation.
    Train(Form),
    /// Tell it that this generation is over.
    Abort(Generation),
    /// Tell it which generation to go over into when all ranks hold it.
    Prepare(Prepared),
    /// Tell it not to.
    Withdraw(Generation),
    /// Tell it to checkpoint and finish after the step in flight.
    Yield(Generation),
    /// End this process.
    Exit {
        /// How the run ended for this worker.
        outcome: Outcome,
        /// The first cause of a fault, else empty.
        message: String,
    },
}

/// What the ledger may not hold yet.
#[derive(Debug, Clone)]
enum Owed {
    Step(StepReport),
    Switched(Switched),
}

impl Owed {
    fn report(&self) -> Report {
        match self {
            Self::Step(step) => Report::Committed(step.clone()),
            Self::Switched(switched) => Report::Switched(*switched),
        }
    }

    /// The record of `through` stands behind it.
    fn is_covered(&self, through: crate::Step) -> bool {
        match self {
            Self::Step(step) => step.step <= through,
            Self::Switched(switched) => switched.start_step <= through,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// No session since `since`; the next attempt at `again`.
    Down { since: Now, again: Now },
    /// An attempt is under way.
    Opening { since: Now },
    /// A session is open, but the coordinator has not answered.
    Greeting { since: Now },
    /// It has.
    Up { beat: Now },
}

/// See the module.
#[derive(Debug)]
pub struct Peer {
    join: Join,
    ladder: Ladder,
    contact: Contact,
    pause: Duration,
    heartbeat: Duration,
    /// The highest leader seen.
    leader: u64,
    /// `None`: not warm yet.
    standing: Option<Standing>,
    /// How long the own steps take.
    steps: MedianStep,
    /// Committed steps whose records may not be in the store, and generations that were gone over into by then.
    owed: VecDeque<Owed>,
    /// Parts whose manifest may not be.
    parts: Vec<PartReport>,
    leaving: Option<String>,
    /// When this machine last looked at the clock.
    seen: Now,
    over: bool,
    effects: Vec<PeerEffect>,
}

impl Peer {
    /// A worker that has not looked for its coordinator yet. The first [`PeerEvent::Tick`] makes it do so.
    #[must_use]
    pub fn new(now: Now, join: Join, ladder: Ladder) -> Self {
        Self {
            join,
            ladder,
            contact: Contact::Down { since: now, again: now },
            pause: PAUSE_FIRST,
            heartbeat: ladder[Rung::HeartbeatInterval] / 2,
            leader: 0,
            standing: None,
            steps: MedianStep::default(),
            owed: VecDeque::new(),
            parts: Vec::new(),
            leaving: None,
            seen: now,
            over: false,
            effects: Vec::new(),
        }
    }

    /// The run file is known now: it came with the welcome.
    pub fn set_ladder(&mut self, ladder: Ladder) {
        self.ladder = ladder;
    }

    /// How long to wait for what, as steps take here.
    #[must_use]
    pub fn limit(&self, rung: Rung) -> Duration {
        self.ladder.measured(rung, self.steps.get())
    }

    /// What the run file does not leave enough time for, as steps take here.
    #[must_use]
    pub fn outgrown(&self) -> Option<String> {
        self.ladder.outgrown(self.steps.get()?)
    }

    /// Whether a coordinator listens.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.contact, Contact::Up { .. })
    }

    /// The number that it was given.
    #[must_use]
    pub fn member(&self) -> Option<MemberId> {
        self.join.member
    }

    /// Reports that no coordinator has made durable yet.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Whether the report of `step` is one of them.
    #[must_use]
    pub fn owes(&self, step: crate::Step) -> bool {
        self.owed.iter().any(|owed| matches!(owed, Owed::Step(report) if report.step == step))
    }

    /// When [`PeerEvent::Tick`] must come at the latest. Never later than half the time after which this worker would
    /// count as lost, so that a long gap means that the process was stopped.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        if self.over {
            return None;
        }
        let contact = match self.contact {
            Contact::Down { again, .. } => again,
            Contact::Up { beat } => beat,
            Contact::Opening { since } | Contact::Greeting { since } => since + self.ladder[Rung::CoordinatorPatience],
        };
        Some(contact.min(self.seen + self.ladder[Rung::HeartbeatTimeout] / 2))
    }

    /// Takes in what happened at `now` and says what must be done.
    pub fn handle(&mut self, now: Now, event: PeerEvent) -> Vec<PeerEffect> {
        if self.over {
            return Vec::new();
        }
        self.notice_gap(now);
        match event {
            PeerEvent::Connected => self.connected(),
            PeerEvent::Broken { how } => self.broken(now, &how),
            PeerEvent::Ordered(order) => self.ordered(now, order),
            PeerEvent::RunClosed { outcome } => self.exit(outcome, closing_words(outcome)),
            PeerEvent::Trainer(word) => self.heard(word),
            PeerEvent::Leave { reason } => self.leave(reason),
            PeerEvent::Tick => self.tick(now),
        }
        std::mem::take(&mut self.effects)
    }

    fn say(&mut self, report: Report) {
        if self.is_up() {
            self.effects.push(PeerEffect::Send(report));
        }
    }

    fn exit(&mut self, outcome: Outcome, message: String) {
        self.over = true;
        self.effects.push(PeerEffect::Exit { outcome, message });
    }

    /// A process that was stopped and goes on must not touch what the others have gone on with.
    fn notice_gap(&mut self, now: Now) {
        let gap = now.saturating_sub(self.seen);
        self.seen = now;
        if gap >= self.ladder[Rung::HeartbeatTimeout]
            && let Some(generation) = self.generation()
        {
            self.effects.push(PeerEffect::Abort(generation));
        }
    }

    /// The generation that the trainer is in.
    fn generation(&self) -> Option<Generation> {
        match self.standing? {
            Standing::Free { .. } => None,
            Standing::Forming { generation }
            | Standing::Training { generation, .. }
            | Standing::Finished { generation, .. } => Some(generation),
        }
    }

    fn connected(&mut self) {
        let Contact::Opening { since } = self.contact else { return };
        self.contact = Contact::Greeting { since };
        let join = self.join.clone();
        self.effects.push(PeerEffect::Send(Report::Join(join)));
    }

    fn broken(&mut self, now: Now, how: &str) {
        let since = match self.contact {
            Contact::Up { .. } => {
                self.pause = PAUSE_FIRST;
                now
            }
            Contact::Down { since, .. } | Contact::Opening { since } | Contact::Greeting { since } => since,
        };
        let patience = self.ladder[Rung::CoordinatorPatience];
        if now.saturating_sub(since) >= patience {
            let patience = patience.as_secs_f64();
            return self.exit(Outcome::Fault, format!("no coordinator for {patience:.0} s: {how}"));
        }
        self.contact = Contact::Down { since, again: now + self.pause };
        self.pause = (self.pause * 2).min(self.longest_pause());
    }

    /// Who trains can wait for a coordinator; who is out of a generation waits for nothing else.
    fn longest_pause(&self) -> Duration {
        let parked = matches!(self.standing, Some(Standing::Free { next_step: Some(_), .. }));
        self.ladder[if parked { Rung::ParkedPause } else { Rung::ReconnectPause }]
    }

    /// What it may wait for by where it stands now.
    fn look_sooner(&mut self, now: Now) {
        self.pause = self.pause.min(self.longest_pause());
        if let Contact::Down { since, again } = self.contact {
            self.contact = Contact::Down { since, again: again.min(now + self.pause) };
        }
    }

    fn tick(&mut self, now: Now) {
        match self.contact {
            Contact::Down { since, again } if now >= again => {
                self.contact = Contact::Opening { since };
                self.effects.push(PeerEffect::Connect);
            }
            Contact::Up { beat } if now >= beat => {
                self.contact = Contact::Up { beat: now + self.heartbeat };
                self.say(Report::Heartbeat { next_step: self.next_step() });
            }
            Contact::Opening { since } | Contact::Greeting { since }
                if now >= since + self.ladder[Rung::CoordinatorPatience] =>
            {
                self.effects.push(PeerEffect::HangUp);
                self.broken(now, "it does not answer");
            }
            Contact::Down { .. } | Contact::Opening { .. } | Contact::Greeting { .. } | Contact::Up { .. } => {}
        }
    }

    fn next_step(&self) -> Option<crate::Step> {
        match self.standing? {
            Standing::Free { next_step, .. } => next_step,
            Standing::Forming { .. } => None,
            Standing::Training { next_step, .. } | Standing::Finished { next_step, .. } => Some(next_step),
        }
    }

    fn ordered(&mut self, now: Now, order: Order) {
        match order {
            Order::Welcome(welcome) if welcome.leader < self.leader => {
                // It was deposed and has not noticed yet.
                self.effects.push(PeerEffect::HangUp);
                self.broken(now, "it does not lead any more");
            }
            Order::Welcome(welcome) => {
                self.leader = welcome.leader;
                self.join.member = Some(welcome.member);
                self.heartbeat = Duration::from_millis((welcome.heartbeat_ms / 2).max(10));
                self.pause = PAUSE_FIRST;
                self.contact = Contact::Up { beat: now + self.heartbeat };
                self.tell_all();
            }
            _ if !self.is_up() => {}
            Order::Form(form) => self.train(form),
            Order::Abort { generation, .. } => self.effects.push(PeerEffect::Abort(generation)),
            Order::Prepare(prepared) => self.effects.push(PeerEffect::Prepare(prepared)),
            Order::Withdraw { generation } => self.effects.push(PeerEffect::Withdraw(generation)),
            Order::Yield { generation } => self.effects.push(PeerEffect::Yield(generation)),
            Order::Recorded { through } => while self.owed.pop_front_if(|owed| owed.is_covered(through)).is_some() {},
            Order::Checkpointed { step, .. } => self.parts.retain(|part| part.step > step),
            Order::Stop { outcome, message } => self.exit(outcome, message),
        }
    }

    /// What this worker owes, oldest first, and then where it stands.
    fn tell_all(&mut self) {
        let owed: Vec<_> = self.owed.iter().map(Owed::report).collect();
        for report in owed {
            self.say(report);
        }
        for part in self.parts.clone() {
            self.say(Report::Part(part));
        }
        if let Some(standing) = self.standing {
            self.say(Report::Standing(standing));
        }
        if let Some(reason) = self.leaving.clone() {
            self.say(Report::Leaving { reason });
        }
    }

    fn train(&mut self, form: Form) {
        let standing = Standing::Forming { generation: form.generation };
        self.standing = Some(standing);
        self.parts.clear();
        if form.start_step.is_some() {
            // It is ordered only after all records before it are in the store.
            self.owed.clear();
        } else {
            // Those who train hear of it when all who are to join hold it.
            self.say(Report::Standing(standing));
        }
        self.effects.push(PeerEffect::Train(form));
    }

    fn heard(&mut self, word: Word) {
        match word {
            Word::Warm => {
                let standing = Standing::Free { next_step: None, digest: None };
                self.standing = Some(standing);
                self.say(Report::Standing(standing));
            }
            Word::Ready { generation, next_step } => {
                self.standing = Some(Standing::Training { generation, next_step });
                self.say(Report::Ready { generation, next_step });
            }
            Word::Committed(report) => {
                let (generation, next_step) = (report.generation, report.step.next());
                self.standing = Some(Standing::Training { generation, next_step });
                self.steps.push(Duration::try_from_secs_f64(report.seconds).unwrap_or_default());
                self.owed.push_back(Owed::Step(report.clone()));
                self.say(Report::Committed(report));
            }
            // It was told of the next generation already, and is on its way there.
            Word::Left(left) if self.generation().is_some_and(|ordered| ordered > left.generation) => {}
            Word::Left(left) => {
                self.standing = Some(Standing::Free { next_step: left.next_step, digest: left.digest });
                self.parts.clear();
                self.look_sooner(self.seen);
                self.say(Report::Left(left));
            }
            Word::Switched(switched) => {
                self.standing = Some(Standing::Forming { generation: switched.generation });
                self.parts.clear();
                self.owed.push_back(Owed::Switched(switched));
                self.say(Report::Switched(switched));
            }
            Word::Part(part) => {
                self.parts.push(part.clone());
                self.say(Report::Part(part));
            }
            Word::Finished { generation, next_step } => {
                self.standing = Some(Standing::Finished { generation, next_step });
                self.say(Report::Finished { generation, next_step });
            }
        }
    }

    fn leave(&mut self, reason: String) {
        if self.leaving.is_none() {
            self.leaving = Some(reason.clone());
            self.say(Report::Leaving { reason });
        }
    }
}

fn closing_words(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done | Outcome::Drained => String::new(),
        Outcome::Fault => "the run ended with a fault while this worker had no coordinator".into(),
    }
}
