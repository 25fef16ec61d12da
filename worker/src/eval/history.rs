//! What a run's ledger tells of its training: steps, samples, time, and curves for the report. Steps that a
//! re-forming cut off do not count.

use crate::report::plots::{Plot, Series, color};
use anyhow::{Context, Result};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use pixfleet_checkpoint::Folder;
use pixfleet_cluster::ledger::{History, Losses, Record, StepRecord, parse_lines};
use std::collections::BTreeSet;

/// Training as the ledger has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Training {
    /// One record per step that counts, ascending.
    pub(crate) steps: Vec<StepRecord>,
    /// Members that were lost on the way.
    pub(crate) losses: u64,
    /// The most ranks that took part at once.
    pub(crate) world: u32,
}

impl Training {
    /// Reads the ledger of the run at `url`; a run without one has no steps.
    ///
    /// # Errors
    /// If the store cannot be read, or a line is not a record.
    pub(crate) async fn read(url: &str) -> Result<Self> {
        let run = Folder::parse(url)?;
        let folder = run.path("ledger");
        let listed: Vec<_> =
            run.store().list(Some(&folder)).try_collect().await.with_context(|| format!("cannot list {url}/ledger"))?;
        let mut numbers: Vec<u64> =
            listed.iter().filter_map(|o| o.location.filename().and_then(Record::parse_segment_name)).collect();
        numbers.sort_unstable();
        let mut records = Vec::new();
        for number in numbers {
            let key = Record::segment_key(number);
            let failed = || format!("cannot read {url}/{key}");
            let bytes =
                run.store().get(&run.path(&key)).await.with_context(failed)?.bytes().await.with_context(failed)?;
            records.extend(parse_lines(std::str::from_utf8(&bytes).with_context(failed)?).with_context(failed)?);
        }
        Ok(Self::of(&History::replay(&records)))
    }

    /// The part of a replayed ledger that a report needs.
    pub(crate) fn of(history: &History) -> Self {
        let steps: Vec<StepRecord> = history.steps.values().filter_map(|s| s.first().cloned()).collect();
        let world = steps.iter().map(|s| s.world).max().unwrap_or(0);
        Self { steps, losses: history.losses, world }
    }

    /// Samples of all steps.
    pub(crate) fn samples(&self) -> u64 {
        self.steps.iter().map(|s| s.samples).sum()
    }

    /// Seconds of all steps.
    pub(crate) fn seconds(&self) -> f64 {
        self.steps.iter().map(|s| s.seconds).sum()
    }

    /// Samples per second over all steps; 0 without any.
    pub(crate) fn samples_per_s(&self) -> f64 {
        let seconds = self.seconds();
        if seconds > 0.0 { self.samples() as f64 / seconds } else { 0.0 }
    }

    /// The total loss and the loss per term over steps; `None` without steps.
    pub(crate) fn loss_plot(&self) -> Option<Plot> {
        let terms: BTreeSet<&String> = self.steps.iter().flat_map(|s| s.losses.terms.keys()).collect();
        let of_term = |name: &String| self.points(|s| s.losses.terms.get(name).copied());
        let total = (Losses::TOTAL.to_string(), self.points(|s| Some(s.losses.total)));
        let series: Vec<Series> = std::iter::once(total)
            .chain(terms.into_iter().map(|name| (name.clone(), of_term(name))))
            .enumerate()
            .map(|(i, (name, points))| Series { name, color: color(i), points: smooth(&points) })
            .filter(|s| !s.points.is_empty())
            .collect();
        (!series.is_empty()).then_some(Plot { y_label: "loss", series, from_zero: true })
    }

    /// Samples per second over steps; `None` without steps.
    pub(crate) fn speed_plot(&self) -> Option<Plot> {
        let speed = |s: &StepRecord| (s.seconds > 0.0).then(|| s.samples as f64 / s.seconds);
        let points = smooth(&self.points(speed));
        let series = vec![Series { name: "samples/s".into(), color: color(1), points }];
        (!series[0].points.is_empty()).then_some(Plot { y_label: "samples / s", series, from_zero: true })
    }

    fn points(&self, of: impl Fn(&StepRecord) -> Option<f64>) -> Vec<(f64, f64)> {
        self.steps.iter().filter_map(|s| Some((s.step.0 as f64, of(s)?))).filter(|p| p.1.is_finite()).collect()
    }
}

/// A centred moving mean over about a fiftieth of the steps, at no more than 400 points: what an eye can follow.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    const POINTS_MAX: usize = 400;
    let half = points.len() / 100;
    let stride = points.len().div_ceil(POINTS_MAX).max(1);
    (0..points.len())
        .step_by(stride)
        .map(|i| {
            let near = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
            (points[i].0, near.iter().map(|p| p.1).sum::<f64>() / near.len() as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pixfleet_cluster::ledger::StateSource;
    use pixfleet_cluster::{Generation, Step};

    fn step(n: u64, generation: u64, total: f64) -> Record {
        Record::Step(StepRecord {
            step: Step(n),
            generation: Generation(generation),
            world: 2,
            first_position: n * 8,
            samples: 8,
            losses: Losses::new([("global", total)], total),
            lr: 1e-3,
            seconds: 0.5,
            substitutions: Vec::new(),
            unreported: Vec::new(),
            evidence: None,
        })
    }

    fn formed(generation: u64, start: u64) -> Record {
        let generation = Generation(generation);
        Record::Formed { generation, start_step: Step(start), members: Vec::new(), source: StateSource::Initial }
    }

    #[test]
    fn steps_that_were_cut_off_do_not_count() {
        let records = [formed(1, 0), step(0, 1, 4.0), step(1, 1, 9.0), formed(2, 1), step(1, 2, 3.0), step(2, 2, 2.0)];
        let training = Training::of(&History::replay(&records));
        assert_eq!((training.samples(), training.seconds(), training.samples_per_s()), (24, 1.5, 16.0));
        let plot = training.loss_plot().expect("has steps");
        assert_eq!(plot.series.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["total", "global"]);
        assert_eq!(plot.series[0].points, [(0.0, 4.0), (1.0, 3.0), (2.0, 2.0)]);
    }

    #[test]
    fn every_term_that_a_step_had_is_a_line_of_its_own() {
        let mut training = Training::of(&History::replay(&[formed(1, 0), step(0, 1, 4.0), step(1, 1, 3.0)]));
        training.steps[1].losses = Losses::new([("global", 3.0), ("hard", 2.0), ("region", f64::NAN)], 5.0);
        let plot = training.loss_plot().expect("has steps");
        let lines: Vec<_> = plot.series.iter().map(|s| (s.name.as_str(), s.points.as_slice())).collect();
        let expected: [(&str, &[(f64, f64)]); 3] =
            [("total", &[(0.0, 4.0), (1.0, 5.0)]), ("global", &[(0.0, 4.0), (1.0, 3.0)]), ("hard", &[(1.0, 2.0)])];
        assert_eq!(lines, expected);
    }

    #[test]
    fn no_steps_no_plot() {
        let training = Training::default();
        assert!(training.loss_plot().is_none() && training.speed_plot().is_none());
        assert_eq!(training.samples_per_s(), 0.0);
    }

    #[test]
    fn long_curves_are_thinned_and_smoothed() {
        let noisy: Vec<(f64, f64)> = (0..2000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let smoothed = smooth(&noisy);
        assert_eq!(smoothed.len(), 400);
        assert!(smoothed[5..395].iter().all(|p| (p.1 - 0.5).abs() < 0.02));
    }
}
