//! The control side of a worker: one task that owns the [`Peer`], carries messages between it, the coordinator and the
//! trainer, and knows the time. It decides nothing, and it computes nothing: no forward and no blocked collective ever
//! delays a heartbeat or an abort, and a healthy step never waits for it.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pixfleet_cluster::peer::{Peer, PeerEffect, PeerEvent, Word};
use pixfleet_cluster::run::{Form, Join, Order, Outcome, Report, Welcome};
use pixfleet_cluster::spec::{Ladder, Rung};
use pixfleet_cluster::{Class, Generation, Rank};
use pixfleet_proto::{Client, FleetError, Patience, Session};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::dial::{Dialling, Missed, Told, dial};
use super::error::TrainError;
use super::meeting::KeyStore;
use super::spot;
use super::start::{Contract, Known};
use super::switches::{Command, Stopped, Switches};

/// Orders that wait for the trainer; a healthy one reads them at once.
const ORDERS_QUEUED_MAX: usize = 64;
/// Words of the trainer that wait for this task, which reads them at once.
const WORDS_QUEUED_MAX: usize = 4096;

/// How a trainer ends; a panic drops the sender.
pub(crate) type TrainerEnd = oneshot::Receiver<Result<(), TrainError>>;
/// Starts the trainer.
pub(crate) type Hire = Box<dyn FnOnce(Contract) -> Result<TrainerEnd, TrainError> + Send>;

/// The way to the coordinator, as it stands.
enum Line {
    Down,
    Dialling(Dialling),
    /// The peer has not said who it is yet.
    Silent(Client),
    Opening(OpeningSession),
    Open(Session),
}

type OpeningSession = Pin<Box<dyn Future<Output = Result<Session, FleetError>> + Send>>;

/// What there is once a coordinator has said what the run is.
struct Hired {
    known: Known,
    orders: mpsc::Sender<Command>,
    trainer: TrainerEnd,
    notice: Pin<Box<dyn Future<Output = spot::SpotNotice> + Send>>,
    /// The generation that the trainer was told to take part in, until it has left it.
    generation: Option<Generation>,
    /// Since when it is to leave that.
    ended: Option<Instant>,
}

/// What wakes the task.
enum Wake {
    Dialled(Result<Client, Missed>),
    Opened(Result<Session, FleetError>),
    Said(Result<Option<Order>, FleetError>),
    Word(Word),
    /// A signal, by name.
    Signal(&'static str),
    Spot(spot::SpotNotice),
    TrainerEnded(Result<Result<(), TrainError>, oneshot::error::RecvError>),
    Tick,
}

/// See the module.
pub(crate) struct PeerDriver {
    /// Where to look for a coordinator as long as the store does not say better.
    told: Told,
    hire: Option<Hire>,
    started: Instant,
    peer: Peer,
    line: Line,
    /// Of generations whose rank 0 this is.
    keys: Arc<KeyStore>,
    switches: Arc<Switches>,
    words: mpsc::Receiver<Word>,
    /// Handed to the trainer.
    mouth: mpsc::Sender<Word>,
    run: Option<Hired>,
    signals: [(Signal, &'static str); 2],
    leaving: bool,
    /// What the last attempt to reach a coordinator met.
    missed: Option<FleetError>,
    /// That steps take longer than the run file leaves time for.
    told_outgrown: bool,
}

impl PeerDriver {
    /// A worker that looks for its coordinator at `told`, introduces itself with `join` and starts its trainer with
    /// `hire` once it knows the run.
    ///
    /// # Errors
    /// If signals cannot be handled.
    pub(crate) fn new(told: Told, join: Join, keys: Arc<KeyStore>, hire: Hire) -> Result<Self, TrainError> {
        let (mouth, words) = mpsc::channel(WORDS_QUEUED_MAX);
        // Until the run file says how long to wait for what.
        let ladder = Ladder::default().with(Rung::CoordinatorPatience, Patience::default().0);
        let on = |kind| signal(kind).map_err(TrainError::Signals);
        Ok(Self {
            told,
            hire: Some(hire),
            started: Instant::now(),
            peer: Peer::new(Duration::ZERO, join, ladder),
            line: Line::Down,
            keys,
            switches: Arc::new(Switches::new()),
            words,
            mouth,
            run: None,
            signals: [(on(SignalKind::terminate())?, "SIGTERM"), (on(SignalKind::interrupt())?, "SIGINT")],
            leaving: false,
            missed: None,
            told_outgrown: false,
        })
    }

    /// Until the run is over for this worker.
    ///
    /// # Errors
    /// What no coordinator and no other generation mends.
    pub(crate) async fn run(mut self) -> Result<Stopped, TrainError> {
        let ended = loop {
            let input = self.next().await;
            match self.take(input) {
                Ok(None) => {}
                Ok(Some(stopped)) => break Ok(stopped),
                Err(error) => break Err(error),
            }
        };
        match &ended {
            Ok(_) => self.dismiss().await,
            Err(error) => self.farewell(error.sentence()).await,
        }
        ended
    }

    async fn next(&mut self) -> Wake {
        let deadline = self.peer.deadline().map(|at| tokio::time::Instant::from_std(self.started + at));
        let tick = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => pending().await,
            }
        };
        let line = async {
            match &mut self.line {
                Line::Down | Line::Silent(_) => pending().await,
                Line::Dialling(dialling) => Wake::Dialled(dialling.await),
                Line::Opening(opening) => Wake::Opened(opening.await),
                Line::Open(session) => Wake::Said(session.next().await),
            }
        };
        let run = async {
            match &mut self.run {
                None => pending().await,
                Some(run) => tokio::select! {
                    ended = &mut run.trainer => Wake::TrainerEnded(ended),
                    notice = &mut run.notice => Wake::Spot(notice),
                },
            }
        };
        let [(terminate, terminated), (interrupt, interrupted)] = &mut self.signals;
        tokio::select! {
            input = line => input,
            input = run => input,
            // The driver holds a sender itself, so words never end.
            Some(word) = self.words.recv() => Wake::Word(word),
            Some(()) = terminate.recv() => Wake::Signal(terminated),
            Some(()) = interrupt.recv() => Wake::Signal(interrupted),
            () = tick => Wake::Tick,
        }
    }

    /// Turns an input into an event of the peer and performs what comes out; `Some` when the run is over.
    fn take(&mut self, input: Wake) -> Result<Option<Stopped>, TrainError> {
        let event = match input {
            Wake::Dialled(Ok(client)) => {
                self.line = Line::Silent(client);
                PeerEvent::Connected
            }
            Wake::Opened(Ok(session)) => {
                self.line = Line::Open(session);
                return Ok(None);
            }
            Wake::Dialled(Err(Missed::Closed(outcome))) => PeerEvent::RunClosed { outcome },
            Wake::Dialled(Err(Missed::Nobody(error))) => self.broken(error),
            Wake::Said(Ok(Some(Order::Welcome(welcome)))) => self.welcomed(welcome)?,
            Wake::Said(Ok(Some(order))) => PeerEvent::Ordered(order),
            Wake::Said(Ok(None)) => self.broken(disconnected("the coordinator closed the session")),
            Wake::Opened(Err(error)) | Wake::Said(Err(error)) => self.refused(error)?,
            Wake::Word(word) => self.heard(word),
            Wake::Signal(name) if self.leaving || self.run.is_none() => return Ok(Some(gone(name))),
            Wake::Signal(name) => self.leave(name.into()),
            Wake::Spot(notice) => {
                if let Some(run) = &mut self.run {
                    run.notice = Box::pin(pending());
                }
                self.leave(notice.to_string())
            }
            Wake::TrainerEnded(ended) => return Err(why(ended)),
            Wake::Tick => PeerEvent::Tick,
        };
        self.event(event)
    }

    fn event(&mut self, event: PeerEvent) -> Result<Option<Stopped>, TrainError> {
        // An effect may bring about one more event: a session that takes no report.
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.peer.handle(self.started.elapsed(), event) {
                if let PeerEffect::Exit { outcome, message } = effect {
                    return self.exit(outcome, message).map(Some);
                }
                events.extend(self.perform(effect)?);
            }
        }
        self.trainer_leaves_in_time()?;
        Ok(None)
    }

    fn perform(&mut self, effect: PeerEffect) -> Result<Option<PeerEvent>, TrainError> {
        match effect {
            PeerEffect::Connect => {
                let run = self.run.as_ref().map(|run| run.known.folder.clone());
                self.line = Line::Dialling(dial(self.told.clone(), run));
            }
            PeerEffect::Send(report) => return Ok(self.send(report)),
            PeerEffect::HangUp => self.hang_up(),
            PeerEffect::Train(form) => {
                let generation = form.generation;
                self.host(&form);
                tracing::info!(%generation, rank = %form.rank, world = form.world(), "generation ordered");
                let run = self.tell(Command::Form(form))?;
                (run.generation, run.ended) = (Some(generation), None);
            }
            PeerEffect::Abort(generation) => {
                tracing::info!(%generation, "generation over");
                self.switches.end(generation);
                self.keys.close(generation);
                let run = self.tell(Command::Abort(generation))?;
                if run.generation.is_some_and(|current| current <= generation) {
                    run.ended.get_or_insert_with(Instant::now);
                }
            }
            PeerEffect::Prepare(prepared) => {
                if let Some(form) = &prepared.form {
                    self.host(form);
                }
                self.switches.hold(prepared);
            }
            PeerEffect::Withdraw(generation) => self.switches.withdraw(generation),
            PeerEffect::Yield(generation) => self.switches.finish(generation),
            // Taken by the caller.
            PeerEffect::Exit { .. } => {}
        }
        Ok(None)
    }

    /// The generation meets here if this is its rank 0.
    fn host(&self, form: &Form) {
        if form.rank == Rank(0) {
            self.keys.open(form.generation);
        }
    }

    /// Queues a report; the event that comes of it if the session takes no more.
    fn send(&mut self, report: Report) -> Option<PeerEvent> {
        match (&self.line, report) {
            // The first report opens the session.
            (Line::Silent(client), Report::Join(join)) => {
                let (mut client, owed) = (client.clone(), self.peer.owed());
                self.line = Line::Opening(Box::pin(async move { Session::open(&mut client, join, owed).await }));
                None
            }
            (Line::Open(session), report) => session.try_send(report).err().map(|error| self.broken(error)),
            // It broke meanwhile, and the peer is about to hear of that.
            (Line::Down | Line::Dialling(_) | Line::Silent(_) | Line::Opening(_), _) => None,
        }
    }

    fn tell(&mut self, command: Command) -> Result<&mut Hired, TrainError> {
        let run = self.run.as_mut().ok_or(TrainError::Dismissed)?;
        // A full queue: the trainer reads nothing any more. A closed one: its end is the next input.
        match run.orders.try_send(command) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(TrainError::Hangs { after: self.peer.limit(Rung::Reaction) })
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(run),
        }
    }

    /// The first welcome says what the run is. Every later one must speak of the same.
    fn welcomed(&mut self, welcome: Welcome) -> Result<PeerEvent, TrainError> {
        if let Some(run) = &self.run {
            let known = &run.known;
            if (&welcome.run, &welcome.spec_digest) == (&known.spec.run.name, &known.spec_digest) {
                return Ok(PeerEvent::Ordered(Order::Welcome(welcome)));
            }
            // Another run's coordinator listens where this one's did.
            return Ok(self.broken(disconnected(&format!("a coordinator of run `{}` answers there", welcome.run))));
        }
        let known = Known::from_welcome(&welcome)?;
        let Some(hire) = self.hire.take() else { return Err(TrainError::Dismissed) };
        let (orders, commands) = mpsc::channel(ORDERS_QUEUED_MAX);
        let spot = known.spec.spot.clone();
        let trainer = hire(Contract {
            known: known.clone(),
            orders: commands,
            words: self.mouth.clone(),
            switches: Arc::clone(&self.switches),
        })?;
        self.peer.set_ladder(known.spec.ladder());
        let notice = Box::pin(async move { spot::watch(&spot).await });
        self.run = Some(Hired { known, orders, trainer, notice, generation: None, ended: None });
        Ok(PeerEvent::Ordered(Order::Welcome(welcome)))
    }

    /// The session ended with an error. Before the first welcome a refusal is final; later ones concern a coordinator
    /// that may be replaced, unless it says that there is no place for this worker.
    fn refused(&mut self, error: FleetError) -> Result<PeerEvent, TrainError> {
        let fresh = self.run.is_none();
        let is_final = match &error {
            FleetError::RunFull { .. } | FleetError::SpecMismatch { .. } => true,
            FleetError::UnknownMember { .. } | FleetError::NoCoordinator { .. } => false,
            FleetError::Disconnected { .. }
            | FleetError::NotReady { .. }
            | FleetError::StaleGeneration { .. }
            | FleetError::KeyTimeout { .. }
            | FleetError::TooLarge { .. }
            | FleetError::RunOver { .. }
            | FleetError::Malformed { .. }
            | FleetError::Store { .. }
            | FleetError::Foreign { .. } => fresh && error.class() == Class::Fatal,
        };
        if is_final { Err(error.into()) } else { Ok(self.broken(error)) }
    }

    fn heard(&mut self, word: Word) -> PeerEvent {
        if let (Word::Left(left), Some(run)) = (&word, &mut self.run)
            && run.generation == Some(left.generation)
        {
            (run.generation, run.ended) = (None, None);
        }
        if let (Word::Switched(switched), Some(run)) = (&word, &mut self.run) {
            run.generation = Some(switched.generation);
        }
        if matches!(word, Word::Committed(_))
            && !self.told_outgrown
            && let Some(outgrown) = self.peer.outgrown()
        {
            self.told_outgrown = true;
            tracing::warn!("{outgrown}");
        }
        PeerEvent::Trainer(word)
    }

    fn leave(&mut self, reason: String) -> PeerEvent {
        tracing::info!(reason, "leaving");
        self.leaving = true;
        PeerEvent::Leave { reason }
    }

    fn broken(&mut self, error: FleetError) -> PeerEvent {
        self.hang_up();
        let how = error.to_string();
        tracing::debug!(how, "no coordinator");
        self.missed = Some(error);
        PeerEvent::Broken { how }
    }

    fn hang_up(&mut self) {
        self.line = Line::Down;
    }

    fn exit(&mut self, outcome: Outcome, message: String) -> Result<Stopped, TrainError> {
        match self.missed.take() {
            Some(missed) if self.run.is_none() => Err(missed.into()),
            _ => Ok(Stopped { outcome, message }),
        }
    }

    /// A trainer that cannot be got out of a generation that is over is of no use to any other: this process ends, so
    /// that whoever started it can start another.
    fn trainer_leaves_in_time(&self) -> Result<(), TrainError> {
        let Some(Hired { ended: Some(since), .. }) = &self.run else { return Ok(()) };
        let after = self.peer.limit(Rung::Reaction);
        if since.elapsed() < after { Ok(()) } else { Err(TrainError::Hangs { after }) }
    }

    /// The run is over: so is the trainer's work, whatever it is in the midst of.
    async fn dismiss(&mut self) {
        self.switches.end_all();
        let Some(run) = &mut self.run else { return };
        // A trainer that is gone, or that reads nothing, needs no word.
        let _ = run.orders.try_send(Command::Stop);
        let back = tokio::time::timeout(self.peer.limit(Rung::WorkerFarewell), &mut run.trainer).await;
        tracing::debug!(in_time = back.is_ok(), "trainer back");
    }

    /// Tells the coordinator why this worker goes, and waits until it has heard.
    async fn farewell(&mut self, message: String) {
        let limit = self.peer.limit(Rung::WorkerFarewell);
        let Line::Open(session) = &mut self.line else { return };
        if session.try_send(Report::Fault { message }).is_err() {
            return;
        }
        let closed = async { while let Ok(Some(_)) = session.next().await {} };
        if tokio::time::timeout(limit, closed).await.is_err() {
            tracing::debug!("the coordinator did not close the session");
        }
    }
}

fn disconnected(cause: &str) -> FleetError {
    FleetError::Disconnected { cause: cause.into() }
}

/// Nobody counts on this worker yet, or it was told to go twice.
fn gone(signal: &str) -> Stopped {
    tracing::info!(signal, "going at once");
    Stopped { outcome: Outcome::Drained, message: String::new() }
}

fn why(ended: Result<Result<(), TrainError>, oneshot::error::RecvError>) -> TrainError {
    match ended {
        Ok(Err(error)) => error,
        // It comes back by itself only when its orders end, and they are held here.
        Ok(Ok(())) => TrainError::Dismissed,
        Err(_) => TrainError::Panicked,
    }
}

#[cfg(test)]
mod tests;
