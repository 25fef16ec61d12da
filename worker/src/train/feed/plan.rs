//! What is read ahead of decoding: which rows the next steps want, in which order their row groups are read, and how far
//! ahead reading goes. Pure: it reads nothing and knows no clock.
//!
//! A row group is read by one read at a time. What further steps want of it meanwhile gathers and goes together in the next
//! one, so that rows that lie side by side are fetched by one request, and none is fetched twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pixfleet_cluster::{SampleId, Step};

use super::{FeedError, RowRead};

/// One dealt place of the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dealt {
    pub(super) position: u64,
    pub(super) id: SampleId,
}

/// The rows of one step, in the order of its positions.
#[derive(Debug)]
pub(super) struct StepRows {
    pub(super) step: Step,
    pub(super) dealt: Vec<Dealt>,
    rows: Vec<Option<RowRead>>,
    missing: usize,
    bytes: usize,
}

impl StepRows {
    fn new(step: Step, dealt: Vec<Dealt>) -> Self {
        let rows = dealt.iter().map(|_| None).collect();
        Self { step, missing: dealt.len(), dealt, rows, bytes: 0 }
    }

    /// What was dealt and read.
    pub(super) fn into_rows(self) -> impl Iterator<Item = (Dealt, RowRead)> {
        let rows = self.rows.into_iter().map(|row| row.expect("a step is handed on when all its rows are there"));
        self.dealt.into_iter().zip(rows)
    }
}

/// A row of a row group, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    step: Step,
    place: usize,
    /// Row within its row group.
    pub(super) row: u32,
}

/// One read: rows of one row group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GroupRead {
    pub(super) row_group: u32,
    pub(super) seats: Vec<Seat>,
}

/// Steps that were admitted and not yet handed on to decoding.
#[derive(Debug)]
pub(super) struct Plan {
    steps: VecDeque<StepRows>,
    /// What no read was made for yet, by row group, in the order of the steps.
    wanted: BTreeMap<u32, Vec<Seat>>,
    /// Row groups that are being read.
    reading: BTreeSet<u32>,
    room: Room,
    /// The first step that cannot be read, and why.
    failed: Option<(Step, FeedError)>,
}

impl Plan {
    /// Reads up to about `bytes_max` ahead. A row is taken to have `row_bytes` until some are there.
    pub(super) fn new(bytes_max: usize, row_bytes: usize) -> Self {
        Self {
            steps: VecDeque::new(),
            wanted: BTreeMap::new(),
            reading: BTreeSet::new(),
            room: Room::new(bytes_max, row_bytes),
            failed: None,
        }
    }

    /// Whether one more step is to be admitted now.
    pub(super) fn has_room(&mut self) -> bool {
        self.failed.is_none() && self.room.admits(self.steps.len())
    }

    /// The step after the last one that was admitted.
    pub(super) fn admit(&mut self, step: Step, dealt: Vec<Dealt>) {
        for (place, dealt) in dealt.iter().enumerate() {
            let seat = Seat { step, place, row: dealt.id.row };
            self.wanted.entry(dealt.id.row_group).or_default().push(seat);
        }
        self.room.awaited += dealt.len();
        self.steps.push_back(StepRows::new(step, dealt));
    }

    /// The read that is most urgent: of the row group that the earliest step waits for, all that is wanted of it.
    pub(super) fn next_read(&mut self) -> Option<GroupRead> {
        let free = self.wanted.iter().filter(|(row_group, _)| !self.reading.contains(row_group));
        let row_group = *free.min_by_key(|(_, seats)| seats[0].step).map(|(row_group, _)| row_group)?;
        let seats = self.wanted.remove(&row_group)?;
        self.reading.insert(row_group);
        Some(GroupRead { row_group, seats })
    }

    /// The rows of `read`, each with its bytes, in the order of the seats.
    pub(super) fn arrived(&mut self, read: GroupRead, rows: Vec<(RowRead, usize)>) {
        self.reading.remove(&read.row_group);
        let first = self.steps.front().map_or(0, |rows| rows.step.0);
        for (seat, (row, bytes)) in read.seats.into_iter().zip(rows) {
            let step = &mut self.steps[(seat.step.0 - first) as usize];
            step.rows[seat.place] = Some(row);
            step.missing -= 1;
            step.bytes += bytes;
            self.room.came(bytes);
        }
    }

    /// `read` could not be done: the first step that wanted it cannot be had, nor any after it.
    pub(super) fn failed(&mut self, read: &GroupRead, error: FeedError) {
        let step = read.seats.iter().map(|seat| seat.step).min();
        if let Some(step) = step
            && self.failed.as_ref().is_none_or(|(earlier, _)| step < *earlier)
        {
            self.failed = Some((step, error));
        }
    }

    /// Whether the next step can be handed on, or is known to fail.
    pub(super) fn has_next(&self) -> bool {
        let Some(front) = self.steps.front() else { return false };
        front.missing == 0 || self.failed.as_ref().is_some_and(|(step, _)| *step == front.step)
    }

    /// The next step, if [`Plan::has_next`].
    pub(super) fn next(&mut self) -> Option<Result<StepRows, FeedError>> {
        if !self.has_next() {
            return None;
        }
        let front = self.steps.pop_front()?;
        self.room.held -= front.bytes;
        match self.failed.take_if(|(step, _)| *step == front.step) {
            Some((_, error)) => Some(Err(error)),
            None => Some(Ok(front)),
        }
    }

    /// No step is admitted and not handed on.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// All that was admitted is there.
    pub(super) fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.reading.is_empty()
    }

    /// Whether fewer than a quarter of the steps that were admitted are there.
    pub(super) fn is_low(&self) -> bool {
        let complete = self.steps.iter().take_while(|step| step.missing == 0).count();
        4 * complete < self.steps.len()
    }

    /// Bytes that were read and not yet handed on.
    pub(super) fn held_bytes(&self) -> usize {
        self.room.held
    }
}

/// How far ahead reading goes: up to a bound in bytes. At first a quarter of it, so that a feed that is soon replaced has
/// not read much in vain, and twice as much each time. It is filled up when half of it is used, not step by step: so each
/// read finds several steps' rows of its row group.
#[derive(Debug)]
struct Room {
    bytes_max: usize,
    /// As far as reading goes for now.
    bytes: usize,
    filling: bool,
    /// Rows that were read and not handed on, in bytes.
    held: usize,
    /// Rows that are still to be read.
    awaited: usize,
    /// All rows that were read, one that was guessed among them, and their bytes.
    seen: (usize, usize),
}

impl Room {
    fn new(bytes_max: usize, row_bytes: usize) -> Self {
        Self { bytes_max, bytes: bytes_max / 4, filling: true, held: 0, awaited: 0, seen: (1, row_bytes) }
    }

    /// Bytes of all admitted rows, those on their way by the average of those that came.
    fn expected(&self) -> usize {
        let (rows, bytes) = self.seen;
        self.held + (self.awaited as f64 * bytes as f64 / rows as f64) as usize
    }

    /// A row came.
    fn came(&mut self, bytes: usize) {
        self.held += bytes;
        self.awaited -= 1;
        self.seen = (self.seen.0 + 1, self.seen.1 + bytes);
    }

    /// Whether there is room for one step more than `steps`; there is always room for one.
    fn admits(&mut self, steps: usize) -> bool {
        let expected = self.expected();
        if self.filling {
            self.filling = expected < self.bytes;
        } else if expected <= self.bytes / 2 {
            self.filling = true;
            self.bytes = self.bytes.saturating_mul(2).min(self.bytes_max);
        }
        self.filling || steps == 0
    }
}

#[cfg(test)]
mod tests;
