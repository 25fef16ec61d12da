//! Fetching: performs the reads of the plan, ahead of decoding, and hands on the rows of one step after the other.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use pixfleet_checkpoint::Attempts;
use pixfleet_cluster::{Lane, SampleOrder, Step};
use pixfleet_shards::error::ShardError;
use pixfleet_shards::row::ImageRow;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::counts::FeedCounts;
use super::pace::{Pace, Standing};
use super::plan::{Dealt, GroupRead, Plan, StepRows};
use super::{FeedError, FeedRange, FeedSource, RowRead};

/// Files are opened so many steps before the first step that is read from them is admitted.
const OPEN_STEPS: usize = 4;

/// The rows of a read, or why there are none; and how often the store was asked again.
type Rows = Result<Vec<(RowRead, usize)>, FeedError>;

/// The fetching half of one feed.
pub(super) struct Fetcher {
    source: Arc<FeedSource>,
    range: FeedRange,
    order: SampleOrder,
    counts: Arc<FeedCounts>,
    /// Steps that are not admitted yet, and what they are dealt.
    coming: VecDeque<(Step, Vec<Dealt>)>,
    /// The step after those.
    next: u64,
    plan: Plan,
    pace: Pace,
    started: Instant,
    reads: JoinSet<(GroupRead, Rows, u32)>,
    opens: JoinSet<()>,
    /// Row groups whose files have been asked for.
    prepared: BTreeSet<u32>,
}

impl Fetcher {
    pub(super) fn new(source: Arc<FeedSource>, range: FeedRange, counts: Arc<FeedCounts>) -> Self {
        let split = source.reader.split();
        let row_bytes = split.bytes() / split.rows().max(1);
        let plan = Plan::new(range.ahead_bytes, usize::try_from(row_bytes).unwrap_or(usize::MAX));
        Self {
            order: source.order.clone(),
            next: range.steps.start,
            coming: VecDeque::new(),
            plan,
            pace: Pace::new(),
            started: Instant::now(),
            reads: JoinSet::new(),
            opens: JoinSet::new(),
            prepared: BTreeSet::new(),
            source,
            range,
            counts,
        }
    }

    /// Hands on the rows of every step, in order, until there are no more, one cannot be had, or nobody wants them.
    pub(super) async fn run(mut self, out: mpsc::Sender<Result<StepRows, FeedError>>) {
        loop {
            self.admit();
            self.adjust(&out);
            while self.reads.len() < self.pace.limit()
                && let Some(read) = self.plan.next_read()
            {
                self.reads.spawn(group_read(Arc::clone(&self.source), read));
            }
            while self.opens.try_join_next().is_some() {}
            if self.plan.is_empty() {
                return;
            }
            tokio::select! {
                permit = out.reserve(), if self.plan.has_next() => {
                    let (Ok(permit), Some(step)) = (permit, self.plan.next()) else { return };
                    let last = step.is_err();
                    permit.send(step);
                    if last {
                        return;
                    }
                }
                Some(read) = self.reads.join_next() => match read {
                    Ok((read, rows, again)) => self.arrived(read, rows, again),
                    // A read that panicked: the feed ends, and whoever waits for it is told.
                    Err(_) => return,
                },
                else => return,
            }
        }
    }

    /// Admits steps while there is room; files of the steps after them are opened.
    fn admit(&mut self) {
        while self.plan.has_room() {
            while self.coming.len() <= OPEN_STEPS && self.next < self.range.steps.end {
                let step = Step(self.next);
                self.next += 1;
                let dealt = self.deal(step);
                self.prepare(&dealt);
                self.coming.push_back((step, dealt));
            }
            let Some((step, dealt)) = self.coming.pop_front() else { return };
            self.plan.admit(step, dealt);
        }
    }

    fn deal(&mut self, step: Step) -> Vec<Dealt> {
        let range = &self.range;
        let positions = range.lanes.clone().flat_map(|lane| range.map.positions(step, Lane(lane)));
        positions.map(|position| Dealt { position, id: self.order.locate(position) }).collect()
    }

    /// A file that cannot be opened is told of by the read that needs it.
    fn prepare(&mut self, dealt: &[Dealt]) {
        for row_group in dealt.iter().map(|d| d.id.row_group) {
            if self.prepared.insert(row_group) {
                let source = Arc::clone(&self.source);
                self.opens.spawn(async move {
                    if let Err(error) = source.reader.prepare(row_group, source.config.columns()).await {
                        tracing::debug!(%error, row_group, "a file could not be opened ahead");
                    }
                });
            }
        }
    }

    fn arrived(&mut self, read: GroupRead, rows: Rows, again: u32) {
        if again > 0 {
            self.pace.trouble(self.started.elapsed());
        }
        match rows {
            Ok(rows) => self.plan.arrived(read, rows),
            Err(error) => self.plan.failed(&read, error),
        }
    }

    fn adjust(&mut self, out: &mpsc::Sender<Result<StepRows, FeedError>>) {
        let standing = match (self.plan.is_idle(), self.plan.has_next()) {
            (true, _) => Standing::Idle,
            // Decoding has taken all that was handed on.
            (false, false) if out.capacity() > 0 => Standing::Starved,
            (false, _) if self.plan.is_low() => Standing::Low,
            (false, _) => Standing::Even,
        };
        let reader = &self.source.reader;
        self.pace.see(self.started.elapsed(), standing, reader.fetched().recent_latency());
        if reader.gate().limit() != self.pace.limit() {
            reader.gate().set_limit(self.pace.limit());
        }
        self.counts.ahead(self.plan.held_bytes(), self.pace.limit());
    }
}

async fn group_read(source: Arc<FeedSource>, read: GroupRead) -> (GroupRead, Rows, u32) {
    let rows: Vec<u32> = read.seats.iter().map(|seat| seat.row).collect();
    let (rows, again) = read_rows(&source, read.row_group, &rows).await;
    (read, rows, again)
}

/// `rows` of a row group, each with its bytes. A row that cannot be read as such is an `Err` of its own; only the store and
/// the dataset as a whole fail the read. Also how often the store was asked again.
pub(super) async fn read_rows(source: &FeedSource, row_group: u32, rows: &[u32]) -> (Rows, u32) {
    let mut attempts = Attempts::lasting(source.patience);
    let mut again = 0;
    loop {
        match source.reader.read_each(row_group, rows, source.config.columns()).await {
            Ok(read) => {
                let sized = |row: Result<ImageRow, ShardError>| match row {
                    Ok(row) => {
                        let bytes = row.weight();
                        (Ok(row), bytes)
                    }
                    Err(e) => (Err(e.to_string()), 0),
                };
                return (Ok(read.into_iter().map(sized).collect()), again);
            }
            // A damaged row group is so many bad rows; a store in trouble is not.
            Err(damage) if damage.is_bad_data() => {
                return (Ok(vec![(Err(damage.to_string()), 0); rows.len()]), again);
            }
            Err(trouble) if attempts.outlasts(&trouble, trouble.class()).await => again += 1,
            Err(trouble) => return (Err(trouble.into()), again),
        }
    }
}
