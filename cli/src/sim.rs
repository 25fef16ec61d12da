//! `pixfleet sim`: the machines of coordinators and workers in a simulated fleet, schedule after schedule.

use crate::progress::{bar, set};
use anyhow::{Context, Result, anyhow, ensure};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use pixfleet_cluster::sim::{FaultKind, Fired, NOT_INJECTED, Verdict, Violation, schedule, shrink, simulate};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often the bar moves.
const REFRESH: Duration = Duration::from_millis(100);

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Each seed is one run: its workers, its faults and all times are a function of it. If a promise is broken, the list of
faults is made as short as it can be, and printed with what happened.

Examples:
  pixfleet sim --seeds 0..10000
  pixfleet sim --seeds 0..1000 --faults coordinator-crash,store-flaky
  pixfleet sim --seed 4711 --trace")]
pub(crate) struct Args {
    /// Seeds, the last one not included: FROM..TO.
    #[arg(long, value_parser = parse_seeds, default_value = "0..1000", conflicts_with = "seed")]
    seeds: Range<u64>,
    /// This seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Kinds of faults, by comma; all of them unless told, `none` for none.
    #[arg(long, value_name = "LIST")]
    faults: Option<String>,
    /// Print everything that happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads; as many as there are processors unless told.
    #[arg(long)]
    threads: Option<u64>,
}

fn parse_seeds(typed: &str) -> Result<Range<u64>> {
    let (from, to) = typed.split_once("..").ok_or_else(|| anyhow!("expected FROM..TO, such as 0..1000"))?;
    let (from, to) = (from.parse().context("FROM is no number")?, to.parse().context("TO is no number")?);
    ensure!(from < to, "{from}..{to} is empty");
    Ok(from..to)
}

fn parse_kinds(typed: Option<&str>) -> Result<Vec<FaultKind>> {
    let known = || FaultKind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let parse =
        |name| FaultKind::parse(name).ok_or_else(|| anyhow!("there is no fault `{name}`; known are {}", known()));
    match typed {
        None => Ok(FaultKind::ALL.to_vec()),
        Some("none") => Ok(Vec::new()),
        Some(list) => list.split(',').map(str::trim).map(parse).collect(),
    }
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let kinds = parse_kinds(args.faults.as_deref())?;
    // A panic within a schedule is a finding like any other, and is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let (text, clean) = match args.seed {
        Some(seed) => one(seed, &kinds, args.trace),
        None => {
            let processors = || thread::available_parallelism().map_or(1, |n| n.get() as u64);
            many(args.seeds, &kinds, args.threads.unwrap_or_else(processors).max(1))
        }
    };
    drop(std::panic::take_hook());
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One seed, and everything about it.
fn one(seed: u64, kinds: &[FaultKind], trace: bool) -> (String, bool) {
    let faults = schedule(seed, kinds);
    let verdict = simulate(seed, &faults, trace);
    let mut text = verdict.trace.join("\n");
    let _ = write!(text, "\nseed {seed}, faults:");
    for fault in &faults {
        let _ = write!(text, "\n  {fault}");
    }
    let _ = write!(text, "\n{:.1} s of the run, fingerprint {:016x}", verdict.seconds, verdict.fingerprint);
    let _ = match &verdict.violation {
        Some(violation) => write!(text, "\n{}", told(seed, kinds, violation)),
        None => write!(text, "\nall promises were kept"),
    };
    (text.trim_start().to_owned(), verdict.violation.is_none())
}

/// A violation, with the shortest list of faults that brings it about and the end of what happens then.
fn told(seed: u64, kinds: &[FaultKind], violation: &Violation) -> String {
    const LINES: usize = 60;
    let shrunk = shrink(seed, &schedule(seed, kinds), violation);
    let trace = simulate(seed, &shrunk.faults, true).trace;
    let tail = &trace[trace.len().saturating_sub(LINES)..];
    let faults: String = shrunk.faults.iter().map(|fault| format!("\n  {fault}")).collect();
    let rest = trace.len() - tail.len();
    format!(
        "seed {seed}: {}\nbrought about by these faults alone:{faults}\nafter {rest} lines:\n{}",
        shrunk.violation,
        tail.join("\n")
    )
}

/// What came of many.
#[derive(Default)]
struct SimTally {
    fired: Fired,
    paths: BTreeSet<u64>,
    seconds: f64,
    /// The violation of the lowest seed.
    first: Option<(u64, Violation)>,
    broken: u64,
}

impl SimTally {
    fn add(&mut self, seed: u64, verdict: Verdict) {
        self.fired.add(&verdict.fired);
        self.paths.insert(verdict.path);
        self.seconds += verdict.seconds;
        if let Some(violation) = verdict.violation {
            self.broken += 1;
            self.first.get_or_insert((seed, violation));
        }
    }

    fn merge(&mut self, other: Self) {
        self.fired.add(&other.fired);
        self.paths.extend(other.paths);
        self.seconds += other.seconds;
        self.broken += other.broken;
        let first = self.first.take().into_iter().chain(other.first);
        self.first = first.min_by_key(|(seed, _)| *seed);
    }
}

fn many(seeds: Range<u64>, kinds: &[FaultKind], threads: u64) -> (String, bool) {
    let start = Instant::now();
    let done = AtomicU64::new(0);
    let next = AtomicU64::new(seeds.start);
    let total = seeds.end - seeds.start;
    let tally = thread::scope(|scope| {
        let work = || {
            let mut tally = SimTally::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return tally;
                }
                tally.add(seed, simulate(seed, &schedule(seed, kinds), false));
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let bar = bar("sim", "schedules");
        while workers.iter().any(|worker| !worker.is_finished()) {
            set(&bar, done.load(Ordering::Relaxed), total);
            thread::sleep(REFRESH);
        }
        bar.finish_and_clear();
        workers.into_iter().fold(SimTally::default(), |mut all, worker| {
            all.merge(worker.join().expect("a schedule's panic is caught within it"));
            all
        })
    });
    let text = as_table(&tally, total, start.elapsed());
    match &tally.first {
        Some((seed, violation)) => (format!("{text}\n{}", told(*seed, kinds, violation)), false),
        None => (text, true),
    }
}

fn as_table(tally: &SimTally, total: u64, took: Duration) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(["fault", "fired", "what it does"]);
    for kind in FaultKind::ALL {
        let fired = tally.fired.faults.get(kind).copied().unwrap_or_default();
        table.add_row([kind.name().to_owned(), fired.to_string(), kind.describe().to_owned()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut not = Table::new();
    not.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    not.set_header(["not injected", "why"]);
    for (what, why) in NOT_INJECTED {
        not.add_row([*what, *why]);
    }
    let Fired { stale, zombies, redone, lost, leaders, losses, generations, steps, .. } = tally.fired;
    format!(
        "{table}\n{not}\n\
        {leaders} leaders, {generations} generations, {losses} members lost, {steps} steps in the ledgers, {redone} done \
        again beside a survivor, {lost} done again because everybody who had done them was gone\n\
        {stale} messages of an earlier generation turned away, {zombies} steps committed by ranks that did not count any \
        more\n\
        {total} schedules in {:.1} s ({:.0} a second), {:.0} hours of runs, {} distinct ways through the run's phases\n\
        {} broke a promise",
        took.as_secs_f64(),
        total as f64 / took.as_secs_f64(),
        tally.seconds / 3600.0,
        tally.paths.len(),
        tally.broken
    )
}
