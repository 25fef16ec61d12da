//! Wire <-> `cluster` types. Outwards never fails; inwards says which field is missing or unknown.

use crate::error::Malformed;
use crate::pb;
use crate::runs::{numbers, runs};
use pixfleet_cluster::evidence::Evidence;
use pixfleet_cluster::ledger::{BadTerms, Losses, Substitution};
use pixfleet_cluster::run::{
    Form, Join, LeaveKind, Left, MeetingPoint, Order, Outcome, PartReport, Prepared, Report, Standing, StepReport,
    Switched, Welcome,
};
use pixfleet_cluster::{Generation, MemberId, PartEntry, Rank, SampleId, Step};

fn missing<T>(value: Option<T>, field: &'static str) -> Result<T, Malformed> {
    value.ok_or(Malformed { field, problem: "is missing" })
}

impl From<Report> for pb::Report {
    fn from(report: Report) -> Self {
        use pb::report::Kind;
        let kind = match report {
            Report::Join(j) => Kind::Join(pb::Join {
                name: j.name,
                host: j.host,
                pid: j.pid,
                device: j.device,
                member: j.member.map(|m| m.0),
                meets_at: Some(j.meets_at.into()),
            }),
            Report::Standing(standing) => Kind::Standing(standing.into()),
            Report::Leaving { reason } => Kind::Leaving(pb::Leaving { reason }),
            Report::Heartbeat { next_step } => Kind::Heartbeat(pb::Heartbeat { next_step: next_step.map(|s| s.0) }),
            Report::Ready { generation, next_step } => {
                Kind::Ready(pb::Ready { generation: generation.0, next_step: next_step.0 })
            }
            Report::Committed(s) => Kind::Committed(s.into()),
            Report::Left(left) => Kind::Left(left.into()),
            Report::Switched(s) => Kind::Switched(pb::Switched {
                generation: s.generation.0,
                start_step: s.start_step.0,
                digest: s.digest,
            }),
            Report::Part(p) => Kind::Part(pb::PartReport {
                generation: p.generation.0,
                step: p.step.0,
                rank: p.entry.rank.0,
                path: p.entry.path,
                bytes: p.entry.bytes,
                blake3: p.entry.blake3,
                tensors: p.entry.tensors,
            }),
            Report::Finished { generation, next_step } => {
                Kind::Finished(pb::Finished { generation: generation.0, next_step: next_step.0 })
            }
            Report::Fault { message } => Kind::Fault(pb::Fault { message }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::Report> for Report {
    type Error = Malformed;

    fn try_from(report: pb::Report) -> Result<Self, Malformed> {
        use pb::report::Kind;
        Ok(match missing(report.kind, "report.kind")? {
            Kind::Join(j) => Self::Join(Join {
                name: j.name,
                host: j.host,
                pid: j.pid,
                device: j.device,
                member: j.member.map(MemberId),
                meets_at: j.meets_at.unwrap_or_default().into(),
            }),
            Kind::Standing(standing) => Self::Standing(standing.try_into()?),
            Kind::Leaving(l) => Self::Leaving { reason: l.reason },
            Kind::Heartbeat(h) => Self::Heartbeat { next_step: h.next_step.map(Step) },
            Kind::Ready(r) => Self::Ready { generation: Generation(r.generation), next_step: Step(r.next_step) },
            Kind::Committed(s) => Self::Committed(s.try_into()?),
            Kind::Left(left) => Self::Left(left.try_into()?),
            Kind::Switched(s) => Self::Switched(Switched {
                generation: Generation(s.generation),
                start_step: Step(s.start_step),
                digest: s.digest,
            }),
            Kind::Part(p) => Self::Part(PartReport {
                generation: Generation(p.generation),
                step: Step(p.step),
                entry: PartEntry {
                    path: p.path,
                    rank: Rank(p.rank),
                    bytes: p.bytes,
                    blake3: p.blake3,
                    tensors: p.tensors,
                },
            }),
            Kind::Finished(f) => Self::Finished { generation: Generation(f.generation), next_step: Step(f.next_step) },
            Kind::Fault(f) => Self::Fault { message: f.message },
        })
    }
}

impl From<MeetingPoint> for pb::MeetingPoint {
    fn from(m: MeetingPoint) -> Self {
        Self { address: m.address, secret: m.secret }
    }
}

impl From<pb::MeetingPoint> for MeetingPoint {
    fn from(m: pb::MeetingPoint) -> Self {
        Self { address: m.address, secret: m.secret }
    }
}

impl From<StepReport> for pb::StepReport {
    fn from(s: StepReport) -> Self {
        Self {
            generation: s.generation.0,
            step: s.step.0,
            losses: Some(s.losses.into()),
            lr: s.lr,
            samples: s.samples,
            seconds: s.seconds,
            data_wait_s: s.data_wait_s,
            collective_wait_s: s.collective_wait_s,
            substitutions: s.substitutions.into_iter().map(Into::into).collect(),
            metrics: s.metrics.into_iter().collect(),
            evidence: s.evidence.map(|e| e.to_bytes().to_vec()),
            digest: s.digest,
        }
    }
}

impl TryFrom<pb::StepReport> for StepReport {
    type Error = Malformed;

    fn try_from(s: pb::StepReport) -> Result<Self, Malformed> {
        Ok(Self {
            generation: Generation(s.generation),
            step: Step(s.step),
            losses: missing(s.losses, "committed.losses")?.try_into()?,
            lr: s.lr,
            samples: s.samples,
            seconds: s.seconds,
            data_wait_s: s.data_wait_s,
            collective_wait_s: s.collective_wait_s,
            substitutions: s.substitutions.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            metrics: s.metrics.into_iter().collect(),
            evidence: s.evidence.map(evidence).transpose()?,
            digest: s.digest,
        })
    }
}

fn evidence(bytes: Vec<u8>) -> Result<Evidence, Malformed> {
    let malformed = |_| Malformed { field: "committed.evidence", problem: "is not 32 bytes" };
    bytes.try_into().map(Evidence::from_bytes).map_err(malformed)
}

impl From<Losses> for pb::Losses {
    fn from(l: Losses) -> Self {
        Self { terms: l.terms, total: l.total }
    }
}

impl TryFrom<pb::Losses> for Losses {
    type Error = Malformed;

    fn try_from(l: pb::Losses) -> Result<Self, Malformed> {
        let malformed = |bad: BadTerms| Malformed { field: "committed.losses.terms", problem: bad.problem() };
        Self::told(l.terms, l.total).map_err(malformed)
    }
}

impl pb::Losses {
    /// The total, then each term, by name.
    pub fn named(&self) -> impl Iterator<Item = (&str, f64)> {
        std::iter::once((Losses::TOTAL, self.total)).chain(self.terms.iter().map(|(name, loss)| (name.as_str(), *loss)))
    }
}

impl From<SampleId> for pb::SampleId {
    fn from(s: SampleId) -> Self {
        Self { epoch: s.epoch, row_group: s.row_group, row: s.row }
    }
}

impl From<pb::SampleId> for SampleId {
    fn from(s: pb::SampleId) -> Self {
        Self { epoch: s.epoch, row_group: s.row_group, row: s.row }
    }
}

impl From<Substitution> for pb::Substitution {
    fn from(s: Substitution) -> Self {
        Self { position: s.position, wanted: Some(s.wanted.into()), used: Some(s.used.into()), reason: s.reason }
    }
}

impl TryFrom<pb::Substitution> for Substitution {
    type Error = Malformed;

    fn try_from(s: pb::Substitution) -> Result<Self, Malformed> {
        Ok(Self {
            position: s.position,
            wanted: missing(s.wanted, "substitution.wanted")?.into(),
            used: missing(s.used, "substitution.used")?.into(),
            reason: s.reason,
        })
    }
}

impl From<Standing> for pb::Standing {
    fn from(standing: Standing) -> Self {
        use pb::standing::Kind;
        let kind = match standing {
            Standing::Free { next_step, digest } => Kind::Free(pb::Free { next_step: next_step.map(|s| s.0), digest }),
            Standing::Forming { generation } => Kind::Forming(generation.0),
            Standing::Training { generation, next_step } => {
                Kind::Training(pb::Ready { generation: generation.0, next_step: next_step.0 })
            }
            Standing::Finished { generation, next_step } => {
                Kind::Finished(pb::Finished { generation: generation.0, next_step: next_step.0 })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::Standing> for Standing {
    type Error = Malformed;

    fn try_from(standing: pb::Standing) -> Result<Self, Malformed> {
        use pb::standing::Kind;
        Ok(match missing(standing.kind, "standing.kind")? {
            Kind::Free(f) => Self::Free { next_step: f.next_step.map(Step), digest: f.digest },
            Kind::Forming(generation) => Self::Forming { generation: Generation(generation) },
            Kind::Training(t) => Self::Training { generation: Generation(t.generation), next_step: Step(t.next_step) },
            Kind::Finished(f) => Self::Finished { generation: Generation(f.generation), next_step: Step(f.next_step) },
        })
    }
}

impl From<Left> for pb::Left {
    fn from(left: Left) -> Self {
        let (kind, next) = match left.kind {
            LeaveKind::Boundary { next } => (pb::LeaveKind::Boundary, Some(next.0)),
            LeaveKind::Collective => (pb::LeaveKind::Collective, None),
            LeaveKind::Aborted => (pb::LeaveKind::Aborted, None),
        };
        Self {
            generation: left.generation.0,
            next_step: left.next_step.map(|s| s.0),
            kind: kind.into(),
            message: left.message,
            lost_rank: left.lost_rank.map(|r| r.0),
            digest: left.digest,
            next,
        }
    }
}

impl TryFrom<pb::Left> for Left {
    type Error = Malformed;

    fn try_from(left: pb::Left) -> Result<Self, Malformed> {
        let kind = match left.kind() {
            pb::LeaveKind::Boundary => LeaveKind::Boundary { next: Generation(missing(left.next, "left.next")?) },
            pb::LeaveKind::Collective => LeaveKind::Collective,
            pb::LeaveKind::Aborted => LeaveKind::Aborted,
            pb::LeaveKind::Unspecified => {
                return Err(Malformed { field: "left.kind", problem: "is missing or unknown" });
            }
        };
        Ok(Self {
            generation: Generation(left.generation),
            next_step: left.next_step.map(Step),
            digest: left.digest,
            kind,
            message: left.message,
            lost_rank: left.lost_rank.map(Rank),
        })
    }
}

impl From<Outcome> for pb::Outcome {
    fn from(o: Outcome) -> Self {
        match o {
            Outcome::Done => Self::Done,
            Outcome::Drained => Self::Drained,
            Outcome::Fault => Self::Fault,
        }
    }
}

impl TryFrom<pb::Outcome> for Outcome {
    type Error = Malformed;

    fn try_from(o: pb::Outcome) -> Result<Self, Malformed> {
        match o {
            pb::Outcome::Done => Ok(Self::Done),
            pb::Outcome::Drained => Ok(Self::Drained),
            pb::Outcome::Fault => Ok(Self::Fault),
            pb::Outcome::Unspecified => Err(Malformed { field: "stop.outcome", problem: "is missing or unknown" }),
        }
    }
}

impl From<Order> for pb::Order {
    fn from(order: Order) -> Self {
        use pb::order::Kind;
        let kind = match order {
            Order::Welcome(w) => Kind::Welcome(pb::Welcome {
                member: w.member.0,
                run: w.run,
                spec_toml: w.spec_toml,
                spec_digest: w.spec_digest,
                dataset_digest: w.dataset_digest,
                heartbeat_ms: w.heartbeat_ms,
                leader: w.leader,
            }),
            Order::Form(f) => Kind::Form(f.into()),
            Order::Prepare(p) => {
                Kind::Prepare(pb::Prepared { from: p.from.0, generation: p.generation.0, form: p.form.map(Into::into) })
            }
            Order::Withdraw { generation } => Kind::Withdraw(pb::Withdraw { generation: generation.0 }),
            Order::Abort { generation, cause } => Kind::Abort(pb::Abort { generation: generation.0, cause }),
            Order::Yield { generation } => Kind::Yield(pb::Yield { generation: generation.0 }),
            Order::Recorded { through } => Kind::Recorded(pb::Recorded { through: through.0 }),
            Order::Checkpointed { generation, step, key } => {
                Kind::Checkpointed(pb::Checkpointed { generation: generation.0, step: step.0, key })
            }
            Order::Stop { outcome, message } => {
                Kind::Stop(pb::Stop { outcome: pb::Outcome::from(outcome).into(), message })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::Order> for Order {
    type Error = Malformed;

    fn try_from(order: pb::Order) -> Result<Self, Malformed> {
        use pb::order::Kind;
        Ok(match missing(order.kind, "order.kind")? {
            Kind::Welcome(w) => Self::Welcome(Welcome {
                member: MemberId(w.member),
                run: w.run,
                spec_toml: w.spec_toml,
                spec_digest: w.spec_digest,
                dataset_digest: w.dataset_digest,
                heartbeat_ms: w.heartbeat_ms,
                leader: w.leader,
            }),
            Kind::Form(f) => Self::Form(form(f)?),
            Kind::Abort(a) => Self::Abort { generation: Generation(a.generation), cause: a.cause },
            Kind::Prepare(p) => Self::Prepare(Prepared {
                from: Generation(p.from),
                generation: Generation(p.generation),
                form: p.form.map(form).transpose()?,
            }),
            Kind::Withdraw(w) => Self::Withdraw { generation: Generation(w.generation) },
            Kind::Yield(y) => Self::Yield { generation: Generation(y.generation) },
            Kind::Recorded(r) => Self::Recorded { through: Step(r.through) },
            Kind::Checkpointed(c) => {
                Self::Checkpointed { generation: Generation(c.generation), step: Step(c.step), key: c.key }
            }
            Kind::Stop(s) => Self::Stop { outcome: s.outcome().try_into()?, message: s.message },
        })
    }
}

impl From<Form> for pb::Form {
    fn from(f: Form) -> Self {
        Self {
            generation: f.generation.0,
            rank: f.rank.0,
            world: f.world(),
            member_runs: runs(f.members.iter().map(|m| m.0)),
            start_step: f.start_step.map(|s| s.0),
            source: f.source.map(|r| r.0),
            receiver_runs: runs(f.receivers.iter().map(|r| r.0.into())),
            resume_from: f.resume_from,
            checkpoint_only: f.checkpoint_only,
            meets_at: Some(f.meets_at.into()),
        }
    }
}

fn form(f: pb::Form) -> Result<Form, Malformed> {
    let members = numbers(&f.member_runs, "form.member_runs")?;
    let receivers = numbers(&f.receiver_runs, "form.receiver_runs")?;
    let world = members.len();
    if world == 0 || f.world as usize != world || f.rank as usize >= world {
        return Err(Malformed { field: "form.rank", problem: "does not lie within its members" });
    }
    if f.source.is_some_and(|r| r as usize >= world) || receivers.iter().any(|&r| r >= world as u64) {
        return Err(Malformed { field: "form.source", problem: "does not lie within its members" });
    }
    Ok(Form {
        generation: Generation(f.generation),
        rank: Rank(f.rank),
        members: members.into_iter().map(MemberId).collect(),
        meets_at: f.meets_at.unwrap_or_default().into(),
        start_step: f.start_step.map(Step),
        source: f.source.map(Rank),
        receivers: receivers.into_iter().map(|r| Rank(r as u32)).collect(),
        resume_from: f.resume_from,
        checkpoint_only: f.checkpoint_only,
    })
}
