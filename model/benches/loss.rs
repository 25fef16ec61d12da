//! What the losses and the optimizer cost: `cargo bench -p pixfleet-model --bench loss`, by hand.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "prints its results")]

use std::time::Instant;

use pixfleet_cluster::spec::terms::Temperature;
use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, Needs, OptimizerSpec};
use pixfleet_model::objective::{Alone, Leaves, Objective, Scales};
use pixfleet_model::optim::AdamW;
use pixfleet_model::testing::hash_fill;
use pixfleet_model::{BySet, Features, Items, Params, Slots};
use tch::{Device, Kind, Tensor};

fn rows(name: &str, n: i64, d: i64) -> Tensor {
    let x = hash_fill(name, &[n, d], 1.0);
    let norm = (&x * &x).sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt();
    x / norm
}

fn timed(what: &str, mut work: impl FnMut()) {
    work();
    let start = Instant::now();
    let mut times = 0;
    while times < 3 || start.elapsed().as_secs_f64() < 0.5 {
        work();
        times += 1;
    }
    println!("{what}: {:.2} ms", start.elapsed().as_secs_f64() * 1e3 / f64::from(times));
}

fn main() {
    let loss = LossSpec::preset(LossPreset::Default);
    let needs = Needs::of(&loss, &DataSpec::default());
    let (objective, scales) = (Objective::new(&needs, &loss), Scales::default().with(Temperature::Global, 2.66));
    for (n, d) in [(64, 256), (256, 256), (256, 1280), (4096, 256), (4096, 1280)] {
        let sets = needs.terms().iter().flat_map(|t| t.kind.sets()).fold(BySet::default(), |sets, set| {
            sets.with(set, Items { features: rows(set.name(), n, d), slots: Slots::all(n, 1) })
        });
        let leaves = Leaves::of_lanes(&[Features { rows: n, sets }]).unwrap();
        timed(&format!("default objective, N {n}, D {d}"), || {
            objective.step_losses(&leaves, scales, &mut Alone::new(n)).unwrap();
        });
    }
    let mut params = Params::new(Device::Cpu);
    for i in 0..150 {
        params.push(&format!("visual.blocks.{}.{i}.weight", i / 20), &hash_fill("w", &[128, 208], 1.0), true);
    }
    let grads: Tensor = params.iter().map(|p| p.tensor().sum(Kind::Float)).sum();
    grads.backward();
    let mut adamw = AdamW::new(&OptimizerSpec::default(), &params).unwrap();
    timed("AdamW with clipping, 4.0 M parameters in 150 tensors", || {
        adamw.step(&params, 1.0).unwrap();
    });
}
