//! Many processes over one store, second by second: any of them may be killed, or stopped and woken up.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const LEASE: u64 = 8;
const BEAT: u64 = 2;
const UNITS: usize = 6;
/// Seconds that a unit takes.
const WORK: u64 = 11;

/// Keys and versions.
type Store = BTreeMap<String, u64>;

struct Worker {
    seed: u64,
    watch: Watch,
    /// Unit, turn, seconds left.
    has: Option<(usize, u32, u64)>,
    alive: bool,
    /// Does nothing until then.
    stopped_until: u64,
}

#[derive(Default)]
struct Outcome {
    /// Units taken from somebody who had not been killed or stopped.
    robbed: usize,
    /// Results published by somebody who had been overtaken.
    late: usize,
    /// How often a unit was worked on to its end.
    published: usize,
}

fn unit(i: usize) -> String {
    format!("part-{i}")
}

impl Worker {
    fn look(&mut self, now: u64, store: &Store) -> Vec<UnitState> {
        let sights = Sight::all(store.iter().map(|(key, version)| (key.as_str(), version.to_string())));
        let of = |i: usize| sights.get(&unit(i)).cloned().unwrap_or_default();
        (0..UNITS).map(|i| self.watch.judge(Duration::from_secs(now), &unit(i), &of(i))).collect()
    }

    /// One second of its life; what it took, if it did.
    fn second(&mut self, now: u64, store: &mut Store, outcome: &mut Outcome) -> Option<(usize, u32)> {
        let Some((i, turn, left)) = self.has else {
            let states = self.look(now, store);
            let &(i, turn) = to_try(&states, self.seed).first()?;
            store.insert(Mark::Turn(turn).key(&unit(i)), now);
            self.has = Some((i, turn, WORK));
            return Some((i, turn));
        };
        self.has = (left > 1).then_some((i, turn, left - 1));
        if left.is_multiple_of(BEAT) {
            store.insert(Mark::Beat(turn).key(&unit(i)), now);
        }
        if left == 1 && !store.contains_key(&Mark::Turn(turn + 1).key(&unit(i))) {
            outcome.published += 1;
            outcome.late += usize::from(store.insert(Mark::Done.key(&unit(i)), now).is_some());
        }
        None
    }
}

/// `faults`: second, worker, and for how long it stops (0: it is killed). Worker 0 is spared, so the work can end.
fn play(workers: usize, faults: &[(u64, usize, u64)]) -> (Outcome, bool) {
    let watch = || Watch::new(Duration::from_secs(LEASE));
    let mut all: Vec<Worker> = (0..workers as u64)
        .map(|seed| Worker { seed, watch: watch(), has: None, alive: true, stopped_until: 0 })
        .collect();
    let (mut store, mut outcome) = (Store::new(), Outcome::default());
    let mut ever_stopped: BTreeSet<usize> = BTreeSet::new();
    let mut holders: BTreeMap<(usize, u32), usize> = BTreeMap::new();
    let all_done = |store: &Store| (0..UNITS).all(|i| store.contains_key(&Mark::Done.key(&unit(i))));
    for now in 0..600 {
        if all_done(&store) {
            break;
        }
        for &(_, w, stop) in faults.iter().filter(|(at, w, _)| *at == now && *w % workers != 0) {
            let worker = &mut all[w % workers];
            ever_stopped.insert(w % workers);
            if stop == 0 { worker.alive = false } else { worker.stopped_until = now + stop }
        }
        for (w, worker) in all.iter_mut().enumerate().filter(|(_, w)| w.alive && now >= w.stopped_until) {
            if let Some((i, turn)) = worker.second(now, &mut store, &mut outcome) {
                let before = holders.get(&(i, turn - 1));
                outcome.robbed += before.map_or(0, |b| usize::from(!ever_stopped.contains(b)));
                holders.insert((i, turn), w);
            }
        }
    }
    (outcome, all_done(&store))
}

#[test]
fn undisturbed_each_unit_is_done_once() {
    for workers in 1..8 {
        let (outcome, done) = play(workers, &[]);
        assert!(done);
        assert_eq!((outcome.robbed, outcome.late, outcome.published), (0, 0, UNITS));
    }
}

proptest! {
    #[test]
    fn whoever_is_killed_or_stopped_the_work_ends_and_only_they_lose_theirs(
        workers in 2..7usize,
        faults in proptest::collection::vec((0..120u64, 0..7usize, 0..40u64), 0..12),
    ) {
        let (outcome, done) = play(workers, &faults);
        prop_assert!(done);
        prop_assert_eq!((outcome.robbed, outcome.late, outcome.published), (0, 0, UNITS));
    }
}
