//! What must be true of a disturbed run, claim by claim.

use super::ChaosArgs;
use super::compare::{self, WeightsDifference, Worst};
use super::plan::StrikeKind;
use super::record::Fault;
use super::setup::ChaosSetting;
use crate::pixfleet;
use anyhow::{Context, Result, ensure};
use pixfleet_checkpoint::read_ledger;
use pixfleet_cluster::ledger::History;
use pixfleet_cluster::spec::Reduce;
use rustix::process::getpid;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;

/// What two fp32 runs may differ by whose gradients were added in different orders.
const TOLERANCE: f64 = 1e-4;
/// At least so many faults in a minute.
const FAULTS_A_MINUTE: f64 = 6.0;
/// A run of so many minutes meets every kind at least twice.
const ALL_KINDS_MINUTES: f64 = 10.0;

/// Something that must be true.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Claim {
    pub(super) what: String,
    pub(super) holds: bool,
    /// What was found.
    pub(super) found: String,
}

impl Claim {
    pub(super) fn new(what: impl Into<String>, holds: bool, found: impl Into<String>) -> Self {
        Self { what: what.into(), holds, found: found.into() }
    }

    /// One that holds if nothing is found against it.
    pub(super) fn without(what: &str, against: &[String]) -> Self {
        let found = if against.is_empty() { "none".into() } else { against.join("\n") };
        Self::new(what, against.is_empty(), found)
    }

    /// One that holds unless looking failed.
    fn of<T>(what: &str, looked: &Result<T>, judge: impl Fn(&T) -> (bool, String)) -> Self {
        match looked {
            Ok(found) => {
                let (holds, words) = judge(found);
                Self::new(what, holds, words)
            }
            Err(error) => Self::new(what, false, format!("{error:#}")),
        }
    }
}

/// How the two runs compare.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) audit: Option<Value>,
    pub(super) weights: Option<WeightsDifference>,
    pub(super) losses: Option<Worst>,
    /// Generations of the disturbed run.
    pub(super) generations: usize,
    /// Leaders of the disturbed run.
    pub(super) leaders: u64,
}

/// Claims about the faults themselves.
pub(super) fn of_faults(args: &ChaosArgs, hosts: bool, faults: &[Fault]) -> Vec<Claim> {
    let minimum = (args.minutes * FAULTS_A_MINUTE) as usize;
    let mut counts: BTreeMap<StrikeKind, usize> = args.kinds(hosts).map(|kind| (kind, 0)).collect();
    for fault in faults {
        *counts.entry(fault.kind).or_default() += 1;
    }
    let each = if args.minutes >= ALL_KINDS_MINUTES { 2 } else { 0 };
    let rare: Vec<String> =
        counts.iter().filter(|&(_, &n)| n < each).map(|(k, n)| format!("{}: {n}", k.word())).collect();
    let named =
        |wanted: &dyn Fn(&Fault) -> bool| -> Vec<String> { faults.iter().filter(|f| wanted(f)).map(told).collect() };
    let alone = |f: &Fault| f.overlaps.is_empty();
    vec![
        Claim::new(format!("at least {minimum} faults"), faults.len() >= minimum, faults.len().to_string()),
        Claim::without(&format!("no kind of fault fewer than {each} times"), &rare),
        Claim::without("no fault that did not fire", &named(&|f| f.fired != Some(true))),
        Claim::without("no fault that was not healed", &named(&|f| f.healed.is_none())),
        Claim::without("no fault by itself cost more than one step", &named(&|f| alone(f) && f.redone > 1)),
        Claim::without(
            "no drain, join, short stop, coordinator or store by itself cost a step",
            &named(&|f| alone(f) && costs_nothing(f.kind) && f.redone > 0),
        ),
    ]
}

fn costs_nothing(kind: StrikeKind) -> bool {
    match kind {
        StrikeKind::StopShort
        | StrikeKind::Drain
        | StrikeKind::Join
        | StrikeKind::CoordinatorKill
        | StrikeKind::CoordinatorRival => true,
        StrikeKind::StoreBusy | StrikeKind::StoreNoAnswer | StrikeKind::StoreSlow => true,
        StrikeKind::Kill
        | StrikeKind::StopLong
        | StrikeKind::LinkDown
        | StrikeKind::LinkCut
        | StrikeKind::LinkSlow
        | StrikeKind::LinkSilent => false,
    }
}

fn told(f: &Fault) -> String {
    format!(
        "fault {}, {} of {} at step {}: {} redone, {}",
        f.number,
        f.kind.word(),
        f.target,
        f.step,
        f.redone,
        f.evidence
    )
}

/// Compares the run `storm` with the run `calm`.
pub(super) fn of_runs(setting: &ChaosSetting, runtime: &Handle) -> Result<(Comparison, Vec<Claim>)> {
    let audit = audit(setting);
    let weights = exports(setting);
    let ledgers =
        runtime.block_on(async { anyhow::Ok((ledger(setting, "calm").await?, ledger(setting, "storm").await?)) });
    let losses = ledgers
        .as_ref()
        .map_err(|e| anyhow::anyhow!("{e:#}"))
        .and_then(|(calm, storm)| compare::loss_curves(&compare::losses(calm), &compare::losses(storm)));
    let (tolerance, how) = match setting.reduce()? {
        Reduce::Exact => (0.0, "the same, bit for bit"),
        Reduce::Fast => (TOLERANCE, "within 1e-4 of the undisturbed run's"),
    };
    let near = |worst: &Worst| match worst.relative {
        0.0 => (true, "no difference".into()),
        relative => (relative <= tolerance, format!("{relative:.2e} at {}", worst.at)),
    };
    let claims = vec![
        Claim::of("the audit is clean", &audit, |(clean, said)| (*clean, summary(said))),
        Claim::of(&format!("every tensor is {how}, by norm"), &weights, |w| near(&w.norm)),
        Claim::of(&format!("every tensor is {how}, by largest value"), &weights, |w| near(&w.largest)),
        Claim::of(&format!("every step's loss is {how}"), &losses, near),
    ];
    let storm = ledgers.as_ref().ok().map(|(_, storm)| storm);
    let comparison = Comparison {
        audit: audit.ok().map(|(_, said)| said),
        weights: weights.ok(),
        losses: losses.ok(),
        generations: storm.map_or(0, |history| history.formed.len()),
        leaders: storm.map_or(0, |history| history.leader),
    };
    Ok((comparison, claims))
}

fn audit(setting: &ChaosSetting) -> Result<(bool, Value)> {
    let mut command = pixfleet(["audit", &setting.run_url("storm"), "--json"]);
    let output = command.envs(setting.envs(None)).output().context("cannot start the audit")?;
    let said = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the audit said: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.success(), said))
}

fn summary(audit: &Value) -> String {
    let sum =
        |key: &str| -> u64 { audit["epochs"].as_array().into_iter().flatten().filter_map(|e| e[key].as_u64()).sum() };
    let findings = audit["findings"].as_array().map_or(0, Vec::len);
    let first = audit["findings"][0].as_str().unwrap_or("none");
    format!(
        "{} steps, {} missing, {} doubled, {} records cut off, {findings} findings: {first}",
        audit["steps"],
        sum("missing"),
        sum("doubled"),
        audit["redone"]
    )
}

fn exports(setting: &ChaosSetting) -> Result<WeightsDifference> {
    let export = |name: &str| -> Result<PathBuf> {
        let file = setting.dir.join(format!("{name}.safetensors"));
        let mut command = pixfleet(["export", &setting.run_url(name), "--out"]);
        let output = command.arg(&file).envs(setting.envs(None)).output().context("cannot start the export")?;
        ensure!(output.status.success(), "the export of {name}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(file)
    };
    compare::weights(&export("calm")?, &export("storm")?)
}

async fn ledger(setting: &ChaosSetting, name: &str) -> Result<History> {
    let ledger = read_ledger(&setting.location(&setting.run_url(name))?).await?;
    Ok(History::replay(&ledger.records))
}

/// Processes that are still there: children of this one, and any that were told of `dir`.
pub(super) fn left_behind(dir: &Path) -> Vec<String> {
    let (own, dir) = (getpid().as_raw_nonzero().get(), dir.display().to_string());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|&pid| pid != own).filter_map(|pid| ours(pid, own, &dir)).collect()
}

fn ours(pid: i32, own: i32, dir: &str) -> Option<String> {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let text = |file: &str| String::from_utf8_lossy(&read(file)).replace('\0', " ");
    let status = text("status");
    let parent: i32 = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    let (command, environment) = (text("cmdline"), text("environ"));
    let told = command.contains(dir) || environment.contains(&format!("PIXFLEET_STEP_LOG={dir}"));
    (parent == own || told).then(|| format!("process {pid}: {command}"))
}
