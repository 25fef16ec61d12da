//! EVA02-B/16, forward and backward, against timm's `eva02_base_patch16_clip_224` (golden/eva02.py).

use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, ModelSpec, Needs, TextProjSpec, VisionPreset};
use pixfleet_model::Model;
use pixfleet_model::params::{Compute, Params};
use pixfleet_model::testing::hash_fill;
use tch::{Device, Kind, Tensor};

use crate::{difference, golden, parameter_fill};

/// Components of a unit vector of 1280 numbers, fp32 against fp32 with another order of sums.
const FEATURE_TOLERANCE: f64 = 2e-6;
/// Patch map after the final norm: values of order 1.
const MAP_TOLERANCE: f64 = 1e-4;
/// Gradients, relative to the largest number compared.
const GRADIENT_TOLERANCE: f64 = 2e-4;

fn filled_b16() -> Model {
    let small_text = TextProjSpec { width: 8, hidden: 8, layers: 1, frozen: true };
    let spec = ModelSpec { vision: VisionPreset::Eva02B16, text_proj: small_text, ..ModelSpec::default() };
    let needs = Needs::of(&LossSpec::preset(LossPreset::Default), &DataSpec::default());
    let mut model = Model::build(&spec, &needs, 0, Device::Cpu);
    let names: Vec<(String, Vec<i64>)> =
        model.params.iter().map(|p| (p.name().to_owned(), p.tensor().size())).collect();
    for (name, shape) in names.iter().filter(|(name, _)| name.starts_with("visual.")) {
        model.params.set(name, &parameter_fill(name, shape)).expect("own name, own shape");
    }
    model
}

fn check_gradients(params: &Params, golden: &std::collections::HashMap<String, Tensor>) {
    let mut checked = 0;
    for (key, expected) in golden {
        let Some(name) = key.strip_prefix("grad.") else { continue };
        let grad = params.get(name).expect("a name of ours").grad().flatten(0, -1);
        let scale = expected.abs().max().double_value(&[]);
        let error = difference(&grad.narrow(0, 0, 512), expected) / scale;
        println!("{name}: gradient error {error:.1e}");
        assert!(error < GRADIENT_TOLERANCE, "{name}: {error}");
        let norm = grad.norm().double_value(&[]);
        let expected_norm = golden[&format!("norm.{name}")].double_value(&[0]);
        assert!((norm / expected_norm - 1.0).abs() < GRADIENT_TOLERANCE, "{name}: {norm} against {expected_norm}");
        checked += 1;
    }
    assert_eq!(checked, 18);
}

#[test]
fn eva02_b16_agrees_with_timm() {
    let golden = golden("eva02_b16.safetensors");
    let model = filled_b16();
    let pixels = hash_fill("input.pixels", &[2, 3, 224, 224], 2.0);
    let mask = hash_fill("input.mask", &[2, 1, 224, 224], 2.0);
    let w = model.params.weights(Compute::FP32);

    let plain = tch::no_grad(|| model.vision().forward(&w, &pixels, None, false));
    let error = difference(&plain.image, &golden["image_without_mask"]);
    println!("features without mask: {error:.1e}");
    assert!(error < FEATURE_TOLERANCE, "{error}");

    let out = model.vision().forward(&w, &pixels, Some(&mask), true);
    let error = difference(&out.image, &golden["image"]);
    println!("features: {error:.1e}");
    assert!(error < FEATURE_TOLERANCE, "{error}");
    let map = out.map.expect("asked for");
    let slice = map.slice(1, 0, 768, 32).slice(2, 0, 14, 3).slice(3, 0, 14, 3);
    let error = difference(&slice, &golden["map_slice"]);
    println!("map: {error:.1e}");
    assert!(error < MAP_TOLERANCE, "{error}");
    // The mask must matter, or the two goldens would test the same thing.
    assert!(difference(&golden["image"], &golden["image_without_mask"]) > 1e-2);

    let loss = (&out.image * hash_fill("grad.image", &[2, 1280], 1.0)).sum(Kind::Float)
        + (&map * hash_fill("grad.map", &[2, 768, 14, 14], 1e-3)).sum(Kind::Float);
    loss.backward();
    check_gradients(&model.params, &golden);
}
