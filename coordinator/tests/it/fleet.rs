//! Whole lives of runs.

use crate::support::{Fleet, Worker, audited, formed, rank, soon, spec, watch, write_index};
use pixfleet_cluster::ledger::Record;
use pixfleet_cluster::run::{LeaveKind, Order, Outcome};
use pixfleet_cluster::{Generation, RunSpec, Step};
use pixfleet_proto::pb;

#[tokio::test]
async fn two_workers_gather_train_commit_checkpoints_and_end() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &[]);
    let fleet = Fleet::start(spec.clone(), 2).await;
    let notices = watch(&fleet).await;
    let mut a = Worker::join(&fleet, "w0", 11).await;
    let mut b = Worker::join(&fleet, "w1", 12).await;
    assert_eq!(RunSpec::parse(&a.welcome.spec_toml, &[]).expect("whole"), spec);
    assert_eq!(a.welcome.spec_digest, spec.digest());
    let (form_a, form_b) = (a.formed().await, b.formed().await);
    assert_eq!((form_a.rank.0, form_b.rank.0, form_b.world()), (0, 1, 2));
    for _ in 0..6 {
        a.step().await;
        b.step().await;
    }
    let (x, y) = tokio::join!(a.finish(), b.finish());
    assert_eq!((x, y), (Outcome::Done, Outcome::Done));
    drop((a, b));
    assert_eq!(fleet.end().await.expect("a clean end").outcome, Outcome::Done);

    let records = audited(&spec).await;
    assert_eq!(formed(&records), vec![(1, 0, 2)]);
    assert_eq!(records.iter().filter(|r| matches!(r, Record::Step(_))).count(), 6);
    assert_eq!(records.iter().filter(|r| matches!(r, Record::Checkpoint { .. })).count(), 3);
    assert!(matches!(records.last(), Some(Record::Closed { outcome, .. }) if outcome == "done"));
    let steps: Vec<u64> = soon("the watch's end", notices)
        .await
        .expect("no panic")
        .into_iter()
        .filter_map(|k| match k {
            pb::notice::Kind::Step(s) => Some(s.report.expect("a report").step),
            _ => None,
        })
        .collect();
    assert_eq!(steps, vec![0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_lost_worker_re_forms_the_others_and_no_sample_is_lost() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &[]);
    let fleet = Fleet::start(spec.clone(), 3).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    let mut b = Worker::join(&fleet, "w1", 2).await;
    let mut c = Worker::join(&fleet, "w2", 3).await;
    for w in [&mut a, &mut b, &mut c] {
        w.formed().await;
        w.step().await;
    }
    // Step 1 reaches the weights of worker a only, then c dies.
    a.step().await;
    drop(c);
    for w in [&mut a, &mut b] {
        let Order::Abort { generation, cause } = w.order().await else { panic!("expected an abort") };
        assert_eq!(generation, Generation(1));
        assert!(cause.starts_with("w2 was lost: its session ended"), "{cause}");
        w.leave(LeaveKind::Collective).await;
    }
    let form_a = a.formed().await;
    let form_b = b.formed().await;
    assert_eq!((form_a.generation, form_a.start_step, form_a.world()), (Generation(2), Some(Step(2)), 2));
    assert_eq!((form_a.source, form_a.receivers.clone()), (rank(0), [rank(1).expect("some")].into()));
    assert!(form_b.needs_state() && !form_a.needs_state());
    for _ in 2..6 {
        a.step().await;
        b.step().await;
    }
    let (x, y) = tokio::join!(a.finish(), b.finish());
    assert_eq!((x, y), (Outcome::Done, Outcome::Done));
    drop((a, b));
    fleet.end().await.expect("a clean end");
    let records = audited(&spec).await;
    assert_eq!(formed(&records), vec![(1, 0, 3), (2, 2, 2)]);
    assert_eq!(records.iter().filter(|r| matches!(r, Record::Lost { .. })).count(), 1);
}

#[tokio::test]
async fn an_exit_seen_by_the_parent_is_the_same_loss() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let fleet = Fleet::start(spec(folder.path(), &[]), 2).await;
    let mut a = Worker::join(&fleet, "w0", 21).await;
    let mut b = Worker::join(&fleet, "w1", 22).await;
    a.formed().await;
    b.formed().await;
    let exit = pb::MemberExit { host: "here".into(), pid: 22, how: "killed by signal 9".into() };
    let kind = pb::control_request::Kind::MemberExit(exit);
    fleet.control(kind).await;
    let Order::Abort { cause, .. } = a.order().await else { panic!("expected an abort") };
    assert_eq!(cause, "w1 was lost: its process ended: killed by signal 9");
    drop(b);
    a.leave(LeaveKind::Collective).await;
    assert_eq!(a.formed().await.world(), 1);
    let status = fleet.status().await;
    assert_eq!((status.members.len(), status.generation, status.losses_of_members), (1, 2, 1));
    assert_eq!(status.faults, [("exited".to_string(), 1)].into());
}

#[tokio::test]
async fn a_drained_run_goes_on_where_it_stopped_with_another_number_of_workers() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &[]);
    let fleet = Fleet::start(spec.clone(), 1).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    a.formed().await;
    for _ in 0..3 {
        a.step().await;
    }
    fleet.control(pb::control_request::Kind::Drain(pb::Drain {})).await;
    assert_eq!(a.order().await, Order::Yield { generation: Generation(1) });
    a.part().await;
    assert_eq!(a.finish().await, Outcome::Drained);
    drop(a);
    assert_eq!(fleet.end().await.expect("a clean end").outcome, Outcome::Drained);

    let fleet = Fleet::start(spec.clone(), 2).await;
    let mut workers = [Worker::join(&fleet, "w0", 1).await, Worker::join(&fleet, "w1", 2).await];
    for w in &mut workers {
        let form = w.formed().await;
        assert_eq!((form.generation, form.start_step, form.source), (Generation(2), Some(Step(3)), None));
        assert_eq!(form.resume_from.as_deref(), Some("manifests/000000000003-000001.json"));
    }
    for _ in 3..6 {
        for w in &mut workers {
            w.step().await;
        }
    }
    let [mut a, mut b] = workers;
    let (x, y) = tokio::join!(a.finish(), b.finish());
    assert_eq!((x, y), (Outcome::Done, Outcome::Done));
    drop((a, b));
    fleet.end().await.expect("a clean end");
    audited(&spec).await;
}

#[tokio::test]
async fn a_signal_before_anybody_came_ends_the_run_drained() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let mut fleet = Fleet::start(spec(folder.path(), &[]), 2).await;
    let (unused, _) = tokio::sync::oneshot::channel();
    std::mem::replace(&mut fleet.drain, unused).send(()).expect("it waits");
    assert_eq!(fleet.end().await.expect("a clean end").outcome, Outcome::Drained);
}

#[tokio::test]
async fn a_ledger_is_cut_back_to_the_checkpoint_when_everything_died() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &[]);
    let fleet = Fleet::start(spec.clone(), 1).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    a.formed().await;
    for _ in 0..3 {
        a.step().await;
    }
    assert_eq!(a.checkpointed().await, Step(2));
    let stop = pb::Stop { outcome: pb::Outcome::Fault.into(), message: "pulled the plug".into() };
    let kind = pb::control_request::Kind::Stop(stop);
    fleet.control(kind).await;
    drop(a);
    let ended = fleet.end().await.expect("an end");
    assert_eq!((ended.outcome, ended.message.as_str()), (Outcome::Fault, "pulled the plug"));

    let fleet = Fleet::start(spec.clone(), 1).await;
    let mut a = Worker::join(&fleet, "w0", 1).await;
    assert_eq!(a.formed().await.start_step, Some(Step(2)));
    for _ in 2..6 {
        a.step().await;
    }
    assert_eq!(a.finish().await, Outcome::Done);
    drop(a);
    fleet.end().await.expect("a clean end");
    let records = audited(&spec).await;
    let steps = records.iter().filter(|r| matches!(r, Record::Step(_))).count();
    assert_eq!(steps, 7, "six of them count, step 2 was redone");
}
