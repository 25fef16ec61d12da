//! What the losses and the optimizer cost. In a process of its own: memory is measured as the process's peak.
//!
//! `cargo test -p pixfleet-model --test loss_cost -- --ignored --nocapture` prints times.

use std::fs;
use std::time::Instant;

use pixfleet_cluster::spec::{LossPreset, LossSpec, OptimizerSpec};
use pixfleet_model::Params;
use pixfleet_model::loss::{InfoNce, Tile};
use pixfleet_model::objective::{Alone, Leaves, Part, ThreeBranch};
use pixfleet_model::optim::AdamW;
use pixfleet_model::testing::hash_fill;
use tch::{Device, Kind, Tensor};

fn rows(name: &str, n: i64, d: i64) -> Tensor {
    let x = hash_fill(name, &[n, d], 1.0);
    let norm = (&x * &x).sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt();
    x / norm
}

fn peak_rss_mib() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() / 1024
}

/// The whole similarity matrix would be 1,024 MiB here; both halves together stay far below.
#[test]
fn memory_is_linear_in_the_batch() {
    let n = 16_384;
    let (a, b) = (rows("a", n, 8), rows("b", n, 8));
    let loss = InfoNce { scale: 10.0, smoothing: 0.0, tile: Tile::for_device(Device::Cpu) };
    let before = peak_rss_mib();
    let stats = loss.stats(&a, &b, 0..n).unwrap();
    let _ = loss.grad([&a, &b], [&stats.lse_ab, &stats.lse_ba], 0..1024).unwrap();
    let grown = peak_rss_mib() - before;
    assert!(grown < 200, "{grown} MiB");
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

#[test]
#[ignore = "prints times"]
fn times() {
    let objective = ThreeBranch::new(&LossSpec::preset(LossPreset::Default));
    for (n, d) in [(64, 256), (256, 256), (256, 1280), (4096, 256), (4096, 1280)] {
        let leaves = Part::ALL
            .into_iter()
            .fold(Leaves::new(vec![true; n as usize]), |leaves, part| leaves.with(part, &rows(part.name(), n, d)));
        timed(&format!("default objective, N {n}, D {d}"), || {
            objective.step_losses(&leaves, 2.66, &mut Alone::new(n)).unwrap();
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
