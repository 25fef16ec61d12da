//! All members, and what is asked of all of them at once: how many train, who has been silent for longest, how far the
//! furthest is. Nothing of it is counted anew when somebody says something: a member changes in one place, and what it
//! counts for changes with it.
//!
//! Invariant: the tallies are those that a count over all members would give.

use super::event::Now;
use super::machine::{Duty, Member};
use super::messages::Join;
use crate::ids::{Generation, MemberId, Rank, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many members would run each step next.
type Held = BTreeMap<Step, u32>;

/// So many members are counted over after each event in debug builds, to see that the tallies are right.
const COUNTED_MAX: usize = 64;

/// What a member counts as, its state and its silence aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footing {
    duty: Duty,
    away: bool,
    leaving: bool,
    expected: bool,
}

impl Footing {
    fn of(m: &Member) -> Self {
        Self { duty: m.duty, away: m.away.is_some(), leaving: m.leaving.is_some(), expected: m.expected }
    }

    fn is_active(self) -> bool {
        matches!(self.duty, Duty::Active { .. })
    }

    fn is_waiting(self) -> bool {
        self.duty == Duty::Waiting && !self.away
    }

    fn is_candidate(self) -> bool {
        self.is_waiting() && !self.leaving
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
struct Tallies {
    /// When each counts as lost, if nothing is heard of it until then.
    due: BTreeSet<(Now, MemberId)>,
    active: BTreeSet<MemberId>,
    /// Members of each rank.
    ranks: BTreeMap<Rank, u32>,
    ready: u32,
    finished: u32,
    /// Members that hold the order of a prepared generation.
    holding: BTreeMap<Generation, u32>,
    away: BTreeSet<MemberId>,
    leaving: BTreeSet<MemberId>,
    /// Those of them that have no rank.
    standby_leavers: BTreeSet<MemberId>,
    /// Those of them that have one.
    active_leavers: u32,
    /// Those of them that have to leave something first.
    engaged_leavers: u32,
    candidates: u32,
    /// Candidates in no generation that is prepared.
    unexpected: u32,
    /// Members of the generation that is prepared that want to leave.
    expected_leavers: u32,
    /// Of all, of those that wait, and of those the next generation may count on.
    held: [Held; 3],
}

const ALL: usize = 0;
const WAITING: usize = 1;
const CANDIDATES: usize = 2;

fn enlist<T: Ord>(set: &mut BTreeSet<T>, member: T, comes: bool) {
    if comes {
        set.insert(member);
    } else {
        set.remove(&member);
    }
}

fn count(tally: &mut u32, comes: bool) {
    *tally = if comes { *tally + 1 } else { *tally - 1 };
}

fn count_key<K: Ord>(tallies: &mut BTreeMap<K, u32>, key: K, comes: bool) {
    if comes {
        *tallies.entry(key).or_default() += 1;
    } else if let Some(tally) = tallies.get_mut(&key) {
        *tally -= 1;
        if *tally == 0 {
            tallies.remove(&key);
        }
    }
}

impl Tallies {
    fn footing(&mut self, member: MemberId, footing: Footing, comes: bool) {
        let Footing { duty, away, leaving, expected } = footing;
        match duty {
            Duty::Arriving | Duty::Waiting => {}
            Duty::Holding(generation) => count_key(&mut self.holding, generation, comes),
            Duty::Active { rank, ready, finished } => {
                enlist(&mut self.active, member, comes);
                count_key(&mut self.ranks, rank, comes);
                if ready {
                    count(&mut self.ready, comes);
                }
                if finished {
                    count(&mut self.finished, comes);
                }
            }
        }
        if away {
            enlist(&mut self.away, member, comes);
        }
        if leaving {
            enlist(&mut self.leaving, member, comes);
            self.leaver(member, footing, comes);
        }
        if footing.is_candidate() {
            count(&mut self.candidates, comes);
            if !expected {
                count(&mut self.unexpected, comes);
            }
        }
    }

    fn leaver(&mut self, member: MemberId, footing: Footing, comes: bool) {
        if footing.is_active() {
            count(&mut self.active_leavers, comes);
        } else {
            enlist(&mut self.standby_leavers, member, comes);
        }
        if footing.is_active() || matches!(footing.duty, Duty::Holding(_)) {
            count(&mut self.engaged_leavers, comes);
        }
        if footing.expected {
            count(&mut self.expected_leavers, comes);
        }
    }

    fn step(&mut self, footing: Footing, step: Option<Step>, comes: bool) {
        let Some(step) = step else { return };
        count_key(&mut self.held[ALL], step, comes);
        if footing.is_waiting() {
            count_key(&mut self.held[WAITING], step, comes);
        }
        if footing.is_candidate() {
            count_key(&mut self.held[CANDIDATES], step, comes);
        }
    }

    fn whole(&mut self, member: MemberId, m: &Member, silence: Duration, comes: bool) {
        let footing = Footing::of(m);
        self.footing(member, footing, comes);
        self.step(footing, m.next_step, comes);
        enlist(&mut self.due, (m.due(silence), member), comes);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Roll {
    members: BTreeMap<MemberId, Member>,
    /// By process id and host.
    processes: BTreeMap<(u32, String), BTreeSet<MemberId>>,
    /// Silence after which a member is lost.
    silence: Duration,
    tallies: Tallies,
}

impl Roll {
    /// Nobody; whoever is silent for so long will be lost.
    pub(super) fn new(silence: Duration) -> Self {
        Self { members: BTreeMap::new(), processes: BTreeMap::new(), silence, tallies: Tallies::default() }
    }

    pub(super) fn get(&self, member: MemberId) -> Option<&Member> {
        self.members.get(&member)
    }

    pub(super) fn contains(&self, member: MemberId) -> bool {
        self.members.contains_key(&member)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All of them, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members.iter().map(|(&id, m)| (id, m))
    }

    /// Those of which it is true, by number.
    pub(super) fn those(&self, is: impl Fn(&Member) -> bool) -> Vec<MemberId> {
        self.iter().filter(|(_, m)| is(m)).map(|(id, _)| id).collect()
    }

    /// Adds a member; one of this number takes nobody's place.
    pub(super) fn insert(&mut self, member: MemberId, m: Member) {
        self.remove(member);
        self.processes.entry((m.join.pid, m.join.host.clone())).or_default().insert(member);
        self.tallies.whole(member, &m, self.silence, true);
        self.members.insert(member, m);
    }

    pub(super) fn remove(&mut self, member: MemberId) -> Option<Member> {
        let gone = self.members.remove(&member)?;
        self.tallies.whole(member, &gone, self.silence, false);
        self.forget_process(member, &gone.join);
        Some(gone)
    }

    fn forget_process(&mut self, member: MemberId, join: &Join) {
        let key = (join.pid, join.host.clone());
        if let Some(those) = self.processes.get_mut(&key) {
            those.remove(&member);
            if those.is_empty() {
                self.processes.remove(&key);
            }
        }
    }

    /// A member says anew what it is.
    pub(super) fn rejoin(&mut self, member: MemberId, join: Join) {
        let Some(m) = self.members.get_mut(&member) else { return };
        let (key, before) = ((join.pid, join.host.clone()), std::mem::replace(&mut m.join, join));
        self.forget_process(member, &before);
        self.processes.entry(key).or_default().insert(member);
    }

    /// The members that are this process.
    pub(super) fn of_process(&self, host: &str, pid: u32) -> impl Iterator<Item = MemberId> {
        self.processes.get(&(pid, host.to_owned())).into_iter().flatten().copied()
    }

    /// The one way to change a member; `None` if there is none of this number.
    pub(super) fn change<T>(&mut self, member: MemberId, how: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let m = self.members.get_mut(&member)?;
        let (footing, step, due) = (Footing::of(m), m.next_step, m.due(self.silence));
        let result = how(m);
        let (now, now_step, now_due) = (Footing::of(m), m.next_step, m.due(self.silence));
        if now_due != due {
            self.tallies.due.remove(&(due, member));
            self.tallies.due.insert((now_due, member));
        }
        if now != footing {
            self.tallies.footing(member, footing, false);
            self.tallies.footing(member, now, true);
        }
        if now != footing || now_step != step {
            self.tallies.step(footing, step, false);
            self.tallies.step(now, now_step, true);
        }
        Some(result)
    }

    /// The same to each of them.
    pub(super) fn change_all(&mut self, mut how: impl FnMut(MemberId, &mut Member)) {
        for (&id, m) in &mut self.members {
            how(id, m);
        }
        self.tallies = self.counted();
    }

    fn counted(&self) -> Tallies {
        let mut tallies = Tallies::default();
        for (id, m) in self.iter() {
            tallies.whole(id, m, self.silence, true);
        }
        tallies
    }

    /// The invariant, where it costs little to look.
    pub(super) fn is_tallied(&self) -> bool {
        self.members.len() > COUNTED_MAX || self.tallies == self.counted()
    }

    /// Those with a rank, by number.
    pub(super) fn active(&self) -> &BTreeSet<MemberId> {
        &self.tallies.active
    }

    /// How many have to leave something before the next generation can be formed.
    pub(super) fn engaged(&self) -> usize {
        self.tallies.active.len() + self.tallies.holding.values().sum::<u32>() as usize
    }

    /// Those without a session.
    pub(super) fn away(&self) -> &BTreeSet<MemberId> {
        &self.tallies.away
    }

    pub(super) fn leaving(&self) -> &BTreeSet<MemberId> {
        &self.tallies.leaving
    }

    /// Those that want to go and have no rank.
    pub(super) fn standby_leavers(&self) -> &BTreeSet<MemberId> {
        &self.tallies.standby_leavers
    }

    /// Whether somebody with a rank wants to go.
    pub(super) fn any_active_leaves(&self) -> bool {
        self.tallies.active_leavers > 0
    }

    /// Whether somebody with a rank does not want to go.
    pub(super) fn any_active_stays(&self) -> bool {
        self.tallies.active.len() > self.tallies.active_leavers as usize
    }

    /// Those that do not want to go, and take part or could.
    pub(super) fn staying(&self) -> usize {
        self.engaged() - self.tallies.engaged_leavers as usize + self.candidates()
    }

    /// Whether somebody in the generation that is prepared wants to go.
    pub(super) fn any_expected_leaves(&self) -> bool {
        self.tallies.expected_leavers > 0
    }

    /// Members that the next generation may count on.
    pub(super) fn candidates(&self) -> usize {
        self.tallies.candidates as usize
    }

    /// Whether one of them is in no generation that is prepared.
    pub(super) fn any_unexpected(&self) -> bool {
        self.tallies.unexpected > 0
    }

    pub(super) fn ready(&self) -> usize {
        self.tallies.ready as usize
    }

    pub(super) fn finished(&self) -> usize {
        self.tallies.finished as usize
    }

    /// Whether each rank is one member's, and one of `world`.
    pub(super) fn ranks_are_distinct_below(&self, world: u32) -> bool {
        let ranks = &self.tallies.ranks;
        ranks.len() == self.tallies.active.len() && ranks.last_key_value().is_none_or(|(rank, _)| rank.0 < world)
    }

    /// Whether nobody holds the order of a prepared generation but this one's.
    pub(super) fn holds_only(&self, generation: Option<Generation>) -> bool {
        self.tallies.holding.keys().all(|&held| Some(held) == generation)
    }

    /// When the first of them counts as lost.
    pub(super) fn first_due(&self) -> Option<Now> {
        self.tallies.due.first().map(|&(due, _)| due)
    }

    /// Those that count as lost by `now`, by number.
    pub(super) fn overdue(&self, now: Now) -> Vec<MemberId> {
        let mut late: Vec<_> = self.tallies.due.iter().take_while(|(due, _)| *due <= now).map(|&(_, id)| id).collect();
        late.sort_unstable();
        late
    }

    /// The furthest step that any of them would run next.
    pub(super) fn furthest(&self) -> Option<Step> {
        self.tallies.held[ALL].last_key_value().map(|(&step, _)| step)
    }

    /// The furthest up to `most` of those that wait.
    pub(super) fn furthest_waiting(&self, most: Step) -> Option<Step> {
        within(&self.tallies.held[WAITING], most)
    }

    /// The furthest up to `most` of those that the next generation may count on.
    pub(super) fn furthest_candidate(&self, most: Step) -> Option<Step> {
        within(&self.tallies.held[CANDIDATES], most)
    }

    /// The furthest up to `most` of all but one that holds `own`.
    pub(super) fn furthest_of_others(&self, own: Option<Step>, most: Step) -> Option<Step> {
        let held = self.tallies.held[ALL].range(..=most).rev();
        let others = |step: Step, n: u32| if own == Some(step) { n - 1 } else { n };
        held.map(|(&step, &n)| (step, others(step, n))).find(|&(_, n)| n > 0).map(|(step, _)| step)
    }
}

fn within(held: &Held, most: Step) -> Option<Step> {
    held.range(..=most).next_back().map(|(&step, _)| step)
}
