//! Against scripted coordinators on loopback and a scripted trainer.

use super::*;
use pixfleet_checkpoint::leaders;
use pixfleet_cluster::run::{Form, LeaveKind, Left, MeetingPoint, Prepared, Standing, StepReport};
use pixfleet_cluster::spec::RunSpec;
use pixfleet_cluster::{MemberId, Rank, Step};
use pixfleet_proto::{pb, server};
use std::path::Path;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Hands every session to the test.
struct Scripted {
    sessions: mpsc::Sender<Talk>,
}

/// The coordinator's end of a session.
struct Talk {
    reports: mpsc::Receiver<Report>,
    orders: mpsc::Sender<Result<pb::Order, Status>>,
}

impl Talk {
    async fn give(&self, order: Order) {
        self.orders.send(Ok(order.into())).await.expect("the session is open");
    }

    /// The next report that is not a heartbeat.
    async fn hear(&mut self) -> Report {
        loop {
            match self.reports.recv().await.expect("the session is open") {
                Report::Heartbeat { .. } => {}
                other => return other,
            }
        }
    }
}

fn unasked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this script"))
}

#[tonic::async_trait]
impl pb::fleet_server::Fleet for Scripted {
    type SessionStream = ReceiverStream<Result<pb::Order, Status>>;
    type WatchStream = ReceiverStream<Result<pb::Notice, Status>>;

    async fn session(&self, request: Request<Streaming<pb::Report>>) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (said, reports) = mpsc::channel(64);
        let (orders, queued) = mpsc::channel(64);
        // As the real one: it answers when it has heard who it is.
        let join = incoming.message().await?.expect("a join");
        said.send(Report::try_from(join).expect("well-formed")).await.expect("the queue has room");
        tokio::spawn(async move {
            while let Ok(Some(report)) = incoming.message().await {
                if said.send(Report::try_from(report).expect("well-formed")).await.is_err() {
                    return;
                }
            }
        });
        self.sessions.send(Talk { reports, orders }).await.expect("the test listens");
        Ok(Response::new(ReceiverStream::new(queued)))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusReply>, Status> {
        unasked()
    }

    async fn watch(&self, _: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        unasked()
    }

    async fn control(&self, _: Request<pb::ControlRequest>) -> Result<Response<pb::ControlReply>, Status> {
        unasked()
    }
}

/// A coordinator that a test can take away.
struct Coordinator {
    address: String,
    sessions: mpsc::Receiver<Talk>,
    serving: JoinHandle<()>,
}

impl Coordinator {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let (opened, sessions) = mpsc::channel(16);
        let serve = tonic::transport::Server::builder().add_service(server(Scripted { sessions: opened }));
        let serve = serve.serve_with_incoming(TcpListenerStream::new(listener));
        Self { address, sessions, serving: tokio::spawn(async move { drop(serve.await) }) }
    }

    /// The next session, welcomed as `leader` of `spec`'s run; the report that it began with.
    async fn welcome(&mut self, spec: &RunSpec, leader: u64) -> (Talk, Join) {
        let mut talk = self.sessions.recv().await.expect("it serves");
        let Report::Join(join) = talk.hear().await else { panic!("the first report is a join") };
        talk.give(Order::Welcome(Welcome { leader, ..welcome_of(spec) })).await;
        (talk, join)
    }

    /// As kill -9.
    fn die(self) {
        self.serving.abort();
    }
}

fn told_of(address: &str) -> Told {
    Told::new(&[address.into()]).expect("an address")
}

fn spec(store: &Path, overrides: &[&str]) -> RunSpec {
    let text = format!(
        r#"
[run]
name = "t"
store = "file://{}"
[data]
url = "file:///t"
[schedule]
steps = 10
warmup = 2
"#,
        store.display()
    );
    let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_string()).collect();
    RunSpec::parse(&text, &overrides).expect("valid")
}

fn welcome_of(spec: &RunSpec) -> Welcome {
    Welcome {
        member: MemberId(7),
        leader: 1,
        run: spec.run.name.clone(),
        spec_toml: spec.to_toml(),
        spec_digest: spec.digest(),
        dataset_digest: String::new(),
        heartbeat_ms: 20,
    }
}

/// A worker under test.
struct Worker {
    contract: oneshot::Receiver<Contract>,
    /// The scripted trainer's end.
    end: Option<oneshot::Sender<Result<(), TrainError>>>,
    driving: JoinHandle<Result<Stopped, TrainError>>,
}

impl Worker {
    fn start(told: &Coordinator) -> Self {
        let (hired, contract) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let hire: Hire = Box::new(move |contract| {
            assert!(hired.send(contract).is_ok(), "the test listens");
            Ok(ended)
        });
        let join = Join { name: "w0".into(), ..Join::default() };
        let driver = PeerDriver::new(told_of(&told.address), join, Arc::default(), hire).expect("signals");
        Self { contract, end: Some(end), driving: tokio::spawn(driver.run()) }
    }

    async fn contract(&mut self) -> Contract {
        (&mut self.contract).await.expect("hired")
    }

    /// The trainer is back in time.
    async fn stopped(mut self) -> Result<Stopped, TrainError> {
        self.end.take().expect("ends once").send(Ok(())).expect("it is awaited");
        self.driving.await.expect("no panic")
    }
}

const G: Generation = Generation(3);

fn form() -> Form {
    Form {
        generation: G,
        rank: Rank(0),
        members: [MemberId(7)].into(),
        meets_at: MeetingPoint::default(),
        start_step: Some(Step(0)),
        source: None,
        receivers: [].into(),
        resume_from: None,
        checkpoint_only: false,
    }
}

const FREE: Standing = Standing::Free { next_step: None, digest: None };

/// A worker whose trainer takes part in generation [`G`].
async fn training(coordinator: &mut Coordinator, spec: &RunSpec) -> (Worker, Contract, Talk) {
    let mut worker = Worker::start(coordinator);
    let (mut talk, join) = coordinator.welcome(spec, 1).await;
    assert_eq!(join.member, None);
    let mut contract = worker.contract().await;
    contract.words.send(Word::Warm).await.expect("heard");
    assert_eq!(talk.hear().await, Report::Standing(FREE));
    talk.give(Order::Form(form())).await;
    assert!(matches!(contract.orders.recv().await, Some(Command::Form(f)) if f == form()));
    contract.words.send(Word::Ready { generation: G, next_step: Step(0) }).await.expect("heard");
    assert_eq!(talk.hear().await, Report::Ready { generation: G, next_step: Step(0) });
    (worker, contract, talk)
}

fn step(step: u64) -> StepReport {
    StepReport { generation: G, step: Step(step), ..StepReport::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trainer_that_computes_delays_neither_heartbeat_nor_yield_nor_abort_nor_stop() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut coordinator = Coordinator::start().await;
    // From here on the trainer does not look at its orders.
    let (worker, contract, mut talk) = training(&mut coordinator, &spec(dir.path(), &[])).await;
    for _ in 0..3 {
        assert_eq!(talk.reports.recv().await, Some(Report::Heartbeat { next_step: Some(Step(0)) }));
    }
    let prepared = Prepared { from: G, generation: G.next(), form: None };
    talk.give(Order::Prepare(prepared.clone())).await;
    talk.give(Order::Yield { generation: G }).await;
    talk.give(Order::Abort { generation: G, cause: "lost w1".into() }).await;
    contract.switches.until_over(G).await;
    assert!(contract.switches.finishes(G));
    assert_eq!(contract.switches.held_in(G), Some(prepared));
    talk.give(Order::Stop { outcome: Outcome::Drained, message: String::new() }).await;
    contract.switches.until_over(G.next()).await;
    assert_eq!(worker.stopped().await.expect("stopped in order").outcome, Outcome::Drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_coordinator_is_found_in_the_store_and_told_what_no_ledger_holds() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = spec(dir.path(), &[]);
    let mut first = Coordinator::start().await;
    let (worker, contract, mut talk) = training(&mut first, &spec).await;
    contract.words.send(Word::Committed(step(0))).await.expect("heard");
    assert_eq!(talk.hear().await, Report::Committed(step(0)));
    first.die();
    drop(talk);

    // Steps go on meanwhile.
    contract.words.send(Word::Committed(step(1))).await.expect("heard");
    let mut second = Coordinator::start().await;
    let folder = Known::from_welcome(&welcome_of(&spec)).expect("valid").folder;
    leaders::announce(&folder, 2, &second.address).await.expect("writable");
    let (mut talk, join) = second.welcome(&spec, 2).await;
    assert_eq!(join.member, Some(MemberId(7)));
    for s in 0..2 {
        assert_eq!(talk.hear().await, Report::Committed(step(s)));
    }
    let standing = Standing::Training { generation: G, next_step: Step(2) };
    assert_eq!(talk.hear().await, Report::Standing(standing));

    // The run ends while nobody is there to say so.
    leaders::close(&folder, 2, Outcome::Done).await.expect("writable");
    second.die();
    drop(talk);
    contract.switches.until_over(G).await;
    assert_eq!(worker.stopped().await.expect("in order").outcome, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_of_another_run_is_not_obeyed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mine = spec(dir.path(), &[]);
    let mut coordinator = Coordinator::start().await;
    let (worker, contract, talk) = training(&mut coordinator, &mine).await;
    drop(talk);
    let (foreign, _) = coordinator.welcome(&spec(dir.path(), &["run.seed=5"]), 1).await;
    foreign.give(Order::Abort { generation: G, cause: "not yours".into() }).await;
    // It comes back, to the right one this time.
    let (mut talk, _) = coordinator.welcome(&mine, 1).await;
    let standing = Standing::Training { generation: G, next_step: Step(0) };
    assert_eq!(talk.hear().await, Report::Standing(standing));
    assert!(!contract.switches.is_over(G));
    talk.give(Order::Stop { outcome: Outcome::Done, message: String::new() }).await;
    contract.switches.until_over(G).await;
    assert_eq!(worker.stopped().await.expect("in order").outcome, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trainer_that_does_not_leave_a_generation_that_is_over_ends_the_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let spec = spec(dir.path(), &["train.patience_ms=100", "train.collective_timeout_ms=250"]);
    let mut coordinator = Coordinator::start().await;
    let (worker, contract, mut talk) = training(&mut coordinator, &spec).await;
    talk.give(Order::Abort { generation: G, cause: "lost w1".into() }).await;
    let left = Left {
        generation: G,
        next_step: Some(Step(0)),
        digest: None,
        kind: LeaveKind::Aborted,
        message: String::new(),
        lost_rank: None,
    };
    contract.words.send(Word::Left(left.clone())).await.expect("heard");
    assert_eq!(talk.hear().await, Report::Left(left), "whoever leaves in time stays");
    let again = Form { generation: G.next(), ..form() };
    talk.give(Order::Form(again)).await;
    talk.give(Order::Abort { generation: G.next(), cause: "lost w2".into() }).await;
    let Report::Fault { message } = talk.hear().await else { panic!("it says why it goes") };
    drop(talk);
    let error = worker.driving.await.expect("no panic").expect_err("it cannot go on");
    assert!(matches!(error, TrainError::Hangs { after } if after == Duration::from_millis(500)), "{error}");
    assert_eq!(message, error.to_string());
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_that_names_it() {
    let coordinator = Coordinator::start().await;
    let address = coordinator.address.clone();
    let mut driver =
        PeerDriver::new(told_of(&address), Join::default(), Arc::default(), Box::new(|_| panic!("no run")))
            .expect("signals");
    coordinator.serving.abort();
    driver.peer.set_ladder(Ladder::default().with(Rung::CoordinatorPatience, Duration::from_millis(100)));
    let error = driver.run().await.expect_err("nobody is there");
    assert!(
        matches!(&error, TrainError::Fleet(FleetError::NoCoordinator { address: at, .. }) if *at == address),
        "{error}"
    );
}
