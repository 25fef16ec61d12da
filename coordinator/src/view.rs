//! What people see: the run as status and notices on the wire.

use pixfleet_cluster::run::{LossCause, Notice, Outcome, Run, Speed};
use pixfleet_proto::pb;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a view needs to know besides the run.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) run: String,
    pub(crate) steps: u64,
    pub(crate) global_batch: u32,
    /// Members that may wait or train at once.
    pub(crate) members_max: u32,
    /// Samples in an epoch.
    pub(crate) epoch_len: u64,
    /// The number of this leader.
    pub(crate) leader: u64,
}

/// What has happened under this leader.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Steps committed, those that were done again included.
    pub(crate) steps: u64,
    /// Faults, by kind.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// The newest step.
    pub(crate) last: Option<pb::StepDone>,
}

impl Tally {
    pub(crate) fn count(&mut self, notice: &Notice) {
        let fault = match notice {
            Notice::Step { .. } => {
                self.steps += 1;
                return;
            }
            Notice::Loss { cause, .. } => match cause {
                LossCause::StreamClosed { .. } => "stream_closed",
                LossCause::HeartbeatMissed { .. } => "heartbeat_missed",
                LossCause::Exited { .. } => "exited",
                LossCause::SilentAfterFailure { .. } => "silent_after_failure",
                LossCause::Fault { .. } => "fault",
            },
            Notice::Diverged { .. } => "diverged",
            Notice::CheckpointFailed { .. } => "checkpoint_failed",
            Notice::State | Notice::Checkpoint { .. } | Notice::Left { .. } | Notice::Straggler { .. } => return,
        };
        *self.faults.entry(fault).or_default() += 1;
    }
}

fn speed(speed: Speed) -> pb::Speed {
    let Speed { step_s, data_wait_s, collective_wait_s, straggler } = speed;
    pb::Speed { step_s, data_wait_s, collective_wait_s, straggler }
}

impl Frame {
    pub(crate) fn status(&self, run: &Run, tally: &Tally, uptime: Duration) -> pb::StatusReply {
        let members = run.members().map(|m| pb::MemberStatus {
            member: m.member.0,
            name: m.join.name,
            host: m.join.host,
            pid: m.join.pid,
            rank: m.rank.map(|r| r.0),
            next_step: m.next_step.map(|s| s.0),
            state: m.state.into(),
            speed: m.speed.map(speed),
        });
        pb::StatusReply {
            run: self.run.clone(),
            state: run.state().into(),
            generation: run.generation().unwrap_or_default().0,
            next_step: run.next_step().0,
            steps: self.steps,
            members: members.collect(),
            last: tally.last.clone(),
            checkpoint_step: run.checkpoint().map(|c| c.step.0),
            losses_of_members: run.losses(),
            message: run.message().into(),
            leader: self.leader,
            faults: tally.faults.iter().map(|(kind, n)| ((*kind).to_string(), *n)).collect(),
            uptime_s: uptime.as_secs_f64(),
        }
    }

    /// A notice on the wire; `None` for what only logs tell.
    pub(crate) fn notice(&self, run: &Run, notice: Notice) -> Option<pb::Notice> {
        use pb::notice::Kind;
        let kind = match notice {
            Notice::State => Kind::State(pb::StateNotice {
                state: run.state().into(),
                generation: run.generation().unwrap_or_default().0,
                world: run.world(),
                next_step: run.next_step().0,
                steps: self.steps,
            }),
            Notice::Step { report, world } => {
                let samples_per_s = if report.seconds > 0.0 { report.samples as f64 / report.seconds } else { 0.0 };
                let epoch = report.step.0 * u64::from(self.global_batch) / self.epoch_len.max(1);
                let report = Some(report.into());
                Kind::Step(pb::StepDone { report, world, epoch, samples_per_s, steps: self.steps })
            }
            Notice::Checkpoint { step, key } => Kind::Checkpoint(pb::CheckpointNotice { step: step.0, key }),
            Notice::CheckpointFailed { .. } => return None,
            Notice::Loss { member, name, pid, generation, cause, .. } => Kind::Loss(pb::LossNotice {
                member: member.0,
                name,
                cause: cause.to_string(),
                generation: generation.0,
                pid,
            }),
            Notice::Left { member, name, reason } => Kind::Left(pb::LeftNotice { member: member.0, name, reason }),
            Notice::Straggler { member, name, ratio } => {
                Kind::Straggler(pb::StragglerNotice { member: member.0, name, ratio })
            }
            Notice::Diverged { member, name, rank, step } => Kind::Diverged(pb::DivergedNotice {
                member: member.0,
                name,
                rank: rank.map(|r| r.0),
                next_step: step.0,
            }),
        };
        Some(pb::Notice { kind: Some(kind) })
    }

    pub(crate) fn finished(outcome: Outcome, message: &str) -> pb::Notice {
        let stop = pb::Stop { outcome: pb::Outcome::from(outcome).into(), message: message.into() };
        pb::Notice { kind: Some(pb::notice::Kind::Finished(stop)) }
    }
}
