//! The result does not depend on the world size: losses and gradients of 1, 2 and 3 workers agree.

use pixfleet_tests::system::System;
use pixfleet_tests::{Log, TestRun, assert_same_losses, succeed};
use safetensors::SafeTensors;
use std::collections::BTreeMap;

/// Losses of 20 steps and the gradients of the first, with `workers`.
fn trained(system: System, workers: u32) -> (BTreeMap<u64, f64>, Vec<u8>) {
    let run = TestRun::of(&format!("equal-{system:?}-{workers}").to_lowercase(), system);
    let dump = run.dir.join("gradients.safetensors");
    let mut train = run.train(workers);
    train.env("PIXFLEET_DUMP_GRADIENTS", &dump);
    let losses = Log::parse(&succeed(train).stdout).losses();
    assert_eq!(losses.keys().copied().collect::<Vec<_>>(), (0..20).collect::<Vec<u64>>(), "every step once");
    (losses, std::fs::read(dump).expect("rank 0 wrote its gradients"))
}

fn values(view: &safetensors::tensor::TensorView<'_>) -> Vec<f64> {
    view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
}

#[test]
fn one_two_and_three_workers_agree() {
    agree(System::Pixclip);
}

#[test]
fn one_two_and_three_workers_agree_on_captions_regions_and_negatives() {
    agree(System::Fgclip);
}

fn agree(system: System) {
    let (losses, gradients) = trained(system, 1);
    let one = SafeTensors::deserialize(&gradients).expect("safetensors");
    assert!(losses[&19] < losses[&0], "20 steps must learn something: {losses:?}");
    for workers in [2, 3] {
        let (other_losses, other_gradients) = trained(system, workers);
        assert_same_losses(&losses, &other_losses, 1e-5, &format!("1 and {workers} workers"));
        let other = SafeTensors::deserialize(&other_gradients).expect("safetensors");
        assert_eq!(one.names().len(), other.names().len());
        let length = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let whole = length(&one.tensors().iter().flat_map(|(_, view)| values(view)).collect::<Vec<_>>());
        for (name, view) in one.tensors() {
            let a = values(&view);
            let b = values(&other.tensor(&name).expect("the same parameters"));
            // Biases of attention's keys shift every logit alike: their gradients are zero but for rounding.
            let norm = length(&a).max(1e-3 * whole);
            let off = length(&a.iter().zip(&b).map(|(x, y)| x - y).collect::<Vec<_>>());
            assert!(
                off <= 1e-4 * norm,
                "{name}: gradients of 1 and {workers} workers differ by {off:.2e}, norm {norm:.2e}"
            );
        }
    }
}
