use super::*;
use crate::ids::{Generation, Step};
use crate::run::tests::config;
use crate::run::{Adopted, Now};

fn join(host: &str, pid: u32, member: Option<u64>) -> Join {
    Join { host: host.into(), pid, member: member.map(MemberId), ..Join::default() }
}

/// A run whose member 3 is process 7 of host a.
fn run() -> Run {
    let mut run = Run::new(config(2));
    run.handle(Now::ZERO, RunEvent::Joined { member: MemberId(3), join: join("a", 7, None) });
    run
}

fn number_of(run: &Run, join: &Join) -> (u64, bool) {
    let seated = Sessions::new(1, MemberId(5)).open(run, join, ());
    (seated.seat.member.0, seated.again)
}

#[test]
fn a_number_is_kept_by_its_process_and_by_no_other() {
    let run = run();
    assert_eq!(number_of(&run, &join("a", 7, None)), (5, false), "it names no number");
    assert_eq!(number_of(&run, &join("a", 7, Some(4))), (5, false), "nobody knows number 4");
    assert_eq!(number_of(&run, &join("a", 7, Some(3))), (3, true));
    assert_eq!(number_of(&run, &join("a", 8, Some(3))), (5, false), "another process");
    assert_eq!(number_of(&run, &join("b", 7, Some(3))), (5, false), "the same process id on another host");
}

#[test]
fn of_a_member_that_a_takeover_brought_along_the_number_is_enough() {
    let members = vec![MemberId(4)];
    let adopted = Adopted { generation: Generation(1), members, start_step: Step(0), prepared: [].into() };
    let run = Run::new(crate::run::RunConfig { adopted: Some(adopted), ..config(1) });
    assert_eq!(number_of(&run, &join("b", 8, Some(4))), (4, true));
}

#[test]
fn a_newer_session_takes_the_place_of_an_older_one() {
    let run = run();
    let mut sessions = Sessions::new(1, MemberId(5));
    let older = sessions.open(&run, &join("a", 7, Some(3)), "older");
    let newer = sessions.open(&run, &join("a", 7, Some(3)), "newer");
    assert_eq!((older.seat.member, older.replaced), (newer.seat.member, None));
    assert_eq!(newer.replaced, Some("older"));
    let beat = || Report::Heartbeat { next_step: None };
    assert_eq!(sessions.said(older.seat, beat()), None);
    assert_eq!(sessions.broke(older.seat, "reset".into()), None);
    assert_eq!(sessions.said(newer.seat, beat()), Some(RunEvent::Reported { member: MemberId(3), report: beat() }));
    assert_eq!(sessions.way(MemberId(3)), Some(&"newer"));
}

#[test]
fn a_session_breaks_once() {
    let run = run();
    let mut sessions = Sessions::new(1, MemberId(5));
    let seat = sessions.open(&run, &join("a", 7, Some(3)), ()).seat;
    let disconnected = RunEvent::Disconnected { member: MemberId(3), how: "reset".into() };
    assert_eq!(sessions.broke(seat, "reset".into()), Some(disconnected));
    assert_eq!(sessions.broke(seat, "reset".into()), None);
    assert_eq!(sessions.way(MemberId(3)), None);
    assert_eq!(sessions.close(MemberId(3)), None);
}

#[test]
fn the_end_of_a_process_is_the_loss_of_its_member_on_its_host() {
    let run = run();
    let lost = RunEvent::Lost { member: MemberId(3), cause: LossCause::Exited { how: "signal 9".into() } };
    assert_eq!(process_ended(&run, "a", 7, "signal 9"), [lost, RunEvent::WillNotJoin]);
    assert_eq!(process_ended(&run, "b", 7, "signal 9"), [RunEvent::WillNotJoin], "the same process id on another host");
    assert_eq!(process_ended(&run, "a", 8, "signal 9"), [RunEvent::WillNotJoin], "it never joined");
}
