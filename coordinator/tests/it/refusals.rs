//! What a person reads when something is not as it should be.

use crate::support::{Fleet, Worker, config, soon, spec, write_index};
use pixfleet_cluster::run::{Join, Order, Report, Standing};
use pixfleet_cluster::{Generation, MemberId, Step};
use pixfleet_coordinator::{Config, CoordinatorError, Doors, bind, open_dataset, serve};
use pixfleet_proto::{FleetError, Session};
use std::path::Path;

async fn refused(folder: &Path, set: &[&str], fresh: bool) -> CoordinatorError {
    let listener = bind("127.0.0.1:0".parse().expect("an address"), false).await.expect("a free port");
    let config = Config { fresh, ..config(spec(folder, set), 1, "nowhere".into()) };
    serve(Doors { fleet: listener, metrics: None }, config, std::future::pending()).await.expect_err("refused")
}

#[tokio::test]
async fn a_taken_port() {
    let taken = bind("127.0.0.1:0".parse().expect("an address"), false).await.expect("a free port");
    let address = taken.local_addr().expect("bound");
    let error = bind(address, false).await.expect_err("taken");
    assert_eq!(
        error.to_string(),
        format!("{address} is taken by another program; give another port with --listen, or port 0 for any free one")
    );
}

#[tokio::test]
async fn an_address_that_others_reach() {
    let error = bind("0.0.0.0:0".parse().expect("an address"), false).await.expect_err("not loopback");
    assert_eq!(
        error.to_string(),
        "0.0.0.0:0 can be reached from other machines and there is no token yet; listen on 127.0.0.1, or say \
         --insecure on a network that you trust"
    );
}

#[tokio::test]
async fn a_dataset_without_an_index_a_split_or_rows() {
    let folder = tempfile::tempdir().expect("temporary");
    let url = format!("file://{}", folder.path().join("data").display());
    let error = refused(folder.path(), &[], false).await;
    assert_eq!(error.to_string(), format!("the dataset at {url} has no index; run `pixfleet shards index {url}`"));
    write_index(&folder.path().join("data"));
    let error = open_dataset(&url, "trian").await.expect_err("no such split");
    assert_eq!(error.to_string(), format!("the dataset at {url} has no split `trian`; it has train, void"));
    let error = open_dataset(&url, "void").await.expect_err("no rows");
    assert_eq!(error.to_string(), format!("split `void` of the dataset at {url} has no rows"));
}

#[tokio::test]
async fn a_store_without_permission() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    // Nobody may make folders in /sys, not even root.
    let error = refused(folder.path(), &["run.store=file:///sys/pixfleet"], false).await;
    assert!(matches!(error, CoordinatorError::Permission { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "no permission to write file:///sys/pixfleet/r/run.toml; give this user (or the AWS_* credentials) the right to \
         read and write there"
    );
}

#[tokio::test]
async fn fresh_on_a_run_that_exists_and_another_run_file() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let fleet = Fleet::start(spec(folder.path(), &[]), 1).await;
    drop(Worker::join(&fleet, "w0", 1).await);
    let store = format!("file://{}", folder.path().join("store").display());
    let error = refused(folder.path(), &[], true).await;
    assert_eq!(
        error.to_string(),
        format!(
            "run `r` exists already in {store}; leave out --fresh to go on with it, or give a new name with \
             --set run.name=..."
        )
    );
    let error = refused(folder.path(), &["run.seed=6"], false).await;
    assert_eq!(
        error.to_string(),
        "run `r` was started with another run file; these differ: run.seed (5, now 6); give a new name with --set \
         run.name=..., or the values it was started with"
    );
}

#[tokio::test]
async fn a_session_that_does_not_begin_with_a_join() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let fleet = Fleet::start(spec(folder.path(), &[]), 1).await;
    fleet.status().await;
    let mut client = fleet.client().await;
    let report = pixfleet_cluster::run::Report::Heartbeat { next_step: None };
    let status = client.session(tokio_stream::iter([report.into()])).await.expect_err("no join");
    assert_eq!(
        FleetError::from(status).to_string(),
        "malformed message: report: the first report of a session must be a join"
    );
}

#[tokio::test]
async fn a_member_too_many_reads_a_typed_error() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let fleet = Fleet::start(spec(folder.path(), &["train.lanes=1", "train.global_batch=8"]), 1).await;
    fleet.status().await;
    let mut sessions = Vec::new();
    let mut client = fleet.client().await;
    let error = loop {
        let mut session = Session::open(&mut client, Join::default(), 0).await.expect("a session");
        match session.next().await {
            Ok(Some(Order::Welcome(_))) => sessions.push(session),
            Ok(other) => panic!("expected a welcome or a refusal, got {other:?}"),
            Err(error) => break error,
        }
        assert!(sessions.len() < 100, "the number of members is bounded");
    };
    assert_eq!(error, FleetError::RunFull { members: 65, members_max: 65 });
}

#[tokio::test]
async fn a_ledger_with_a_hole_or_a_changed_segment() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    for _ in 0..2 {
        // Each life writes at least one segment, and ends drained before anybody came.
        let mut fleet = Fleet::start(spec(folder.path(), &[]), 1).await;
        let (unused, _) = tokio::sync::oneshot::channel();
        std::mem::replace(&mut fleet.drain, unused).send(()).expect("it waits");
        fleet.end().await.expect("a clean end");
    }
    let ledger = folder.path().join("store/r/ledger");
    let first = ledger.join("00000000000000000000.jsonl");
    let text = std::fs::read_to_string(&first).expect("the first segment");
    let problem = |error: CoordinatorError| error.sentence();

    std::fs::write(&first, text.replace("\"seed\":5", "\"seed\":6")).expect("temporary");
    assert_eq!(
        problem(refused(folder.path(), &[], false).await),
        "the run's ledger cannot be read: ledger segment ledger/00000000000000000001.jsonl is not the successor of the \
         segment before it"
    );
    std::fs::remove_file(&first).expect("temporary");
    assert_eq!(
        problem(refused(folder.path(), &[], false).await),
        "the run's ledger cannot be read: ledger segment ledger/00000000000000000000.jsonl is missing"
    );
}

#[tokio::test]
async fn who_comes_before_the_run_is_open_is_told_to_come_again() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    // A segment that is in nobody's list and yet taken: reading what lies there takes until somebody writes to it.
    let ledger = folder.path().join("store/r/ledger");
    std::fs::create_dir_all(&ledger).expect("temporary");
    let pipe = ledger.join("00000000000000000000.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let fleet = Fleet::start(spec(folder.path(), &[]), 1).await;
    let mut client = fleet.client().await;
    let not_ready = FleetError::NotReady { what: "it opens the run".into() };
    assert_eq!(not_ready.class(), pixfleet_cluster::Class::Retry);
    let session = Session::open(&mut client, Join::default(), 0).await.expect_err("it does not lead yet");
    assert_eq!(session, not_ready);
    let status = client.status(pixfleet_proto::pb::StatusRequest {}).await.expect_err("it does not lead yet");
    assert_eq!(FleetError::from(status), not_ready);
    let write = async {
        while !fleet.has_ended() {
            // Opened for both, a pipe waits for nobody; whoever waits to read it finds it empty.
            drop(std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("a pipe"));
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the reading", write).await;
    let error = fleet.end().await.expect_err("it never leads");
    assert_eq!(
        error.to_string(),
        "run `r` was opened 20 times and another coordinator always wrote first; see who else runs it"
    );
}

#[tokio::test]
async fn a_worker_that_the_run_does_not_know_gets_a_number_of_its_own() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let fleet = Fleet::start(spec(folder.path(), &[]), 1).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    a.formed().await;
    let stranger = Join { member: Some(MemberId(77)), pid: 2, ..Join::default() };
    let mut stranger = Worker::open(&fleet, stranger).await;
    assert_eq!(stranger.welcome.member, MemberId(2));
    // It believes that it trains in a generation that nobody knows.
    stranger.say(Report::Standing(Standing::Training { generation: Generation(9), next_step: Step(4) })).await;
    let Order::Abort { generation, .. } = stranger.order().await else { panic!("expected an abort") };
    assert_eq!(generation, Generation(9));
    // Whoever takes another worker's number is given one of its own; the other one's session stands.
    let thief = Join { member: Some(a.welcome.member), pid: 3, ..Join::default() };
    assert_eq!(Worker::open(&fleet, thief).await.welcome.member, MemberId(3));
    a.step().await;
    fleet.status_that("a step", |s| s.next_step == 1).await;
}
