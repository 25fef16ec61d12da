//! RoIAlign, forward and gradient, against `torchvision.ops.roi_align` (golden/roi_align.py).

use pixfleet_model::roi_align::{mask_pool, roi_align};
use pixfleet_model::testing::hash_fill;
use tch::{Kind, Tensor};

use crate::{difference, golden};

/// fp32 sums in another order; values are at most 1.
const TOLERANCE: f64 = 1e-5;

#[test]
fn roi_align_agrees_with_torchvision() {
    let golden = golden("roi_align.safetensors");
    for (case, shape) in [("wide", [180, 2, 5, 7]), ("b16", [60, 2, 14, 14])] {
        let map = hash_fill(&format!("{case}.map"), &shape, 1.0).set_requires_grad(true);
        let pooled = roi_align(&map, &golden[&format!("{case}.boxes")]);
        let error = difference(&pooled, &golden[&format!("{case}.pooled")]);
        println!("{case}: {error:.1e}");
        assert!(error < TOLERANCE, "{case}: {error}");
        (&pooled * hash_fill(&format!("{case}.grad"), &[shape[0], 2], 1.0)).sum(Kind::Float).backward();
        let error = difference(&map.grad(), &golden[&format!("{case}.map_grad")]);
        println!("{case}: gradient {error:.1e}");
        assert!(error < TOLERANCE, "{case} gradient: {error}");
        // The goldens hold boxes of every kind: without area, and with.
        let norms = pooled.abs().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        let empty = norms.eq(0.0).sum(Kind::Int64).int64_value(&[]);
        assert!((3..10).contains(&empty), "{case}: {empty} boxes without area");
    }
}

#[test]
fn mask_pooling_is_the_weighted_mean_of_the_cells() {
    let map = hash_fill("map", &[2, 3, 2, 2], 1.0);
    // A mask of 4 x 4 pixels over 2 x 2 cells: the first covers one cell and half of the next, the second nothing.
    let mut mask = Tensor::zeros([2, 1, 4, 4], (Kind::Float, tch::Device::Cpu));
    let _ = mask.narrow(0, 0, 1).narrow(2, 0, 2).narrow(3, 0, 3).fill_(1.0);
    let pooled = mask_pool(&map, &mask);
    for c in 0..3 {
        let expected = (map.double_value(&[0, c, 0, 0]) + 0.5 * map.double_value(&[0, c, 0, 1])) / 1.5;
        assert!((pooled.double_value(&[0, c]) - expected).abs() < 1e-6);
        assert_eq!(pooled.double_value(&[1, c]), 0.0);
    }
    let _ = mask.fill_(0.0);
}
