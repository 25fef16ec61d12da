//! How far two runs are from each other: the tensors of two exports, the losses of two ledgers.

use anyhow::{Context, Result, bail, ensure};
use pixfleet_cluster::ledger::History;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The largest relative difference, and where.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Worst {
    pub(super) relative: f64,
    pub(super) at: String,
}

impl Worst {
    /// What is not a number is as far off as can be.
    fn take(&mut self, relative: f64, at: impl FnOnce() -> String) {
        let relative = if relative.is_nan() { f64::INFINITY } else { relative };
        if relative > self.relative {
            *self = Self { relative, at: at() };
        }
    }
}

/// Two sets of tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct WeightsDifference {
    pub(super) tensors: usize,
    /// Norm of a tensor's difference over its norm.
    pub(super) norm: Worst,
    /// A tensor's largest difference over its largest value.
    pub(super) largest: Worst,
}

/// Compares two files of `pixfleet export`.
///
/// # Errors
/// If they cannot be read, or do not hold the same tensors in fp32.
pub(super) fn weights(calm: &Path, storm: &Path) -> Result<WeightsDifference> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    weights_of(&read(calm)?, &read(storm)?)
}

fn weights_of(calm: &[u8], storm: &[u8]) -> Result<WeightsDifference> {
    let calm = SafeTensors::deserialize(calm).context("the undisturbed run's export")?;
    let storm = SafeTensors::deserialize(storm).context("the disturbed run's export")?;
    let names = |file: &SafeTensors<'_>| file.names().into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    ensure!(names(&calm) == names(&storm), "the two exports do not hold the same tensors");
    let mut found = WeightsDifference::default();
    for name in names(&calm) {
        let pair = [calm.tensor(&name)?, storm.tensor(&name)?];
        ensure!(pair[0].shape() == pair[1].shape(), "{name}: {:?} and {:?}", pair[0].shape(), pair[1].shape());
        let [a, b] = pair.map(|view| numbers(&name, &view));
        let (norm, largest) = apart(&a?, &b?);
        found.norm.take(norm, || name.clone());
        found.largest.take(largest, || name.clone());
        found.tensors += 1;
    }
    Ok(found)
}

fn numbers(name: &str, view: &TensorView<'_>) -> Result<Vec<f64>> {
    if view.dtype() != Dtype::F32 {
        bail!("{name} is {:?}, expected fp32", view.dtype());
    }
    let four = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().expect("chunks of four")));
    Ok(view.data().chunks_exact(4).map(four).collect())
}

/// By norm and by largest value, relative to the larger of both. Two zeros are equal.
fn apart(a: &[f64], b: &[f64]) -> (f64, f64) {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let largest = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(0.0, |most: f64, v| if v.is_nan() { f64::NAN } else { most.max(v.abs()) })
    };
    let difference: Vec<f64> = a.iter().zip(b).map(|(x, y)| x - y).collect();
    let by = |measure: &dyn Fn(&mut dyn Iterator<Item = f64>) -> f64| {
        let [d, x, y] = [difference.as_slice(), a, b].map(|values| measure(&mut values.iter().copied()));
        if d == 0.0 { 0.0 } else { d / x.max(y) }
    };
    (by(&norm), by(&largest))
}

/// Total losses by step, of the history that survived.
pub(super) fn losses(history: &History) -> BTreeMap<u64, f64> {
    let last = history.steps.iter().filter_map(|(step, copies)| Some((step.0, copies.last()?.losses.total)));
    last.collect()
}

/// The largest relative difference of a step's loss.
///
/// # Errors
/// If the two do not have the same steps.
pub(super) fn loss_curves(calm: &BTreeMap<u64, f64>, storm: &BTreeMap<u64, f64>) -> Result<Worst> {
    let only = |a: &BTreeMap<u64, f64>, b: &BTreeMap<u64, f64>| a.keys().find(|step| !b.contains_key(step)).copied();
    if let Some(step) = only(calm, storm) {
        bail!("the disturbed run's ledger lacks step {step}");
    }
    if let Some(step) = only(storm, calm) {
        bail!("the undisturbed run's ledger lacks step {step}");
    }
    let mut worst = Worst::default();
    for (step, x) in calm {
        let y = storm[step];
        worst.take((x - y).abs() / x.abs().max(y.abs()), || format!("step {step}: {x} and {y}"));
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(values: &[f32]) -> Vec<u8> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![values.len()], &bytes).expect("four bytes each");
        safetensors::serialize([("a", view)], None).expect("serializable")
    }

    #[test]
    fn a_difference_is_relative_to_the_tensor_and_named() {
        let found = weights_of(&file(&[3.0, 4.0]), &file(&[3.0, 4.5])).expect("the same tensors");
        assert_eq!(found.norm.at, "a");
        assert!((found.norm.relative - 0.5 / (9.0f64 + 20.25).sqrt()).abs() < 1e-12);
        assert!((found.largest.relative - 0.5 / 4.5).abs() < 1e-12);
        let same = weights_of(&file(&[0.0, 0.0]), &file(&[0.0, 0.0])).expect("the same tensors");
        assert_eq!((same.norm.relative, same.tensors), (0.0, 1));
        let broken = weights_of(&file(&[1.0, 1.0]), &file(&[1.0, f32::NAN])).expect("the same tensors");
        assert_eq!((broken.norm.relative, broken.largest.relative), (f64::INFINITY, f64::INFINITY));
        assert!(weights_of(&file(&[1.0]), &file(&[1.0, 2.0])).is_err(), "other shapes");
    }

    #[test]
    fn curves_must_have_the_same_steps() {
        let curve = |pairs: &[(u64, f64)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        let worst = loss_curves(&curve(&[(0, 1.0), (1, 2.0)]), &curve(&[(0, 1.0), (1, 1.0)])).expect("the same steps");
        assert_eq!((worst.relative, worst.at.as_str()), (0.5, "step 1: 2 and 1"));
        assert!(loss_curves(&curve(&[(0, 1.0)]), &curve(&[])).is_err());
        assert!(loss_curves(&curve(&[]), &curve(&[(0, 1.0)])).is_err());
    }
}
