//! A dataset's index, a run file, a coordinator, and workers that say what a test makes them say.

use pixfleet_checkpoint::{Location, read_ledger};
use pixfleet_cluster::index::{DatasetIndex, FileIndex, LATEST, RowGroupIndex, SplitIndex};
use pixfleet_cluster::ledger::{Losses, Record};
use pixfleet_cluster::run::{Failed, FailureKind, Form, Join, Order, Outcome, PartReport, Report, StepReport, Welcome};
use pixfleet_cluster::{Generation, PartEntry, Rank, RunSpec, Step};
use pixfleet_coordinator::{Config, CoordinatorError, Ended, bind, serve};
use pixfleet_proto::pb::fleet_client::FleetClient;
use pixfleet_proto::{Patience, Session, connect, pb};
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

pub(crate) struct Fleet {
    pub(crate) address: String,
    pub(crate) drain: oneshot::Sender<()>,
    server: JoinHandle<Result<Ended, CoordinatorError>>,
}

impl Fleet {
    pub(crate) async fn start(spec: RunSpec, expect: u32) -> Self {
        let listener = bind("127.0.0.1:0".parse().expect("an address"), false).await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let (drain, drained) = oneshot::channel::<()>();
        let config = Config { spec, expect, join_window: LIMIT, fresh: false };
        let shutdown = async {
            if drained.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let server = tokio::spawn(serve(listener, config, shutdown));
        Self { address, drain, server }
    }

    pub(crate) async fn client(&self) -> FleetClient<Channel> {
        connect(&self.address, Patience::default()).await.expect("it listens")
    }

    pub(crate) async fn end(self) -> Result<Ended, CoordinatorError> {
        soon("the end", self.server).await.expect("the server does not panic")
    }
}

/// A worker without tensors.
pub(crate) struct Worker {
    pub(crate) session: Session,
    pub(crate) welcome: Welcome,
    pub(crate) at: Option<Step>,
    pub(crate) form: Option<Form>,
}

impl Worker {
    pub(crate) async fn join(fleet: &Fleet, name: &str, pid: u32) -> Self {
        let join = Join { name: name.into(), host: "here".into(), pid, device: "cpu".into(), next_step: None };
        let mut session = Session::open(&mut fleet.client().await, join).await.expect("a session");
        let order = soon("a welcome", session.next()).await.expect("an order");
        let Some(Order::Welcome(welcome)) = order else { panic!("expected a welcome, got {order:?}") };
        Self { session, welcome, at: None, form: None }
    }

    pub(crate) async fn order(&mut self) -> Order {
        soon("an order", self.session.next()).await.expect("a session").expect("an order, not the end")
    }

    pub(crate) async fn say(&self, report: Report) {
        self.session.reports().send(report).await.expect("a session");
    }

    /// Takes its place in the next generation.
    pub(crate) async fn formed(&mut self) -> Form {
        let form = loop {
            match self.order().await {
                Order::Form(form) => break form,
                Order::Checkpointed { .. } => {}
                other => panic!("expected a new generation, got {other:?}"),
            }
        };
        self.at = Some(form.start_step);
        self.form = Some(form.clone());
        self.say(Report::Ready { generation: form.generation, next_step: form.start_step }).await;
        form
    }

    fn generation(&self) -> Generation {
        self.form.as_ref().expect("formed").generation
    }

    /// Commits one step, with its part if a checkpoint is due.
    pub(crate) async fn step(&mut self) {
        let step = self.at.expect("formed");
        let losses = Losses { global: Some(1.0), crop: None, local: None, total: 1.0 / (1.0 + step.0 as f64) };
        let generation = self.generation();
        let report = StepReport { generation, step, losses, samples: 8, seconds: 0.5, ..StepReport::default() };
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
        let run = Location::parse(&spec.run.store).expect("a URL").join(&spec.run.name);
        let key =
            pixfleet_checkpoint::PartKey { step, generation: form.generation, rank: form.rank, world: form.world() };
        let entry: PartEntry = pixfleet_checkpoint::write_part(&run, key, vec![]).await.expect("a store");
        self.say(Report::Part(PartReport { generation: form.generation, step, entry })).await;
    }

    pub(crate) async fn fail(&mut self) {
        let failed = Failed {
            generation: self.generation(),
            next_step: self.at,
            kind: FailureKind::Collective,
            message: "connection reset by peer".into(),
            lost_rank: None,
        };
        self.say(Report::Failed(failed)).await;
    }

    pub(crate) async fn finish(&mut self) -> Outcome {
        self.say(Report::Finished { generation: self.generation(), next_step: self.at.expect("formed") }).await;
        loop {
            match self.order().await {
                Order::Stop { outcome, .. } => return outcome,
                Order::Checkpointed { .. } | Order::Drain => {}
                other => panic!("expected the end, got {other:?}"),
            }
        }
    }
}

/// The run's ledger as it lies in the store.
pub(crate) async fn records(spec: &RunSpec) -> Vec<Record> {
    let location = Location::parse(&spec.run.store).expect("a URL").join(&spec.run.name);
    read_ledger(&location).await.expect("a whole ledger").records
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

pub(crate) fn rank(n: u32) -> Option<Rank> {
    Some(Rank(n))
}
