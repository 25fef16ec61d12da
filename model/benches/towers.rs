//! What the towers cost on one core, in CPU time (another program on the machine does not count).
//!
//! `cargo bench -p pixfleet-model --bench towers`, by hand, with OMP_NUM_THREADS=1.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "prints its results")]

use std::path::Path;

use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, ModelSpec, Needs, TextProjSpec, VisionPreset};
use pixfleet_model::bert::MiniLm;
use pixfleet_model::testing::hash_fill;
use pixfleet_model::vision::VisionConfig;
use pixfleet_model::{BySet, Compute, Inputs, Model, Slots, TextItems, VisionSizes};
use tch::{Device, Kind};

/// Seconds that this thread has run.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The least of `times` runs after one to warm up.
fn least(times: u32, mut run: impl FnMut()) -> f64 {
    run();
    (0..times)
        .map(|_| {
            let start = cpu_seconds();
            run();
            cpu_seconds() - start
        })
        .fold(f64::INFINITY, f64::min)
}

fn spec() -> ModelSpec {
    let text_proj = TextProjSpec { width: 384, hidden: 768, layers: 2, frozen: false };
    ModelSpec { vision: VisionPreset::Tiny, text_proj, ..ModelSpec::default() }
}

fn batch(n: i64, side: i64) -> Inputs {
    Inputs {
        pixels: hash_fill("pixels", &[n, 3, side, side], 2.0),
        mask: Some(hash_fill("mask", &[n, 1, side, side], 2.0)),
        crop_pixels: Some(hash_fill("crop", &[n, 3, side, side], 2.0)),
        crop_mask: Some(hash_fill("crop mask", &[n, 1, side, side], 2.0)),
        boxes: Some(hash_fill("boxes", &[n, 4], 0.1) + tch::Tensor::from_slice(&[0.2f32, 0.2, 0.7, 0.7])),
        slots: [Set::Crop, Set::Region, Set::RegionText]
            .into_iter()
            .fold(BySet::default(), |slots, set| slots.with(set, Slots::all(n, 1))),
        texts: BySet::default().with(Set::RegionText, TextItems::Vectors(hash_fill("text", &[n, 384], 1.0))),
    }
}

fn train_step(model: &mut Model, inputs: &Inputs, needs: &Needs, compute: Compute) {
    let features = model.encode(inputs, needs, compute).unwrap();
    let pulled =
        features.sets.iter().map(|(set, items)| &items.features * hash_fill(set.name(), &items.features.size(), 1.0));
    let sum: tch::Tensor = pulled.map(|t| t.sum(Kind::Float)).sum();
    sum.backward();
    model.params.zero_grad().unwrap();
}

fn tiny_presets() {
    tch::set_num_threads(1);
    const BATCH: i64 = 64;
    let tiny = VisionConfig::preset(VisionPreset::Tiny).unwrap();
    let sizes = [(16, 192, 7, 512), (16, 256, 4, 672), (12, 256, 4, 672)];
    for (patch, width, depth, hidden) in sizes {
        let config = VisionConfig { patch, width, depth, hidden, heads: width / 64, ..tiny.clone() };
        let needs = |preset| Needs::of(&LossSpec::preset(preset), &DataSpec::default());
        let sizes = VisionSizes::Eva(config.clone());
        let mut model = Model::with_sizes(&spec(), &needs(LossPreset::Default), &sizes, 1, Device::Cpu);
        let visual: usize =
            model.params.iter().filter(|p| p.name().starts_with("visual.")).map(|p| p.tensor().numel()).sum();
        let inputs = batch(BATCH, config.image);
        for compute in [Compute::FP32, Compute::BF16] {
            let whole = least(3, || train_step(&mut model, &inputs, &needs(LossPreset::Default), compute));
            let one = least(3, || train_step(&mut model, &inputs, &needs(LossPreset::Alphaclip), compute));
            println!(
                "patch {patch} width {width} depth {depth} ({visual} parameters) {:?}: {:.0} samples/s a core with crop and \
                 region, {:.0} images/s with the image alone",
                compute.dtype,
                BATCH as f64 / whole,
                BATCH as f64 / one
            );
        }
    }
}

fn minilm() {
    tch::set_num_threads(1);
    let encoder = MiniLm::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/minilm"), Device::Cpu).unwrap();
    let texts: Vec<String> =
        (0..128).map(|i| format!("a photo of number {i}{}", ", with a long tail of words".repeat(i % 8))).collect();
    let tokens: usize = encoder.token_counts(&texts).unwrap().iter().sum();
    for compute in [Compute::FP32, Compute::BF16] {
        let seconds = least(2, || drop(encoder.encode(&texts, compute).unwrap()));
        println!("{compute:?}: {:.0} texts/s, {:.0} tokens/s a core", 128.0 / seconds, tokens as f64 / seconds);
    }
}

fn main() {
    tiny_presets();
    minilm();
}
