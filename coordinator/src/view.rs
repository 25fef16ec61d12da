//! What people see: the run as status and notices on the wire.

use pixfleet_cluster::run::{Notice, Outcome, Run};
use pixfleet_proto::pb;

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
}

impl Frame {
    pub(crate) fn status(&self, run: &Run, last: Option<&pb::StepDone>) -> pb::StatusReply {
        let members = run.members().map(|m| pb::MemberStatus {
            member: m.member.0,
            name: m.join.name,
            host: m.join.host,
            pid: m.join.pid,
            rank: m.rank.map(|r| r.0),
            next_step: m.next_step.map(|s| s.0),
            state: m.state.into(),
        });
        pb::StatusReply {
            run: self.run.clone(),
            state: run.state().into(),
            generation: run.generation().unwrap_or_default().0,
            next_step: run.next_step().0,
            steps: self.steps,
            members: members.collect(),
            last: last.cloned(),
            checkpoint_step: run.checkpoint().map(|c| c.step.0),
            losses_of_members: run.losses(),
            message: run.message().into(),
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
        };
        Some(pb::Notice { kind: Some(kind) })
    }

    pub(crate) fn finished(outcome: Outcome, message: &str) -> pb::Notice {
        let stop = pb::Stop { outcome: pb::Outcome::from(outcome).into(), message: message.into() };
        pb::Notice { kind: Some(pb::notice::Kind::Finished(stop)) }
    }
}
