//! The machine itself: its state, its one entrance, and what people may ask it. What each report does stands in
//! `reports.rs`, who is a member in `membership.rs`, when a generation is formed and given up in `forming.rs`, how a run
//! pauses and ends in `ending.rs`.

use super::commits::Commits;
use super::deal::{Deal, Roster};
use super::event::{Adopted, Now, Refusal, Resume, RunConfig, RunEffect, RunEvent};
use super::handover::{Handover, Next, Told};
use super::invariants::Invariant;
use super::messages::{Join, Outcome};
use super::pace::{Pace, Speed};
use super::roll::Roll;
use super::steps::Steps;
use crate::ids::{Generation, MemberId, Rank, Step};
use crate::spec::{Ladder, Rung};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for members.
    Gathering,
    /// A generation is decided; its record is on the way to the store, and nobody has heard of it yet.
    Claiming(Generation),
    /// A generation was ordered; its members build their group and take over state.
    Forming(Generation),
    /// All members of the generation are in place.
    Training(Generation),
    /// The generation is over; its members report out of it.
    Reforming(Generation),
    /// The run is over.
    Done(Outcome),
}

/// What a member is in the current generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Duty {
    /// None: it opens its data and builds its model.
    Arriving,
    /// None: it waits for the next one.
    Waiting,
    /// None yet: it holds the order of a prepared generation, and waits for its ranks.
    Holding(Generation),
    /// It has a rank.
    Active {
        rank: Rank,
        /// Its group stands.
        ready: bool,
        /// All its steps are done and its part is reported.
        finished: bool,
    },
}

/// Without a session: why, and until when it may stay away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Away {
    pub(super) how: String,
    pub(super) until: Now,
}

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) join: Join,
    pub(super) heard: Now,
    pub(super) away: Option<Away>,
    /// The step that the state it holds would run next.
    pub(super) next_step: Option<Step>,
    /// Digest of that state, when it last left a generation.
    pub(super) digest: Option<u64>,
    pub(super) duty: Duty,
    /// It wants to go: why.
    pub(super) leaving: Option<String>,
    /// It is in the generation that is prepared.
    pub(super) expected: bool,
}

impl Member {
    pub(super) fn new(join: Join, now: Now) -> Self {
        Self {
            join,
            heard: now,
            away: None,
            next_step: None,
            digest: None,
            duty: Duty::Arriving,
            leaving: None,
            expected: false,
        }
    }

    /// A member of which nothing but its number and `duty` is known, and which may come until then.
    fn away(member: MemberId, duty: Duty, until: Now) -> Self {
        let join = Join { name: format!("member {member}"), ..Join::default() };
        let away = Away { how: "it did not come to the new coordinator".into(), until };
        Self { away: Some(away), duty, ..Self::new(join, Now::ZERO) }
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.duty, Duty::Active { .. })
    }

    /// Whether it has to leave a generation, or one that is prepared, before it can take part in another.
    pub(super) fn is_engaged(&self) -> bool {
        matches!(self.duty, Duty::Active { .. } | Duty::Holding(_))
    }

    /// Whether its group stands.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.duty, Duty::Active { ready: true, .. })
    }

    /// Whether the next generation may count on it.
    pub(super) fn is_candidate(&self) -> bool {
        self.duty == Duty::Waiting && self.away.is_none() && self.leaving.is_none()
    }

    /// When it counts as lost, if nothing is heard of it until then.
    pub(super) fn due(&self, silence: Duration) -> Now {
        self.away.as_ref().map_or(self.heard + silence, |away| away.until)
    }

    pub(super) fn rank(&self) -> Option<Rank> {
        match self.duty {
            Duty::Active { rank, .. } => Some(rank),
            Duty::Arriving | Duty::Waiting | Duty::Holding(_) => None,
        }
    }
}

/// A member, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberView {
    /// Its number.
    pub member: MemberId,
    /// What it said of itself.
    pub join: Join,
    /// Its rank, if it takes part.
    pub rank: Option<Rank>,
    /// The step that it runs next.
    pub next_step: Option<Step>,
    /// `arriving`, `standby`, `forming`, `training`, `finished`, `leaving` or `away`.
    pub state: &'static str,
    /// How fast it is, once it has trained.
    pub speed: Option<Speed>,
}

/// A run. Only [`Run::handle`] changes it.
#[derive(Debug)]
pub struct Run {
    pub(super) config: RunConfig,
    pub(super) phase: Phase,
    /// Since when the phase waits.
    pub(super) phase_since: Option<Now>,
    pub(super) members: Roll,
    pub(super) generation: Option<Generation>,
    /// The first number that no generation has had.
    pub(super) next_number: Generation,
    /// Generations that were prepared while this one trains: its ranks may go over into one of them.
    pub(super) prepared: BTreeMap<Generation, Roster>,
    /// The one of them that is wanted.
    pub(super) next: Option<Next>,
    /// The generation before, while its ranks go over into this one.
    pub(super) handover: Option<Handover>,
    /// The newest that its ranks have been told is over.
    pub(super) aborted: Option<Generation>,
    /// Not only adopted one.
    pub(super) has_formed: bool,
    /// The generation that stands was formed under an earlier leader, and not all of it have come to this one.
    pub(super) inherited: bool,
    /// Until when those that came out of such a one, which broke, wait for the rest of it.
    pub(super) parked_until: Option<Now>,
    /// What [`Phase::Claiming`] will order.
    pub(super) deal: Option<Deal>,
    pub(super) world: u32,
    /// Ranks of it that went after all their work was done.
    pub(super) finished_gone: u32,
    pub(super) start_step: Step,
    pub(super) draining: bool,
    /// Too few members are left: checkpoint, then wait for more.
    pub(super) pausing: bool,
    /// The ranks of this generation were asked to checkpoint and finish.
    pub(super) asked: bool,
    /// Since when members wait that could train.
    pub(super) joiners_since: Option<Now>,
    pub(super) steps: Steps,
    pub(super) commits: Commits,
    pub(super) pace: Pace,
    pub(super) checkpoint: Option<Resume>,
    pub(super) fruitless: u32,
    /// Steps went with a member that left.
    pub(super) steps_gone: bool,
    pub(super) losses: u64,
    /// Why the current generation is given up; for whoever stays silent.
    pub(super) failure: String,
    pub(super) message: String,
    pub(super) effects: Vec<RunEffect>,
    violations: BTreeMap<&'static str, u64>,
}

impl Run {
    /// A run that waits for its first member, or for those of the generation that an earlier leader formed.
    #[must_use]
    pub fn new(config: RunConfig) -> Self {
        let checkpoint = config.resume.clone();
        let start_step = checkpoint.as_ref().map_or(Step(0), |c| c.step);
        let (adopted, next_number) = (config.adopted.clone(), config.first_generation);
        let mut run = Self {
            steps: Steps::new(config.recorded),
            members: Roll::new(config.ladder[Rung::HeartbeatTimeout]),
            config,
            phase: Phase::Gathering,
            phase_since: None,
            generation: None,
            next_number,
            prepared: BTreeMap::new(),
            next: None,
            handover: None,
            aborted: None,
            has_formed: false,
            inherited: false,
            parked_until: None,
            deal: None,
            world: 0,
            finished_gone: 0,
            start_step,
            draining: false,
            pausing: false,
            asked: false,
            joiners_since: None,
            commits: Commits::default(),
            pace: Pace::default(),
            checkpoint,
            fruitless: 0,
            steps_gone: false,
            losses: 0,
            failure: String::new(),
            message: String::new(),
            effects: Vec::new(),
            violations: BTreeMap::new(),
        };
        if let Some(adopted) = adopted {
            run.adopt(&adopted);
        }
        run
    }

    /// The generation may be training without us: its members are away, as after any broken session.
    fn adopt(&mut self, adopted: &Adopted) {
        self.generation = Some(adopted.generation);
        self.world = u32::try_from(adopted.members.len()).expect("no more members than lanes, a u32");
        self.start_step = adopted.start_step;
        self.inherited = true;
        self.phase = Phase::Training(adopted.generation);
        let until = self.config.ladder[Rung::AdoptWindow];
        for (rank, &member) in (0..).map(Rank).zip(&adopted.members) {
            let duty = Duty::Active { rank, ready: true, finished: false };
            self.members.insert(member, Member::away(member, duty, until));
        }
        // Its ranks may hold the order of the newest one that was prepared, or be in it already.
        self.prepared = adopted.prepared.clone();
        let Some((&generation, roster)) = adopted.prepared.last_key_value() else { return };
        let joins = roster.joiners().next().is_some();
        let told = if joins { Told::Joiners(BTreeSet::new()) } else { Told::Ranks };
        for (member, _) in roster.joiners().filter(|&(member, _)| !self.members.contains(member)).collect::<Vec<_>>() {
            self.members.insert(member, Member::away(member, Duty::Holding(generation), until));
        }
        self.expect(Next::new(generation, roster, told));
    }

    /// How long everybody waits for what.
    #[must_use]
    pub fn ladder(&self) -> &Ladder {
        &self.config.ladder
    }

    /// Where the run stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The phase in a word, for people.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Done(outcome) => outcome.word(),
            _ if self.draining => "draining",
            Phase::Gathering if self.pausing => "paused",
            Phase::Gathering => "gathering",
            Phase::Claiming(_) | Phase::Forming(_) => "forming",
            Phase::Training(_) => "training",
            Phase::Reforming(_) => "reforming",
        }
    }

    /// The newest generation, if one was formed.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Ranks of the newest generation.
    #[must_use]
    pub fn world(&self) -> u32 {
        self.world
    }

    /// The furthest step that any member would run next.
    #[must_use]
    pub fn next_step(&self) -> Step {
        self.members.furthest().unwrap_or(self.start_step)
    }

    /// The newest committed checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Resume> {
        self.checkpoint.as_ref()
    }

    /// Members lost so far.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// What the run died of, or waits for.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How often each named invariant was found broken; anything here is a defect of this program.
    #[must_use]
    pub fn violations(&self) -> &BTreeMap<&'static str, u64> {
        &self.violations
    }

    /// What the member of this number said of itself, if it is one of this run's. Of one that was [`Adopted`] only the
    /// number is known.
    #[must_use]
    pub fn join_of(&self, member: MemberId) -> Option<&Join> {
        self.members.get(member).map(|m| &m.join)
    }

    /// The members that are the process `pid` of `host`, by number.
    pub fn of_process(&self, host: &str, pid: u32) -> impl Iterator<Item = MemberId> {
        self.members.of_process(host, pid)
    }

    /// The members, by number.
    pub fn members(&self) -> impl Iterator<Item = MemberView> {
        self.members.iter().map(|(member, m)| {
            let state = match m.duty {
                _ if m.away.is_some() => "away",
                _ if m.leaving.is_some() => "leaving",
                Duty::Arriving => "arriving",
                Duty::Waiting | Duty::Holding(_) => "standby",
                Duty::Active { finished: true, .. } => "finished",
                Duty::Active { ready: true, .. } => "training",
                Duty::Active { .. } => "forming",
            };
            let speed = self.pace.speed(member);
            MemberView { member, join: m.join.clone(), rank: m.rank(), next_step: m.next_step, state, speed }
        })
    }

    /// When [`RunEvent::Tick`] must come at the latest, if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        if matches!(self.phase, Phase::Done(_)) {
            return None;
        }
        let members = self.members.first_due();
        let after = |d| self.phase_since.map(|since| since + d);
        let phase = match self.phase {
            // One that waits for members or for the store does not wait for time.
            Phase::Gathering if self.members.candidates() >= self.enough() && !self.waits_for_checkpoint() => {
                self.gathers_until()
            }
            // One that waits for the store has nobody left to wait for.
            Phase::Reforming(_) if self.members.engaged() > 0 => after(self.reform_grace()),
            Phase::Forming(_) => after(self.config.ladder[Rung::FormingTimeout]),
            Phase::Training(_) => self.stalls_at().into_iter().chain(self.joiners_due()).min(),
            Phase::Gathering | Phase::Claiming(_) | Phase::Reforming(_) | Phase::Done(_) => None,
        };
        [members, phase].into_iter().flatten().min()
    }

    /// Takes in what happened at `now` and says what must be done.
    pub fn handle(&mut self, now: Now, event: RunEvent) -> Vec<RunEffect> {
        debug_assert!(self.effects.is_empty(), "effects of the last event were handed out");
        if matches!(self.phase, Phase::Done(_)) && !matches!(event, RunEvent::Joined { .. }) {
            // Its last record is written: nothing may follow.
            return Vec::new();
        }
        match event {
            RunEvent::Joined { member, join } => self.join(now, member, join),
            RunEvent::Reported { member, report } => self.report(now, member, report),
            RunEvent::Lost { member, cause } => self.lose(now, member, cause),
            RunEvent::Disconnected { member, how } => self.disconnected(now, member, how),
            RunEvent::Claimed { generation } => self.claimed(now, generation),
            RunEvent::Recorded { through } => self.recorded(through),
            RunEvent::WillNotJoin => {
                self.config.expect = self.config.expect.saturating_sub(1).max(self.config.min_workers);
            }
            RunEvent::Drain => self.drain(now),
            RunEvent::Stop { message } => self.finish(Outcome::Fault, message),
            RunEvent::ManifestStored { generation, step, key } => self.stored(now, generation, step, key),
            RunEvent::ManifestFailed { generation, step, message } => self.store_failed(now, generation, step, message),
            RunEvent::Tick => {}
        }
        self.overdue(now);
        self.let_standby_go();
        self.all_out(now);
        self.gathered(now);
        self.wishes(now);
        self.check();
        std::mem::take(&mut self.effects)
    }

    pub(super) fn emit(&mut self, effect: RunEffect) {
        self.effects.push(effect);
    }

    pub(super) fn refuse(&mut self, member: MemberId, refusal: Refusal) {
        self.emit(RunEffect::Refuse { member, refusal });
    }

    pub(super) fn active(&self) -> Vec<MemberId> {
        self.members.active().iter().copied().collect()
    }

    /// Those that have to leave something before the next generation can be formed.
    pub(super) fn engaged(&self) -> Vec<MemberId> {
        self.members.those(Member::is_engaged)
    }

    fn check(&mut self) {
        debug_assert!(self.members.is_tallied(), "tallies are wrong: {self:#?}");
        if let Some(broken) = Invariant::ALL.iter().find(|i| !i.holds(self)) {
            *self.violations.entry(broken.name()).or_default() += 1;
            debug_assert!(false, "{}: {self:#?}", broken.name());
        }
    }
}
