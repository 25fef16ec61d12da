use crate::{FleetError, Patience, connect, pb};
use pixfleet_cluster::evidence::Evidence;
use pixfleet_cluster::ledger::{Losses, Substitution};
use pixfleet_cluster::run::{
    Form, Join, LeaveKind, Left, MeetingPoint, Order, Outcome, PartReport, Prepared, Report, Standing, StepReport,
    Switched, Welcome,
};
use pixfleet_cluster::{Class, Generation, MemberId, PartEntry, Rank, SampleId, Step};
use std::time::Duration;
use tonic::{Code, Status};

fn every_report() -> Vec<Report> {
    let sample = |row| SampleId { epoch: 1, row_group: 2, row };
    vec![
        Report::Join(Join {
            name: "worker-0".into(),
            host: "here".into(),
            pid: 7,
            device: "cpu".into(),
            member: Some(MemberId(3)),
            meets_at: MeetingPoint { address: "10.0.0.7:41000".into(), secret: "s".into() },
        }),
        Report::Standing(Standing::Free { next_step: Some(Step(3)), digest: Some(u64::MAX) }),
        Report::Standing(Standing::Forming { generation: Generation(2) }),
        Report::Standing(Standing::Training { generation: Generation(2), next_step: Step(3) }),
        Report::Standing(Standing::Finished { generation: Generation(2), next_step: Step(3) }),
        Report::Leaving { reason: "SIGTERM".into() },
        Report::Switched(Switched { generation: Generation(2), start_step: Step(3), digest: Some(u64::MAX) }),
        Report::Heartbeat { next_step: None },
        Report::Ready { generation: Generation(2), next_step: Step(3) },
        Report::Committed(StepReport {
            generation: Generation(2),
            step: Step(3),
            losses: Losses::new([("global", 1.5), ("local", 0.0)], 1.5),
            lr: 1e-3,
            samples: 64,
            seconds: 0.5,
            data_wait_s: 0.1,
            collective_wait_s: 0.2,
            substitutions: vec![Substitution {
                position: 9,
                wanted: sample(1),
                used: sample(2),
                reason: "not a JPEG".into(),
            }],
            metrics: [("grad_norm".to_string(), 2.0)].into(),
            evidence: Some(Evidence { rows: 1 << 127 | 5, drawn: u128::MAX - 1 }),
            digest: Some(7),
        }),
        Report::Left(Left {
            generation: Generation(2),
            next_step: None,
            digest: None,
            kind: LeaveKind::Collective,
            message: "reset by peer".into(),
            lost_rank: Some(Rank(1)),
        }),
        Report::Part(PartReport {
            generation: Generation(2),
            step: Step(4),
            entry: PartEntry {
                path: "checkpoints/p".into(),
                rank: Rank(1),
                bytes: 10,
                blake3: "ab".into(),
                tensors: vec!["param/x".into()],
            },
        }),
        Report::Finished { generation: Generation(2), next_step: Step(4) },
        Report::Fault { message: "disk full".into() },
    ]
}

fn every_order() -> Vec<Order> {
    vec![
        Order::Welcome(Welcome {
            member: MemberId(3),
            run: "r".into(),
            spec_toml: "[run]".into(),
            spec_digest: "d".into(),
            dataset_digest: "e".into(),
            heartbeat_ms: 500,
            leader: 2,
        }),
        Order::Form(Form {
            generation: Generation(2),
            rank: Rank(1),
            members: [MemberId(3), MemberId(5)].into(),
            meets_at: MeetingPoint { address: "10.0.0.7:41000".into(), secret: "s".into() },
            start_step: None,
            source: Some(Rank(0)),
            receivers: [Rank(1)].into(),
            resume_from: None,
            checkpoint_only: true,
        }),
        Order::Abort { generation: Generation(2), cause: "lost".into() },
        Order::Prepare(Prepared { from: Generation(1), generation: Generation(2), form: None }),
        Order::Withdraw { generation: Generation(2) },
        Order::Yield { generation: Generation(2) },
        Order::Recorded { through: Step(8) },
        Order::Checkpointed { generation: Generation(2), step: Step(9), key: "manifests/x".into() },
        Order::Stop { outcome: Outcome::Drained, message: String::new() },
    ]
}

#[test]
fn every_message_survives_the_wire() {
    for report in every_report() {
        assert_eq!(Report::try_from(pb::Report::from(report.clone())), Ok(report));
    }
    for order in every_order() {
        assert_eq!(Order::try_from(pb::Order::from(order.clone())), Ok(order));
    }
}

#[test]
fn losses_with_too_many_or_misnamed_terms_are_refused() {
    let refused = |terms: std::collections::BTreeMap<String, f64>| {
        let report = pb::StepReport { losses: Some(pb::Losses { terms, total: 1.0 }), ..pb::StepReport::default() };
        let report = pb::Report { kind: Some(pb::report::Kind::Committed(report)) };
        Report::try_from(report).expect_err("malformed").to_string()
    };
    let many = (0..65).map(|i| (format!("t{i}"), 1.0)).collect();
    assert_eq!(refused(many), "committed.losses.terms: holds more than 64 terms");
    let misnamed = "committed.losses.terms: names a term that is `total`, or not 1 to 64 of a-z, 0-9 and _";
    for name in ["total", "", "Global", "a b", &"x".repeat(65)] {
        assert_eq!(refused([(name.to_string(), 1.0)].into()), misnamed, "{name}");
    }
}

#[test]
fn evidence_of_another_length_is_refused() {
    let losses = Some(pb::Losses { total: 1.0, ..pb::Losses::default() });
    let report = pb::StepReport { losses, evidence: Some(vec![0; 31]), ..pb::StepReport::default() };
    let report = pb::Report { kind: Some(pb::report::Kind::Committed(report)) };
    let error = Report::try_from(report).expect_err("31 bytes");
    assert_eq!(error.to_string(), "committed.evidence: is not 32 bytes");
}

#[test]
fn a_message_without_content_names_its_field() {
    let error = Report::try_from(pb::Report { kind: None }).expect_err("empty");
    assert_eq!(error.to_string(), "report.kind: is missing");
    let form = pb::Form { generation: 1, rank: 4, world: 1, member_runs: vec![1, 1], ..pb::Form::default() };
    let order = pb::Order { kind: Some(pb::order::Kind::Form(form)) };
    assert_eq!(
        Order::try_from(order).expect_err("rank 4 of 1").to_string(),
        "form.rank: does not lie within its members"
    );
}

/// One of each variant, with the class that must come out at the other end.
fn every_error() -> Vec<(FleetError, Class)> {
    let s = String::from;
    vec![
        (FleetError::NoCoordinator { address: s("a"), cause: s("c") }, Class::Fatal),
        (FleetError::Disconnected { cause: s("c") }, Class::Retry),
        (FleetError::NotReady { what: s("w") }, Class::Retry),
        (FleetError::StaleGeneration { got: Generation(1), current: Generation(2) }, Class::Reform),
        (FleetError::KeyTimeout { generation: Generation(1), key: s("k"), waited_ms: 5 }, Class::Reform),
        (FleetError::TooLarge { what: s("key"), bytes: 5, bytes_max: 4 }, Class::Fatal),
        (FleetError::SpecMismatch { run: s("r"), stored: s("a"), given: s("b") }, Class::Fatal),
        (FleetError::RunOver { how: s("done") }, Class::Fatal),
        (FleetError::RunFull { members: 4, members_max: 4 }, Class::Fatal),
        (FleetError::UnknownMember { member: MemberId(1) }, Class::Retry),
        (FleetError::Malformed { field: s("f"), problem: s("p") }, Class::Fatal),
        (FleetError::Store { object: s("o"), cause: s("c"), retry: true }, Class::Retry),
        (FleetError::Store { object: s("o"), cause: s("c"), retry: false }, Class::Fatal),
        (FleetError::Foreign { code: s("Internal"), message: s("m") }, Class::Fatal),
    ]
}

#[test]
fn every_error_keeps_its_type_and_class_across_the_wire() {
    for (error, class) in every_error() {
        let back = FleetError::from(Status::from(error.clone()));
        assert_eq!(back, error);
        assert_eq!(back.class(), class, "{error}");
    }
}

#[test]
fn an_untyped_status_is_foreign_and_a_broken_connection_is_retried() {
    assert_eq!(FleetError::from(Status::new(Code::Unavailable, "gone")).class(), Class::Retry);
    assert_eq!(
        FleetError::from(Status::new(Code::Unimplemented, "what?")),
        FleetError::Foreign { code: "Unimplemented".into(), message: "what?".into() }
    );
}

#[tokio::test]
async fn nobody_there_is_said_plainly() {
    // Bind and drop: a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound").port();
    let address = format!("http://127.0.0.1:{port}");
    let error = connect(&address, Patience(Duration::from_millis(60))).await.expect_err("nobody listens");
    assert_eq!(error.to_string(), format!("no coordinator answers at {address}: Connection refused (os error 111)"));
}
