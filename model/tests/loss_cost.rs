//! What the loss costs. A process of its own with one test: memory is measured as the process's peak.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::fs;

use pixfleet_cluster::spec::terms::{Temperature, TermKind};
use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, Needs};
use pixfleet_model::objective::{Exchange, Leaves, Objective, Scales};
use pixfleet_model::testing::hash_fill;
use pixfleet_model::{BySet, Features, Items, ModelError, Slots};
use tch::{Device, Kind, Tensor};

fn rows(name: &str, n: i64, d: i64) -> Tensor {
    let x = hash_fill(name, &[n, d], 1.0);
    let norm = (&x * &x).sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt();
    x / norm
}

/// Bytes.
fn peak_rss() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
}

/// The other ranks of a large batch: whatever is gathered, their rows are made up and this rank's are the first.
struct Crowd {
    own: i64,
    total: i64,
}

impl Exchange for Crowd {
    type Error = ModelError;

    fn all_gather_rows(&mut self, own: &Tensor) -> Result<Tensor, ModelError> {
        let all = Tensor::f_rand([self.total, own.size()[1]], (own.kind(), own.device()))?;
        all.f_narrow(0, 0, self.own)?.f_copy_(own)?;
        Ok(all)
    }

    fn own_rows(&self) -> std::ops::Range<i64> {
        0..self.own
    }

    fn total_rows(&self) -> i64 {
        self.total
    }
}

/// Seconds that this thread has run.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// 64 own rows of 65,536, D = 1280, image, crop and text: the gathered features alone are 960 MiB, and one similarity matrix
/// would be 16 GiB.
#[test]
fn a_large_batch_costs_the_gathered_features_and_its_products() {
    const GIB: i64 = 1 << 30;
    let (own, total, width) = (64, 65_536, 1280);
    tch::set_num_threads(1);
    let loss = LossSpec::preset(LossPreset::Default);
    let needs = Needs::of(&loss, &DataSpec::default());
    let sets = needs.terms().iter().flat_map(|t| t.kind.sets()).fold(BySet::default(), |sets, set| {
        sets.with(set, Items { features: rows(set.name(), own, width), slots: Slots::all(own, 1) })
    });
    let leaves = Leaves::of_lanes(&[Features { rows: own, sets }]).unwrap();
    let scales = Scales::default().with(Temperature::Global, 2.66);
    let cost = |total, gathered| {
        let objective = Objective::new(&needs, &loss).with_gathered(gathered);
        let began = cpu_seconds();
        let step = objective.step_losses(&leaves, scales, &mut Crowd { own, total }).unwrap();
        assert!(step.tell().unwrap().total.is_finite());
        cpu_seconds() - began
    };
    // What libtorch allocates once and keeps is not the loss's.
    cost(total / 16, Kind::Float);
    // bf16 first: a peak does not fall.
    let before = peak_rss();
    let halved = cost(total, Kind::BFloat16);
    let in_bf16 = peak_rss() - before;
    let whole = cost(total, Kind::Float);
    let in_fp32 = peak_rss() - before;
    let (made_up, products) = (made_up(total, 3 * width), products(&needs, own, total, width));
    println!(
        "{} MiB in fp32, {} MiB in bf16; {whole:.2} s, {halved:.2} s in bf16, of which {made_up:.2} s make up rows; products \
         {products:.2} s",
        in_fp32 >> 20,
        in_bf16 >> 20
    );
    assert!(in_fp32 <= GIB, "{in_fp32} bytes");
    assert!(in_bf16 <= GIB * 5 / 8, "{in_bf16} bytes");
    assert!(whole - made_up <= 2.0 * products, "{whole} s, {made_up} s of it for rows, against {products} s");
}

/// Seconds that the crowd takes for its rows.
fn made_up(total: i64, columns: i64) -> f64 {
    let began = cpu_seconds();
    drop(Tensor::rand([total, columns], (Kind::Float, Device::Cpu)));
    cpu_seconds() - began
}

/// Seconds of the products alone, in tiles as the loss has them: of each contrast and direction the similarities twice, and
/// the gradient.
fn products(needs: &Needs, own: i64, total: i64, width: i64) -> f64 {
    let contrasts = needs.terms().iter().filter(|t| matches!(t.kind, TermKind::InfoNce(..))).count();
    let (rows, columns) = (rows("own", own, width), Tensor::rand([total, width], (Kind::Float, Device::Cpu)));
    let began = cpu_seconds();
    for _ in 0..2 * contrasts {
        for tile in columns.chunk(64, 0) {
            let z = rows.matmul(&tile.tr());
            drop(rows.matmul(&tile.tr()));
            drop(z.matmul(&tile));
        }
    }
    cpu_seconds() - began
}
