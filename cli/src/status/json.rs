//! The run as one JSON object on one line.

use super::View;
use pixfleet_proto::pb;
use serde_json::{Map, Value, json};

/// The line.
pub(super) fn line(view: &View) -> String {
    match view {
        View::Closed(outcome, leader) => json!({ "state": outcome.word(), "leader": leader }),
        View::Live(status) => live(status),
    }
    .to_string()
}

fn live(status: &pb::StatusReply) -> Value {
    let report = status.last.as_ref().and_then(|last| last.report.as_ref());
    json!({
        "run": status.run,
        "state": status.state,
        "message": status.message,
        "leader": status.leader,
        "uptime_s": status.uptime_s,
        "generation": status.generation,
        "next_step": status.next_step,
        "steps": status.steps,
        "epoch": status.last.as_ref().map(|last| last.epoch),
        "samples_per_s": status.last.as_ref().map(|last| last.samples_per_s),
        "step_s": report.map(|r| r.seconds),
        "losses": report.and_then(|r| r.losses.as_ref()).map(losses),
        "checkpoint_step": status.checkpoint_step,
        "members_lost": status.losses_of_members,
        "faults": status.faults.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn losses(l: &pb::Losses) -> Value {
    l.named().map(|(term, loss)| (term.to_string(), json!(loss))).collect::<Map<_, _>>().into()
}

fn member(m: &pb::MemberStatus) -> Value {
    json!({
        "member": m.member,
        "name": m.name,
        "host": m.host,
        "pid": m.pid,
        "rank": m.rank,
        "state": m.state,
        "next_step": m.next_step,
        "step_s": m.speed.map(|s| s.step_s),
        "data_wait_s": m.speed.map(|s| s.data_wait_s),
        "collective_wait_s": m.speed.map(|s| s.collective_wait_s),
        "straggler": m.speed.is_some_and(|s| s.straggler),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_holds_all_that_the_table_shows() {
        let value: Value = serde_json::from_str(&line(&super::super::tests::live())).expect("JSON");
        assert_eq!((value["leader"].as_u64(), value["checkpoint_step"].as_u64()), (Some(2), Some(6)));
        assert_eq!(value["faults"], json!({ "exited": 2, "heartbeat_missed": 1 }));
        assert_eq!(value["losses"], json!({ "global": 1.5, "local": 0.25, "total": 1.75 }));
        assert_eq!(value["members"][0]["straggler"], json!(true));
        assert_eq!(value["members"][0]["collective_wait_s"], json!(0.02));
    }
}
