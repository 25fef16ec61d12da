//! Units of work that any number of processes share through a store, with no scheduler: what the marks on the store say
//! of a unit, and whether whoever looks may have it.
//!
//! | object | written | says |
//! |---|---|---|
//! | `<unit>/<turn>` | create-only | whoever made the highest turn holds the unit |
//! | `<unit>/<turn>-beat` | again and again | its holder lives |
//! | `<unit>/<turn>-left` | once | its holder gave the unit back |
//! | `<unit>/done` | create-only | the unit needs nobody any more |
//!
//! Nobody's clock but one's own counts: a holder is gone if whoever waits has seen its marks unchanged for a lease. That
//! may be wrong (a process can be stopped and wake up), so turns only say who should work; a holder looks whether it was
//! overtaken before it publishes, and results are such that publishing twice does no harm.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_many;

use crate::rng::mix;
use crate::run::Now;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A unit's objects. Displayed as the last part of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Somebody took the unit; turns count from 1.
    Turn(u32),
    /// Whoever took this turn lived when this was last written.
    Beat(u32),
    /// Whoever took this turn gave the unit back.
    Left(u32),
    /// All is done.
    Done,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn(turn) => write!(f, "{turn:06}"),
            Self::Beat(turn) => write!(f, "{turn:06}-beat"),
            Self::Left(turn) => write!(f, "{turn:06}-left"),
            Self::Done => f.write_str("done"),
        }
    }
}

impl Mark {
    /// The key of this mark on `unit`.
    #[must_use]
    pub fn key(self, unit: &str) -> String {
        format!("{unit}/{self}")
    }

    /// The unit and the mark that a key names; `None` if it is no mark's.
    #[must_use]
    pub fn parse(key: &str) -> Option<(&str, Self)> {
        let (unit, name) = key.rsplit_once('/')?;
        let mark = match name.split_once('-') {
            None if name == "done" => Self::Done,
            None => Self::Turn(name.parse().ok()?),
            Some((turn, "beat")) => Self::Beat(turn.parse().ok()?),
            Some((turn, "left")) => Self::Left(turn.parse().ok()?),
            Some(_) => return None,
        };
        Some((unit, mark))
    }
}

/// What one look at the store finds of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    /// The highest turn; 0 if nobody ever took the unit.
    pub turn: u32,
    /// The version of that turn's beat, if its holder has written one: anything that differs whenever it was written anew.
    pub beat: Option<String>,
    /// Whether that turn's holder gave the unit back.
    pub left: bool,
    /// Whether all is done.
    pub done: bool,
}

impl Sight {
    /// Of every unit that has a mark, from a listing: keys below the job's folder and the version of each object.
    #[must_use]
    pub fn all<'k>(listing: impl IntoIterator<Item = (&'k str, String)>) -> BTreeMap<String, Self> {
        let mut marks: BTreeMap<(&str, Mark), String> = BTreeMap::new();
        for (key, version) in listing {
            if let Some(mark) = Mark::parse(key) {
                marks.insert(mark, version);
            }
        }
        let mut sights: BTreeMap<String, Self> = BTreeMap::new();
        // Turns come before beats, so the highest is known when its beat comes.
        for ((unit, mark), version) in marks {
            let sight = sights.entry(unit.to_owned()).or_default();
            match mark {
                Mark::Turn(turn) => sight.turn = turn,
                Mark::Beat(turn) if turn == sight.turn => sight.beat = Some(version),
                Mark::Left(turn) => sight.left |= turn == sight.turn,
                Mark::Done => sight.done = true,
                Mark::Beat(_) => {}
            }
        }
        sights
    }
}

/// What a unit is to whoever looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitState {
    /// Nobody has it: it was never taken, or was given back. Who takes it, takes this turn.
    Free {
        /// The turn to create.
        turn: u32,
    },
    /// Somebody has it.
    Held,
    /// Whoever had it has been silent for a lease. Who takes it, takes this turn.
    Abandoned {
        /// The turn to create.
        turn: u32,
    },
    /// It needs nobody.
    Done,
}

/// What one process has seen of the units, and when, by its own clock.
#[derive(Debug)]
pub struct Watch {
    lease: Duration,
    /// What was seen last of a unit that somebody has, and when it was first seen so.
    seen: BTreeMap<String, (Sight, Now)>,
}

impl Watch {
    /// Whose marks do not change for `lease` is taken to be gone.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self { lease, seen: BTreeMap::new() }
    }

    /// Takes in what was found of `unit` at `now`.
    pub fn judge(&mut self, now: Now, unit: &str, sight: &Sight) -> UnitState {
        let turn = sight.turn.saturating_add(1);
        if sight.done || sight.turn == 0 || sight.left {
            self.seen.remove(unit);
            return if sight.done { UnitState::Done } else { UnitState::Free { turn } };
        }
        match self.seen.get(unit) {
            Some((before, since)) if before == sight && now.saturating_sub(*since) >= self.lease => {
                UnitState::Abandoned { turn }
            }
            Some((before, _)) if before == sight => UnitState::Held,
            _ => {
                self.seen.insert(unit.to_owned(), (sight.clone(), now));
                UnitState::Held
            }
        }
    }
}

/// How far all processes together are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Units that need nobody any more.
    pub done: usize,
    /// Units that somebody has.
    pub held: usize,
    /// Units that nobody has, or whose holder has been silent for a lease.
    pub free: usize,
}

impl Tally {
    /// Of these units.
    #[must_use]
    pub fn of(states: &[UnitState]) -> Self {
        let mut tally = Self::default();
        for state in states {
            match state {
                UnitState::Free { .. } | UnitState::Abandoned { .. } => tally.free += 1,
                UnitState::Held => tally.held += 1,
                UnitState::Done => tally.done += 1,
            }
        }
        tally
    }
}

/// The units that may be taken, by their place in `states`, and the turn of each, in the order to try: what nobody has
/// before what was abandoned, from a place on that `seed` draws, so that processes with different seeds seldom meet.
#[must_use]
pub fn to_try(states: &[UnitState], seed: u64) -> Vec<(usize, u32)> {
    let start = mix(seed).checked_rem(states.len() as u64).unwrap_or(0) as usize;
    let places = (start..states.len()).chain(0..start);
    let (mut free, mut abandoned) = (Vec::new(), Vec::new());
    for place in places {
        match states[place] {
            UnitState::Free { turn } => free.push((place, turn)),
            UnitState::Abandoned { turn } => abandoned.push((place, turn)),
            UnitState::Held | UnitState::Done => {}
        }
    }
    free.append(&mut abandoned);
    free
}
