//! The model whole: which parts a loss gets, which of them carry gradients, teachers, shapes refused.

use pixfleet_cluster::spec::{
    CropLoss, LocalLoss, LossPreset, LossSpec, ModelSpec, PatchMapMask, Pool, PoolOrder, Teacher, TextProjSpec,
    VisionPreset,
};
use tch::{Device, Kind, Tensor};

use crate::params::Compute;
use crate::testing::hash_fill;
use crate::towers::{Inputs, Model};
use crate::vision::VisionConfig;

fn spec() -> ModelSpec {
    let text_proj = TextProjSpec { width: 12, hidden: 20, layers: 2, frozen: false };
    ModelSpec { vision: VisionPreset::Tiny, text_proj, ..ModelSpec::default() }
}

fn small_of(spec: &ModelSpec, seed: u64) -> Model {
    let tiny = VisionConfig::of(spec);
    let config = VisionConfig { image: 16, patch: 4, width: 32, depth: 2, heads: 2, hidden: 48, embed: 24, ..tiny };
    Model::with_config(spec, &config, seed, Device::Cpu)
}

fn small() -> Model {
    small_of(&spec(), 5)
}

fn inputs(n: i64) -> Inputs {
    Inputs {
        pixels: hash_fill("pixels", &[n, 3, 16, 16], 2.0),
        mask: Some(hash_fill("mask", &[n, 1, 16, 16], 2.0)),
        crop_pixels: Some(hash_fill("crop", &[n, 3, 16, 16], 2.0)),
        crop_mask: Some(hash_fill("crop mask", &[n, 1, 16, 16], 2.0)),
        boxes: Some(hash_fill("boxes", &[n, 4], 0.2) + Tensor::from_slice(&[0.2f32, 0.2, 0.7, 0.7])),
        text: hash_fill("text", &[n, 12], 1.0),
    }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn every_preset_gets_its_parts_as_unit_vectors() {
    let model = small();
    // (preset, has crop, crop has a graph, has region)
    let expected = [
        (LossPreset::Default, true, true, true),
        (LossPreset::TwoCl, true, true, false),
        (LossPreset::Fineclip, true, true, true),
        (LossPreset::Direct, true, false, true),
        (LossPreset::Alphaclip, false, false, false),
    ];
    for (preset, crop, crop_graph, roi) in expected {
        let f = model.encode(&inputs(3), &LossSpec::preset(preset), Compute::FP32).expect("encodes");
        assert_eq!((f.crop.is_some(), f.roi.is_some(), f.teacher.is_some()), (crop, roi, false), "{preset:?}");
        assert_eq!(f.crop.as_ref().is_some_and(Tensor::requires_grad), crop_graph, "{preset:?}");
        for part in [Some(&f.image), Some(&f.text), f.crop.as_ref(), f.roi.as_ref()].into_iter().flatten() {
            assert_eq!((part.size(), part.kind()), (vec![3, 24], Kind::Float));
            let norm = part.norm_scalaropt_dim(2.0, [1i64].as_slice(), false);
            assert!((norm - 1.0).abs().max().double_value(&[]) < 1e-5);
        }
        assert!(f.image.requires_grad() && f.text.requires_grad());
    }
}

/// The parts that a crop gives come from other pixels and another mask than the image's: nothing is mixed up.
#[test]
fn crop_and_image_read_their_own_tensors() {
    let model = small();
    let loss = LossSpec::preset(LossPreset::Default);
    let base = model.encode(&inputs(2), &loss, Compute::FP32).expect("encodes");
    let mut other = inputs(2);
    other.crop_pixels = Some(hash_fill("another crop", &[2, 3, 16, 16], 2.0));
    let moved = model.encode(&other, &loss, Compute::FP32).expect("encodes");
    let of = |f: &crate::Features| f.crop.as_ref().expect("has a crop").detach();
    assert!(difference(&of(&base), &of(&moved)) > 1e-3);
    assert!(difference(&base.image, &moved.image) < 1e-6);
    other.boxes = Some(Tensor::from_slice(&[0f32, 0.0, 0.3, 0.3]).repeat([2, 1]));
    let boxed = model.encode(&other, &loss, Compute::FP32).expect("encodes");
    assert!(difference(boxed.roi.as_ref().expect("region"), base.roi.as_ref().expect("region")) > 1e-4);
}

#[test]
fn a_teacher_set_teaches_without_a_graph_and_follows_its_own_numbers() {
    for teacher in [Teacher::Ema, Teacher::Frozen] {
        let loss = LossSpec { teacher, crop: CropLoss::Off, ..LossSpec::preset(LossPreset::Default) };
        let mut model = small();
        let error = model.encode(&inputs(2), &loss, Compute::FP32).expect_err("no teacher yet");
        assert!(error.to_string().contains("start_teacher"), "{error}");
        model.start_teacher(&loss);
        let head = hash_fill("new head", &[24, 32], 1.0);
        model.params.set("visual.head.weight", &head).expect("same shape");
        let f = model.encode(&inputs(2), &loss, Compute::FP32).expect("encodes");
        // The model's own crop is read by nothing here.
        assert!(f.crop.is_none());
        let taught = f.teacher.expect("a teacher");
        assert!(!taught.requires_grad());
        let online = LossSpec { teacher: Teacher::Online, ..loss.clone() };
        let before = small().encode(&inputs(2), &online, Compute::FP32).expect("encodes").crop.expect("online");
        assert!(difference(&taught, &before) < 1e-6);
        model.start_teacher(&online);
        assert!(model.teacher.is_none());
    }
}

#[test]
fn pools_and_orders_differ_and_a_box_without_area_gives_no_nan() {
    let model = small();
    let mut seen: Vec<Tensor> = Vec::new();
    for pool in [Pool::RoiAlign, Pool::Mask] {
        for pool_order in [PoolOrder::PoolThenHead, PoolOrder::HeadThenPool] {
            let loss = LossSpec { local: LocalLoss::G2, pool, pool_order, ..LossSpec::preset(LossPreset::Default) };
            let mut batch = inputs(2);
            batch.mask = Some(hash_fill("m", &[2, 1, 16, 16], 0.5).ge(0.0).to_kind(Kind::Float) * 3.846 - 1.923);
            let roi = model.encode(&batch, &loss, Compute::FP32).expect("encodes").roi.expect("region");
            assert!(seen.iter().all(|s| difference(s, &roi) > 1e-5), "{pool:?} {pool_order:?}");
            seen.push(roi.detach());
            batch.boxes = Some(Tensor::zeros([2, 4], (Kind::Float, Device::Cpu)));
            batch.mask = Some(Tensor::full([2, 1, 16, 16], -1.923_076_923, (Kind::Float, Device::Cpu)));
            let roi = model.encode(&batch, &loss, Compute::FP32).expect("encodes").roi.expect("region");
            roi.sum(Kind::Float).backward();
            let grad = model.params.get("visual.patch_embed.proj.weight").expect("registered").grad();
            assert!(roi.isfinite().all().int64_value(&[]) == 1 && grad.isfinite().all().int64_value(&[]) == 1);
        }
    }
}

#[test]
fn a_map_without_the_mask_is_a_second_forward() {
    let mut without = spec();
    without.patch_map_mask = PatchMapMask::Without;
    without.alpha_init = pixfleet_cluster::spec::AlphaInit::Random;
    let model = small_of(&without, 5);
    let loss = LossSpec::preset(LossPreset::Default);
    let base = model.encode(&inputs(2), &loss, Compute::FP32).expect("encodes");
    let mut other = inputs(2);
    other.mask = Some(hash_fill("another mask", &[2, 1, 16, 16], 2.0));
    let moved = model.encode(&other, &loss, Compute::FP32).expect("encodes");
    assert!(difference(&base.image, &moved.image) > 1e-4);
    assert!(difference(base.roi.as_ref().expect("r"), moved.roi.as_ref().expect("r")) < 1e-6);
}

#[test]
fn what_is_frozen_gets_no_gradient() {
    let mut spec = spec();
    spec.text_proj.frozen = true;
    spec.logit_scale.trainable = false;
    let model = small_of(&spec, 5);
    let f = model.encode(&inputs(2), &LossSpec::preset(LossPreset::Default), Compute::FP32).expect("encodes");
    assert!(!f.text.requires_grad() && f.image.requires_grad());
    assert!(!model.logit_scale().requires_grad());
    assert!(model.params.trainable().all(|p| p.name().starts_with("visual.")));
}

#[test]
fn missing_and_misshapen_inputs_are_named() {
    let model = small();
    let loss = LossSpec::preset(LossPreset::Default);
    let message = |batch: &Inputs| model.encode(batch, &loss, Compute::FP32).expect_err("refused").to_string();
    let mut batch = inputs(2);
    batch.boxes = None;
    assert_eq!(
        message(&batch),
        "the loss needs `boxes`, which this batch does not hold: pool regions by mask or give their boxes"
    );
    let mut batch = inputs(2);
    batch.text = hash_fill("text", &[2, 13], 1.0);
    assert_eq!(message(&batch), "text: expected shape [2, 12], found [2, 13]");
    let mut batch = inputs(2);
    batch.crop_pixels = None;
    assert!(message(&batch).starts_with("the loss needs `crop_pixels`"));
}

#[test]
fn a_probe_keeps_every_part_and_agrees_with_encode() {
    let model = small();
    let loss = LossSpec::preset(LossPreset::Alphaclip);
    let probe = model.probe(&inputs(2), &loss).expect("probes");
    assert_eq!(probe.patch_map.size(), [2, 32, 4, 4]);
    let full = model.encode(&inputs(2), &LossSpec::preset(LossPreset::Default), Compute::FP32).expect("encodes");
    assert!(difference(&probe.features.image, &full.image) < 1e-6);
    assert!(difference(&probe.crop.expect("crop"), &full.crop.expect("crop")) < 1e-6);
    assert!(difference(&probe.roi.expect("roi"), &full.roi.expect("roi")) < 1e-6);
}

/// Saved and loaded into a model of another seed, the towers give the same features.
#[test]
fn weights_carry_the_model() {
    let (first, mut second) = (small(), small_of(&spec(), 6));
    let loss = LossSpec::preset(LossPreset::Default);
    let of = |m: &Model| m.encode(&inputs(2), &loss, Compute::FP32).expect("encodes").image.detach();
    assert!(difference(&of(&first), &of(&second)) > 1e-3);
    let bytes = first.params.save_bytes().expect("saves");
    let report = second.params.load_bytes(&bytes, "first", &crate::params::LoadOptions::default()).expect("loads");
    assert!(report.missing.is_empty() && report.unexpected.is_empty());
    assert_eq!(of(&first), of(&second));
}
