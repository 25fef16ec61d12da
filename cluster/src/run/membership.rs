//! Who is a member: the one place where members come, and the one where they go.

use super::event::{LossCause, Notice, Now, Refusal, RunEffect};
use super::machine::{Away, Duty, Member, Phase, Run};
use super::messages::{Join, Order, Outcome};
use crate::ids::{MemberId, Step};
use crate::ledger::Record;
use crate::spec::Rung;

impl Run {
    pub(super) fn join(&mut self, now: Now, member: MemberId, join: Join) {
        if let Phase::Done(outcome) = self.phase {
            return self.refuse(member, Refusal::Over { outcome });
        }
        if self.members.contains(member) {
            // Its session broke; it goes on where it was, as it is about to say.
            self.members.rejoin(member, join);
            self.members.change(member, |m| {
                m.heard = now;
                m.away = None;
            });
            self.inherited &= !self.members.away().is_empty();
            return self.emit(RunEffect::Welcome { member });
        }
        let members = self.members.len() as u64;
        if members >= u64::from(self.config.members_max) {
            return self.refuse(member, Refusal::Full { members });
        }
        self.members.insert(member, Member::new(join, now));
        self.emit(RunEffect::Welcome { member });
        self.emit(RunEffect::Announce(Notice::State));
        if self.phase == Phase::Gathering && self.phase_since.is_none() {
            self.phase_since = Some(now);
        }
    }

    /// A session broke. Who trains may come back and nothing has happened; in any other duty it costs nothing to
    /// begin anew. Who had been silent before has used up some of its time.
    pub(super) fn disconnected(&mut self, now: Now, member: MemberId, how: String) {
        let training = matches!(self.phase, Phase::Training(_));
        if !training || !self.members.active().contains(&member) {
            return self.lose(now, member, LossCause::StreamClosed { how });
        }
        let (grace, silence) = (self.config.ladder[Rung::ReconnectGrace], self.config.ladder[Rung::HeartbeatTimeout]);
        self.members.change(member, |m| {
            let until = (now + grace).min(m.heard + silence);
            m.away.get_or_insert(Away { how, until });
        });
    }

    /// Those without a session cannot be told that their generation is over.
    pub(super) fn lose_the_away(&mut self, now: Now) {
        for member in self.members.away().iter().copied().collect::<Vec<_>>() {
            let away = self.members.get(member).and_then(|m| m.away.as_ref());
            if let Some(how) = away.map(|away| away.how.clone()) {
                self.lose(now, member, LossCause::StreamClosed { how });
            }
        }
    }

    /// A member is lost, however that was noticed.
    pub(super) fn lose(&mut self, now: Now, member: MemberId, cause: LossCause) {
        let Some(gone) = self.remove(member) else { return };
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        self.losses += 1;
        let (rank, name, pid) = (gone.rank(), gone.join.name.clone(), gone.join.pid);
        let generation = self.generation.unwrap_or_default();
        self.emit(RunEffect::Ledger(Record::Lost { generation, member, cause: cause.to_string() }));
        let text = format!("{name} was lost: {cause}");
        self.emit(RunEffect::Announce(Notice::Loss { member, name, pid, generation, rank, cause }));
        let last = self.members.active().is_empty();
        match gone.duty {
            // Its work is done and its part is reported; what matters is whether the others' is.
            Duty::Active { finished: true, .. } if !last => {
                self.finished_gone += 1;
                self.all_finished(now);
            }
            Duty::Active { .. } => self.give_up(now, text),
            Duty::Arriving | Duty::Waiting | Duty::Holding(_) => {}
        }
        if self.phase == Phase::Gathering && self.members.is_empty() {
            self.phase_since = None;
        }
    }

    /// A member that wanted to go does so; it costs nobody a step.
    pub(super) fn depart(&mut self, member: MemberId) {
        let order = Order::Stop { outcome: Outcome::Drained, message: String::new() };
        self.emit(RunEffect::Send { member, order });
        self.steps_gone |= self.takes_steps(member);
        let Some(gone) = self.remove(member) else { return };
        if self.phase == Phase::Gathering && self.members.is_empty() {
            self.phase_since = None;
        }
        let (name, reason) = (gone.join.name, gone.leaving.unwrap_or_default());
        let generation = self.generation.unwrap_or_default();
        self.emit(RunEffect::Ledger(Record::Left { generation, member, reason: reason.clone() }));
        self.emit(RunEffect::Announce(Notice::Left { member, name, reason }));
    }

    /// Whether `member` holds a step that nobody else is known to hold, and no checkpoint has.
    fn takes_steps(&self, member: MemberId) -> bool {
        let told = self.steps.first_untold();
        let holds = self.members.get(member).and_then(|m| m.next_step);
        let (own, others) = (holds.filter(|&step| step <= told), self.members.furthest_of_others(holds, told));
        let saved = self.checkpoint.as_ref().map(|c| c.step).max(self.commits.storing());
        own > others.max(saved).max(Some(Step(0)))
    }

    /// Members without a rank that want to go, while the others train: at once, unless a step would go with them; then
    /// they stay until somebody else is known to hold it, or the generation is over.
    pub(super) fn let_standby_go(&mut self) {
        if !matches!(self.phase, Phase::Claiming(_) | Phase::Forming(_) | Phase::Training(_)) {
            return;
        }
        for leaver in self.members.standby_leavers().iter().copied().collect::<Vec<_>>() {
            if !self.is_handing_over(leaver) && !self.takes_steps(leaver) {
                self.depart(leaver);
            }
        }
    }

    /// The one place where a member goes.
    fn remove(&mut self, member: MemberId) -> Option<Member> {
        let gone = self.members.remove(member)?;
        self.pace.forget(member);
        self.emit(RunEffect::Close { member });
        if gone.expected {
            self.call_off();
        }
        self.is_out(member);
        Some(gone)
    }

    /// What time alone brings about.
    pub(super) fn overdue(&mut self, now: Now) {
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        let timeout = self.config.ladder[Rung::HeartbeatTimeout];
        let cause = |member| Some((member, overdue(self.members.get(member)?, now, timeout)?));
        let late: Vec<_> = self.members.overdue(now).into_iter().filter_map(cause).collect();
        // They had their time to come.
        self.inherited &= late.is_empty();
        for (member, cause) in late {
            self.lose(now, member, cause);
        }
        let waited = self.phase_since.map(|since| now.saturating_sub(since));
        match (self.phase, waited) {
            (Phase::Reforming(_), Some(waited)) if waited >= self.reform_grace() => {
                for member in self.engaged() {
                    let failure = self.failure.clone();
                    self.lose(now, member, LossCause::SilentAfterFailure { failure });
                }
            }
            (Phase::Forming(_), Some(waited)) if waited >= self.config.ladder[Rung::FormingTimeout] => {
                self.give_up(now, format!("its group did not form within {} ms", waited.as_millis()));
            }
            (Phase::Training(_), _) if self.stalls_at().is_some_and(|at| now >= at) => {
                let next = self.next_step();
                self.give_up(now, format!("it hangs: step {next} was not done within {STALLED}"));
            }
            (Phase::Gathering | Phase::Claiming(_) | Phase::Done(_), _)
            | (Phase::Forming(_) | Phase::Training(_) | Phase::Reforming(_), _) => {}
        }
    }
}

const STALLED: &str = "five times the usual step and train.stall_ms";

fn overdue(m: &Member, now: std::time::Duration, timeout: std::time::Duration) -> Option<LossCause> {
    if let Some(away) = &m.away {
        return (now >= away.until).then(|| LossCause::StreamClosed { how: away.how.clone() });
    }
    let silent = now.saturating_sub(m.heard);
    (silent >= timeout).then_some(LossCause::HeartbeatMissed { silent })
}
