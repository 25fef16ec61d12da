//! The run as Prometheus reads it: one page of text, made anew for whoever asks, so that nothing of a member that has
//! gone stays behind.

use crate::driver::Input;
use crate::error::CoordinatorError;
use crate::view::Tally;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Router, routing};
use pixfleet_proto::pb;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// The format that [`text`] writes.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TermLabel {
    term: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberStateLabel {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InvariantLabel {
    invariant: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabel {
    member: u64,
    name: String,
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// The page.
pub(crate) fn text(status: &pb::StatusReply, tally: &Tally, violations: &BTreeMap<&'static str, u64>) -> String {
    let run = (Cow::Borrowed("run"), Cow::Owned(status.run.clone()));
    let mut page = Registry::with_prefix_and_labels("pixfleet", [run].into_iter());
    progress(&mut page, status, tally);
    members(&mut page, status);
    let faults = Family::<CauseLabel, Counter>::default();
    page.register("faults", "Faults under this leader, by cause", faults.clone());
    for (cause, n) in &status.faults {
        faults.get_or_create(&CauseLabel { cause: cause.clone() }).inc_by(*n);
    }
    let broken = Family::<InvariantLabel, Counter>::default();
    page.register("invariant_violations", "Invariants found broken: a defect of this program", broken.clone());
    for (invariant, n) in violations {
        broken.get_or_create(&InvariantLabel { invariant }).inc_by(*n);
    }
    let mut text = String::new();
    encode(&mut text, &page).expect("a string takes all text");
    text
}

fn progress(page: &mut Registry, status: &pb::StatusReply, tally: &Tally) {
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        page.register(name, help, gauge);
    };
    gauge("leader", "Number of the coordinator that leads the run", status.leader);
    gauge("generation", "The newest membership", status.generation);
    gauge("next_step", "The step to run next", status.next_step);
    if let Some(step) = status.checkpoint_step {
        gauge("checkpoint_step", "Steps done at the newest committed checkpoint", step);
    }
    let steps = Counter::<u64>::default();
    steps.inc_by(tally.steps);
    page.register("steps", "Steps committed under this leader, repeated ones included", steps);
    let uptime = FloatGauge::default();
    uptime.set(status.uptime_s);
    page.register("uptime_seconds", "Time since this coordinator opened the run", uptime);
    let (losses, rate) = (Family::<TermLabel, FloatGauge>::default(), FloatGauge::default());
    page.register("loss", "Losses of the newest step, by term", losses.clone());
    if let Some(last) = &status.last {
        rate.set(last.samples_per_s);
        page.register("samples_per_second", "Samples of the newest step over its time", rate);
        let newest = last.report.as_ref().and_then(|r| r.losses.as_ref());
        for (term, loss) in newest.into_iter().flat_map(pb::Losses::named) {
            losses.get_or_create(&TermLabel { term: term.into() }).set(loss);
        }
    }
}

fn members(page: &mut Registry, status: &pb::StatusReply) {
    let states = Family::<MemberStateLabel, Gauge>::default();
    page.register("members", "Members, by state", states.clone());
    for m in &status.members {
        states.get_or_create(&MemberStateLabel { state: m.state.clone() }).inc();
    }
    let mut seconds = |name: &str, help: &str, of: fn(&pb::Speed) -> f64| {
        let family = Family::<MemberLabel, FloatGauge>::default();
        page.register(name, help, family.clone());
        for m in &status.members {
            if let Some(speed) = &m.speed {
                family.get_or_create(&MemberLabel { member: m.member, name: m.name.clone() }).set(of(speed));
            }
        }
    };
    seconds("member_step_seconds", "A member's usual step", |s| s.step_s);
    seconds("member_data_wait_seconds", "Of it, waiting for samples", |s| s.data_wait_s);
    seconds("member_collective_wait_seconds", "Of it, waiting in collectives", |s| s.collective_wait_s);
    seconds("member_straggler", "1 if it holds the others up", |s| f64::from(u8::from(s.straggler)));
}

/// Answers `GET /metrics` on `listener` until it is dropped.
///
/// # Errors
/// What the listener met.
pub(crate) async fn serve(listener: TcpListener, inputs: mpsc::Sender<Input>) -> Result<(), CoordinatorError> {
    let router = Router::new().route("/metrics", routing::get(page)).with_state(inputs);
    axum::serve(listener, router).await.map_err(CoordinatorError::Metrics)
}

async fn page(State(inputs): State<mpsc::Sender<Input>>) -> impl IntoResponse {
    let (sender, reply) = oneshot::channel();
    // Both fail only while no driver is there.
    let asked = inputs.try_send(Input::Metrics(sender));
    match (asked, reply.await) {
        (Ok(()), Ok(text)) => (StatusCode::OK, [(header::CONTENT_TYPE, CONTENT_TYPE)], text),
        _ => {
            let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            (StatusCode::SERVICE_UNAVAILABLE, plain, "the coordinator is not ready\n".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_steps_losses_members_faults_and_broken_invariants() {
        let speed = pb::Speed { step_s: 1.5, data_wait_s: 0.25, collective_wait_s: 0.5, straggler: true };
        let member = pb::MemberStatus {
            member: 3,
            name: "w\"0".into(),
            state: "training".into(),
            speed: Some(speed),
            ..pb::MemberStatus::default()
        };
        let losses = pb::Losses { terms: [("global".into(), 1.0), ("crop_cosine".into(), 0.5)].into(), total: 1.25 };
        let report = pb::StepReport { losses: Some(losses), ..pb::StepReport::default() };
        let status = pb::StatusReply {
            run: "r".into(),
            members: vec![member],
            last: Some(pb::StepDone { report: Some(report), samples_per_s: 16.0, ..pb::StepDone::default() }),
            checkpoint_step: Some(4),
            faults: [("exited".to_string(), 2)].into(),
            ..pb::StatusReply::default()
        };
        let tally = Tally { steps: 7, ..Tally::default() };
        let page = text(&status, &tally, &BTreeMap::from([("one_member_a_rank", 1)]));
        for line in [
            "pixfleet_steps_total{run=\"r\"} 7",
            "pixfleet_loss{run=\"r\",term=\"total\"} 1.25",
            "pixfleet_loss{run=\"r\",term=\"global\"} 1.0",
            "pixfleet_loss{run=\"r\",term=\"crop_cosine\"} 0.5",
            "pixfleet_samples_per_second{run=\"r\"} 16.0",
            "pixfleet_members{run=\"r\",state=\"training\"} 1",
            "pixfleet_checkpoint_step{run=\"r\"} 4",
            "pixfleet_faults_total{run=\"r\",cause=\"exited\"} 2",
            "pixfleet_invariant_violations_total{run=\"r\",invariant=\"one_member_a_rank\"} 1",
            "pixfleet_member_collective_wait_seconds{run=\"r\",member=\"3\",name=\"w\\\"0\"} 0.5",
            "pixfleet_member_straggler{run=\"r\",member=\"3\",name=\"w\\\"0\"} 1.0",
        ] {
            assert!(page.lines().any(|l| l == line), "`{line}` is missing in\n{page}");
        }
        assert!(!page.contains("local"), "no loss, no line:\n{page}");
    }
}
