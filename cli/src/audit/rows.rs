//! `--bisect`: from the steps that were fed otherwise to the rows, by what workers logged of what they fed.

use anyhow::{Context, Result, bail};
use pixfleet_cluster::audit::{Audit, AuditPlan, DrawnWords, Finding, OddRow, bisect};
use pixfleet_cluster::evidence::LoggedLane;
use pixfleet_cluster::{Step, index::SplitIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What the logs say of one step.
pub(super) struct OddStep {
    pub(super) step: Step,
    /// Whether any log speaks of it.
    pub(super) logged: bool,
    pub(super) rows: Vec<OddRow>,
}

/// The steps whose evidence is not the plan's.
pub(super) fn odd_steps(verdict: &Audit) -> BTreeSet<u64> {
    let of = |finding: &Finding| match finding {
        Finding::FedOtherwise { step, .. } | Finding::DrawnOtherwise(step) => Some(step.0),
        Finding::Missing(_)
        | Finding::Doubled(_)
        | Finding::StepMissing(_)
        | Finding::StepBeyond { .. }
        | Finding::WrongPositions { .. }
        | Finding::WrongSubstitution { .. }
        | Finding::GenerationReused { .. }
        | Finding::PlanChanged { .. } => None,
    };
    verdict.findings.iter().filter_map(of).collect()
}

/// The rows of `steps` that were fed otherwise, by the logs `<prefix>-*.log`.
///
/// # Errors
/// No log, or one that is not such a log.
pub(super) fn odd_rows<'d>(
    prefix: &Path,
    steps: &BTreeSet<u64>,
    (plan, verdict): (&AuditPlan, &Audit),
    mut drawn: Option<&'d mut DrawnWords<'d>>,
) -> Result<Vec<OddStep>> {
    let mut lanes: BTreeMap<u64, Vec<LoggedLane>> = BTreeMap::new();
    for path in logs(prefix)? {
        read_log(&path, steps, &mut lanes)?;
    }
    let mut odd = Vec::new();
    for &step in steps {
        let told = verdict.substitutions.iter().chain(&verdict.recovered);
        let told: Vec<_> = told.filter(|s| s.position / u64::from(plan.global_batch) == step).cloned().collect();
        let of_step = lanes.get(&step).map_or(&[][..], Vec::as_slice);
        let mut again = drawn.as_mut().map(|drawn| move |epoch: u64, row: u64| (*drawn)(epoch, row));
        let again = again.as_mut().map(|again| again as &mut DrawnWords<'_>);
        let rows = bisect(plan, (Step(step), &told), of_step, again);
        odd.push(OddStep { step: Step(step), logged: !of_step.is_empty(), rows });
    }
    Ok(odd)
}

fn logs(prefix: &Path) -> Result<Vec<PathBuf>> {
    let folder = prefix.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let begins = format!("{}-", prefix.file_name().unwrap_or_default().to_string_lossy());
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&begins) && name.ends_with(".log") {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!(
            "there is no log {}-*.log: workers write them where PIXFLEET_FED_LOG is set to that prefix",
            prefix.display()
        );
    }
    found.sort();
    Ok(found)
}

fn read_log(path: &Path, steps: &BTreeSet<u64>, lanes: &mut BTreeMap<u64, Vec<LoggedLane>>) -> Result<()> {
    let failed = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(failed)?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(failed)?;
        let lane: LoggedLane = serde_json::from_str(&line)
            .with_context(|| format!("line {number} of {} is not a lane that a worker logged", path.display()))?;
        if steps.contains(&lane.step.0) {
            lanes.entry(lane.step.0).or_default().push(lane);
        }
    }
    Ok(())
}

impl OddStep {
    /// In words, a line a row.
    pub(super) fn said(&self, split: &SplitIndex) -> Vec<String> {
        let name = |id| {
            let file = split.files.iter().find(|file| file.id() == id);
            file.map_or_else(|| format!("file {id}, which is none of the split's"), |file| file.path.clone())
        };
        match (self.logged, self.rows.as_slice()) {
            (false, _) => vec![format!("step {}: no log has it", self.step)],
            (true, []) => {
                vec![format!("step {}: the logs have the rows of the plan, its evidence is of others", self.step)]
            }
            (true, rows) => rows.iter().map(|row| row.said(name)).collect(),
        }
    }
}
