//! A dataset's index, a run file, a coordinator, and workers that say what a test makes them say.

use pixfleet_checkpoint::leaders::{self, Leader};
use pixfleet_checkpoint::{Folder, read_ledger};
use pixfleet_cluster::audit::{AuditPlan, audit};
use pixfleet_cluster::index::{DatasetIndex, FileIndex, LATEST, RowGroupIndex, SplitIndex};
use pixfleet_cluster::ledger::{Losses, Record};
use pixfleet_cluster::run::{
    Form, Join, LeaveKind, Left, Order, Outcome, PartReport, Prepared, Report, Standing, StepReport, Switched, Welcome,
};
use pixfleet_cluster::{DatasetShape, Generation, PartEntry, Rank, RunSpec, Step};
use pixfleet_coordinator::{Config, CoordinatorError, Doors, Ended, bind, serve};
use pixfleet_proto::pb::fleet_client::FleetClient;
use pixfleet_proto::{FleetError, Patience, Reports, Session, connect, pb};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// No test waits longer than this for anything.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Writes the index of a dataset with 3 row groups, 20 rows.
pub(crate) fn write_index(folder: &Path) {
    let group = |rows| RowGroupIndex { rows, regions: rows, start: 4, end: 40, image_bytes: 30 };
    let file = FileIndex {
        path: "train/part-00000.parquet".into(),
        size: 100,
        etag: None,
        content: Some("c".into()),
        row_groups: vec![group(8), group(7), group(5)],
    };
    let splits = BTreeMap::from([
        ("train".to_string(), SplitIndex { files: vec![file] }),
        ("void".to_string(), SplitIndex::default()),
    ]);
    let index = DatasetIndex::new("1", splits);
    std::fs::create_dir_all(folder.join("index")).expect("temporary");
    std::fs::write(folder.join(index.path()), serde_json::to_vec(&index).expect("JSON")).expect("temporary");
    std::fs::write(folder.join(LATEST), serde_json::to_vec(&index.latest()).expect("JSON")).expect("temporary");
}

/// A run of 6 steps of 8 samples on the dataset in `folder/data`.
pub(crate) fn spec(folder: &Path, set: &[&str]) -> RunSpec {
    let at = |name: &str| format!("file://{}", folder.join(name).display());
    let text = format!(
        "[run]\nname = \"r\"\nseed = 5\nstore = \"{}\"\n[data]\nurl = \"{}\"\nwindow_row_groups = 2\n[schedule]\n\
         steps = 6\nwarmup = 1\n[train]\nglobal_batch = 8\nlanes = 4\n[checkpoint]\nevery_steps = 2\n",
        at("store"),
        at("data")
    );
    let set: Vec<String> = set.iter().map(|s| (*s).to_string()).collect();
    RunSpec::parse(&text, &set).expect("valid")
}

/// What a coordinator in a test is told.
pub(crate) fn config(spec: RunSpec, expect: u32, advertise: String) -> Config {
    Config { spec, expect, join_window: LIMIT, fresh: false, standby: false, advertise }
}

pub(crate) struct Fleet {
    pub(crate) address: String,
    /// `http://host:port/metrics`'s host and port.
    pub(crate) metrics: String,
    pub(crate) drain: oneshot::Sender<()>,
    server: JoinHandle<Result<Ended, CoordinatorError>>,
}

impl Fleet {
    pub(crate) async fn start(spec: RunSpec, expect: u32) -> Self {
        Self::start_with(spec, expect, false).await
    }

    /// One that stands by if another one leads.
    pub(crate) async fn stand_by(spec: RunSpec, expect: u32) -> Self {
        Self::start_with(spec, expect, true).await
    }

    async fn start_with(spec: RunSpec, expect: u32, standby: bool) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let fleet = bind(any, false).await.expect("a free port");
        let metrics = bind(any, false).await.expect("a free port");
        let of = |listener: &tokio::net::TcpListener| listener.local_addr().expect("bound").to_string();
        let (address, page) = (of(&fleet), of(&metrics));
        let (drain, drained) = oneshot::channel::<()>();
        let shutdown = async {
            if drained.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let doors = Doors { fleet, metrics: Some(metrics) };
        let server = tokio::spawn(serve(doors, Config { standby, ..config(spec, expect, address.clone()) }, shutdown));
        Self { address, metrics: page, drain, server }
    }

    pub(crate) async fn client(&self) -> FleetClient<Channel> {
        connect(&self.address, Patience::default()).await.expect("it listens")
    }

    /// Its status, once it leads the run.
    pub(crate) async fn status(&self) -> pb::StatusReply {
        let mut client = self.client().await;
        let asked = async {
            loop {
                match client.status(pb::StatusRequest {}).await.map_err(FleetError::from) {
                    Ok(status) => break status.into_inner(),
                    Err(FleetError::NotReady { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("no status: {error}"),
                }
            }
        };
        soon("the lead", asked).await
    }

    /// Its status, once it is as `good` wants it.
    pub(crate) async fn status_that(&self, what: &str, good: impl Fn(&pb::StatusReply) -> bool) -> pb::StatusReply {
        let asked = async {
            loop {
                let status = self.status().await;
                if good(&status) {
                    break status;
                }
                tokio::task::yield_now().await;
            }
        };
        soon(what, asked).await
    }

    pub(crate) async fn control(&self, kind: pb::control_request::Kind) {
        self.client().await.control(pb::ControlRequest { kind: Some(kind) }).await.expect("heard");
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.server.is_finished()
    }

    /// As SIGKILL: no last words to anybody, nothing more to the store.
    pub(crate) async fn kill(self) {
        self.server.abort();
        assert!(soon("the kill", self.server).await.is_err_and(|e| e.is_cancelled()), "it had not ended by itself");
    }

    pub(crate) async fn end(self) -> Result<Ended, CoordinatorError> {
        soon("the end", self.server).await.expect("the server does not panic")
    }
}

/// A worker without tensors.
pub(crate) struct Worker {
    link: Option<(Session, Reports)>,
    join: Join,
    pub(crate) welcome: Welcome,
    pub(crate) at: Option<Step>,
    pub(crate) form: Option<Form>,
    /// Digest of the state that it holds.
    pub(crate) digest: Option<u64>,
    /// Steps that no coordinator has said to be in the store.
    owed: Vec<StepReport>,
}

impl Worker {
    /// A worker that has joined and is warm.
    pub(crate) async fn join(fleet: &Fleet, name: &str, pid: u32) -> Self {
        let join = Join { name: name.into(), host: "here".into(), pid, device: "cpu".into(), ..Join::default() };
        let worker = Self::open(fleet, join).await;
        worker.say(Report::Standing(Standing::Free { next_step: None, digest: None })).await;
        worker
    }

    /// A worker that has joined.
    pub(crate) async fn open(fleet: &Fleet, join: Join) -> Self {
        fleet.status().await;
        let mut session = Session::open(&mut fleet.client().await, join.clone(), 0).await.expect("a session");
        let order = soon("a welcome", session.next()).await.expect("an order");
        let Some(Order::Welcome(welcome)) = order else { panic!("expected a welcome, got {order:?}") };
        let join = Join { member: Some(welcome.member), ..join };
        let reports = session.reports();
        let link = Some((session, reports));
        Self { link, join, welcome, at: None, form: None, digest: None, owed: Vec::new() }
    }

    /// Goes to `fleet` with what it owes, and says that it trains.
    pub(crate) async fn come_back(mut self, fleet: &Fleet) -> Self {
        let new = Self::open(fleet, self.join.clone()).await;
        (self.link, self.join, self.welcome) = (new.link, new.join, new.welcome);
        for report in self.owed.clone() {
            self.say(Report::Committed(report)).await;
        }
        let (generation, next_step) = (self.generation(), self.at.expect("formed"));
        self.say(Report::Standing(Standing::Training { generation, next_step })).await;
        self
    }

    /// Its session breaks.
    pub(crate) fn cut(mut self) -> Self {
        self.link = None;
        self
    }

    fn session(&mut self) -> &mut Session {
        &mut self.link.as_mut().expect("its session was not cut").0
    }

    /// What ended the session: `None` if the coordinator closed it without a word.
    pub(crate) async fn hung_up(&mut self) -> Option<FleetError> {
        let ended = async {
            loop {
                match self.session().next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            }
        };
        soon("the session's end", ended).await
    }

    /// The next order that is not about what lies in the store.
    pub(crate) async fn order(&mut self) -> Order {
        let next = async {
            loop {
                match self.session().next().await.expect("a session").expect("an order, not the end") {
                    Order::Recorded { through } => self.owed.retain(|owed| owed.step > through),
                    Order::Checkpointed { .. } => {}
                    other => break other,
                }
            }
        };
        soon("an order", next).await
    }

    /// The step of the next checkpoint.
    pub(crate) async fn checkpointed(&mut self) -> Step {
        let next = async {
            loop {
                if let Some(Order::Checkpointed { step, .. }) = self.session().next().await.expect("a session") {
                    break step;
                }
            }
        };
        soon("a checkpoint", next).await
    }

    pub(crate) async fn say(&self, report: Report) {
        if let Some((_, reports)) = &self.link {
            // A coordinator that is gone hears nothing; the worker goes on.
            let _ = reports.send(report).await;
        }
    }

    /// Takes its place in the next generation.
    pub(crate) async fn formed(&mut self) -> Form {
        let form = loop {
            match self.order().await {
                Order::Form(form) => break form,
                // Whoever is out already is told once more when another one leaves.
                Order::Abort { generation, .. } if self.form.as_ref().is_some_and(|f| f.generation == generation) => {}
                other => panic!("expected a new generation, got {other:?}"),
            }
        };
        self.owed.clear();
        let start = form.start_step.expect("nobody prepared it");
        self.begin(form.clone(), start).await;
        form
    }

    async fn begin(&mut self, form: Form, start: Step) {
        self.at = Some(start);
        let generation = form.generation;
        self.form = Some(form);
        self.say(Report::Ready { generation, next_step: start }).await;
    }

    /// Goes over into the generation that was prepared, at the step where it stands; `None`: it has no part in it.
    pub(crate) async fn go_over(&mut self) -> Option<Form> {
        let order = self.order().await;
        let Order::Prepare(Prepared { from, generation: next, form }) = order else {
            panic!("expected the order of the next generation, got {order:?}");
        };
        assert_eq!(from, self.generation());
        let start_step = self.at.expect("formed");
        let Some(form) = form else {
            self.leave(LeaveKind::Boundary { next }).await;
            return None;
        };
        self.say(Report::Switched(Switched { generation: next, start_step, digest: Some(7) })).await;
        self.begin(form.clone(), start_step).await;
        Some(form)
    }

    /// Is told of a prepared generation that it is to join, and says that it holds the order.
    pub(crate) async fn hold(&mut self) -> Form {
        let order = self.order().await;
        let Order::Form(form) = order else { panic!("expected a prepared generation, got {order:?}") };
        assert_eq!(form.start_step, None);
        self.say(Report::Standing(Standing::Forming { generation: form.generation })).await;
        form
    }

    /// Has heard from the ranks of `form` with which step they begin.
    pub(crate) async fn join_in(&mut self, form: Form, start_step: Step) {
        self.say(Report::Switched(Switched { generation: form.generation, start_step, digest: None })).await;
        self.begin(form, start_step).await;
    }

    pub(crate) fn generation(&self) -> Generation {
        self.form.as_ref().expect("formed").generation
    }

    /// Commits one step, with its part if a checkpoint is due.
    pub(crate) async fn step(&mut self) {
        let step = self.at.expect("formed");
        let losses = Losses::new([("global", 1.0)], 1.0 / (1.0 + step.0 as f64));
        let generation = self.generation();
        let report = StepReport { generation, step, losses, samples: 8, seconds: 0.5, ..StepReport::default() };
        self.owed.push(report.clone());
        self.say(Report::Committed(report)).await;
        self.at = Some(step.next());
        if step.next().0.is_multiple_of(2) {
            self.part().await;
        }
    }

    /// Reports a part that really lies in the store.
    pub(crate) async fn part(&mut self) {
        let form = self.form.clone().expect("formed");
        let step = self.at.expect("formed");
        let spec = RunSpec::parse(&self.welcome.spec_toml, &[]).expect("the coordinator's own");
        let key =
            pixfleet_checkpoint::PartKey { step, generation: form.generation, rank: form.rank, world: form.world() };
        let entry: PartEntry =
            pixfleet_checkpoint::write_part(&run(&spec), key, vec![], Duration::ZERO).await.expect("a store");
        self.say(Report::Part(PartReport { generation: form.generation, step, entry })).await;
    }

    /// Leaves its generation.
    pub(crate) async fn leave(&mut self, kind: LeaveKind) {
        let left = Left {
            generation: self.generation(),
            next_step: self.at,
            digest: self.digest,
            kind,
            message: "connection reset by peer".into(),
            lost_rank: None,
        };
        self.say(Report::Left(left)).await;
    }

    /// Says that all its steps are done.
    pub(crate) async fn finished(&mut self) {
        self.say(Report::Finished { generation: self.generation(), next_step: self.at.expect("formed") }).await;
    }

    pub(crate) async fn finish(&mut self) -> Outcome {
        self.finished().await;
        loop {
            match self.order().await {
                Order::Stop { outcome, .. } => return outcome,
                Order::Yield { .. } => {}
                other => panic!("expected the end, got {other:?}"),
            }
        }
    }
}

/// The run's folder in its store.
pub(crate) fn run(spec: &RunSpec) -> Folder {
    Folder::parse(&spec.run.store).expect("a URL").join(&spec.run.name)
}

/// Who leads the run by the word of its store, once `good` accepts it.
pub(crate) async fn leader_that(spec: &RunSpec, what: &str, good: impl Fn(&Leader) -> bool) -> Leader {
    let asked = async {
        loop {
            let newest = leaders::newest(&run(spec)).await.expect("readable");
            if let Some(leader) = newest.filter(|leader| good(leader)) {
                break leader;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(what, asked).await
}

/// The run's ledger as it lies in the store.
pub(crate) async fn records(spec: &RunSpec) -> Vec<Record> {
    read_ledger(&run(spec)).await.expect("a whole ledger").records
}

/// All notices of a run, until it is over.
pub(crate) async fn watch(fleet: &Fleet) -> JoinHandle<Vec<pb::notice::Kind>> {
    let mut stream = fleet.client().await.watch(pb::WatchRequest {}).await.expect("a watch").into_inner();
    tokio::spawn(async move {
        let mut kinds = Vec::new();
        while let Ok(Some(notice)) = stream.message().await {
            kinds.extend(notice.kind);
        }
        kinds
    })
}

/// The run's ledger, which the audit finds clean.
pub(crate) async fn audited(spec: &RunSpec) -> Vec<Record> {
    let records = records(spec).await;
    let shape = DatasetShape { rows: vec![8, 7, 5] };
    let order = pixfleet_cluster::SampleOrder::new(5, shape, spec.data.window_row_groups).expect("has rows");
    let dataset_digest = records
        .iter()
        .find_map(|r| match r {
            Record::Opened { dataset_digest, .. } => Some(dataset_digest.clone()),
            _ => None,
        })
        .expect("opened");
    let steps = spec.schedule.steps;
    let verdict =
        audit(&records, AuditPlan { order, steps, global_batch: 8, seed: 5, dataset_digest, origins: Vec::new() });
    assert!(verdict.is_clean(), "{:?}", verdict.findings);
    records
}

/// Generation, first step and ranks of each membership.
pub(crate) fn formed(records: &[Record]) -> Vec<(u64, u64, usize)> {
    let formed = |r: &Record| match r {
        Record::Formed { generation, start_step, members, .. } => Some((generation.0, start_step.0, members.len())),
        _ => None,
    };
    records.iter().filter_map(formed).collect()
}

pub(crate) fn rank(n: u32) -> Option<Rank> {
    Some(Rank(n))
}
