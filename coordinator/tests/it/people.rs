//! What people and their tools see.

use crate::support::{Fleet, Worker, soon, spec, watch, write_index};
use pixfleet_cluster::Step;
use pixfleet_cluster::ledger::Losses;
use pixfleet_cluster::run::{LeaveKind, Report, StepReport};
use pixfleet_proto::pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A step that took a member `own` seconds by itself and the rest of a second in collectives.
async fn paced(w: &mut Worker, own: f64) {
    let step = w.at.expect("formed");
    let losses = Losses::new([("global", 2.0)], 2.0);
    let report = StepReport {
        generation: w.generation(),
        step,
        losses,
        samples: 8,
        seconds: 1.0,
        data_wait_s: 0.125,
        collective_wait_s: 1.0 - own,
        ..StepReport::default()
    };
    w.say(Report::Committed(report)).await;
    w.at = Some(step.next());
}

async fn page(address: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut text = String::new();
    soon("the page", stream.read_to_string(&mut text)).await.expect("text");
    text
}

#[tokio::test]
async fn status_watch_and_metrics_name_leader_speeds_stragglers_leavers_and_faults() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let spec = spec(folder.path(), &["schedule.steps=100", "train.reconnect_grace_ms=1"]);
    let fleet = Fleet::start(spec, 3).await;
    let notices = watch(&fleet).await;
    let mut workers = Vec::new();
    for pid in 1..4 {
        workers.push(Worker::join(&fleet, &format!("w{pid}"), pid).await);
    }
    for w in &mut workers {
        w.formed().await;
    }
    fleet.status_that("the group", |s| s.state == "training").await;
    for _ in 0..10 {
        for (w, own) in workers.iter_mut().zip([0.25, 0.75, 0.25]) {
            paced(w, own).await;
        }
    }
    let status = fleet.status_that("ten steps of all", |s| s.members.iter().all(|m| m.next_step == Some(10))).await;
    assert_eq!((status.leader, status.next_step, status.run.as_str()), (1, 10, "r"));
    assert!(status.uptime_s > 0.0);
    let speeds: Vec<_> = status.members.iter().map(|m| m.speed.expect("it has trained")).collect();
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    assert!(near(speeds[1].step_s, 1.0) && near(speeds[1].data_wait_s, 0.125), "{speeds:?}");
    assert!(near(speeds[1].collective_wait_s, 0.25), "{speeds:?}");
    assert_eq!(speeds.iter().map(|s| s.straggler).collect::<Vec<_>>(), [false, true, false]);
    assert!(near(status.last.expect("a step").samples_per_s, 8.0));

    let page = page(&fleet.metrics).await;
    for line in [
        "pixfleet_steps_total{run=\"r\"} 10",
        "pixfleet_leader{run=\"r\"} 1",
        "pixfleet_members{run=\"r\",state=\"training\"} 3",
        "pixfleet_loss{run=\"r\",term=\"total\"} 2.0",
        "pixfleet_member_straggler{run=\"r\",member=\"2\",name=\"w2\"} 1.0",
    ] {
        assert!(page.lines().any(|l| l == line), "`{line}` is missing in\n{page}");
    }

    // One does not come back; one of the others wants to go.
    drop(workers.pop());
    let status = fleet.status_that("the loss", |s| s.losses_of_members == 1).await;
    assert_eq!(status.faults, [("stream_closed".to_string(), 1)].into());
    workers[1].say(Report::Leaving { reason: "spot notice".into() }).await;
    for w in &mut workers {
        w.leave(LeaveKind::Aborted).await;
    }
    fleet.status_that("one member", |s| s.members.len() == 1).await;
    fleet.control(pb::control_request::Kind::Stop(pb::Stop { outcome: 3, message: "enough".into() })).await;
    drop(workers);
    fleet.end().await.expect("an end");
    let seen = soon("the watch's end", notices).await.expect("no panic");
    let straggler = seen.iter().find_map(|k| match k {
        pb::notice::Kind::Straggler(s) => Some((s.name.clone(), s.ratio)),
        _ => None,
    });
    let (name, ratio) = straggler.expect("it was named");
    assert!(name == "w2" && near(ratio, 3.0), "{name} {ratio}");
    let left =
        seen.iter().any(|k| matches!(k, pb::notice::Kind::Left(l) if l.name == "w2" && l.reason == "spot notice"));
    let lost = seen.iter().any(|k| matches!(k, pb::notice::Kind::Loss(l) if l.name == "w3"));
    assert!(left && lost, "{seen:?}");
    assert_eq!(seen.iter().filter(|k| matches!(k, pb::notice::Kind::Step(_))).count(), 10);
}

#[tokio::test]
async fn two_ranks_that_hold_other_weights_are_told_apart() {
    let folder = tempfile::tempdir().expect("temporary");
    write_index(&folder.path().join("data"));
    let fleet = Fleet::start(spec(folder.path(), &[]), 3).await;
    let notices = watch(&fleet).await;
    let mut workers = Vec::new();
    for pid in 1..4 {
        workers.push(Worker::join(&fleet, &format!("w{pid}"), pid).await);
    }
    for w in &mut workers {
        w.formed().await;
    }
    for (w, digest) in workers.iter_mut().zip([7, 7, 8]) {
        let report = StepReport {
            generation: w.generation(),
            step: Step(0),
            samples: 8,
            digest: Some(digest),
            ..StepReport::default()
        };
        w.say(Report::Committed(report)).await;
        w.at = Some(Step(1));
    }
    for (w, digest) in workers.iter_mut().zip([7, 7, 8]) {
        w.digest = Some(digest);
        w.leave(LeaveKind::Aborted).await;
    }
    let form = workers[0].formed().await;
    let odd = form.members.iter().position(|m| *m == workers[2].welcome.member).expect("it takes part");
    assert_eq!(form.receivers.iter().map(|r| r.0 as usize).collect::<Vec<_>>(), [odd], "the odd one takes theirs");
    fleet.control(pb::control_request::Kind::Stop(pb::Stop { outcome: 3, message: "enough".into() })).await;
    drop(workers);
    fleet.end().await.expect("an end");
    let seen = soon("the watch's end", notices).await.expect("no panic");
    assert!(seen.iter().any(|k| matches!(k, pb::notice::Kind::Diverged(d) if d.name == "w3")), "{seen:?}");
}
