//! AdamW against torch.optim.AdamW, who learns how, clipping, and the state of a checkpoint.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use pixfleet_cluster::spec::{
    DataSpec, LogitScaleSpec, LossPreset, LossSpec, ModelSpec, Needs, OptimizerSpec, TextProjSpec, VisionPreset,
};
use tch::{Device, Kind, Tensor, no_grad};

use super::*;
use crate::testing::hash_fill;
use crate::{Model, Params};

fn wave(k: f64, count: i64, scale: f64) -> Tensor {
    Tensor::from_slice(&(0..count).map(|i| ((k + 0.7 * i as f64).sin() * scale) as f32).collect::<Vec<_>>())
}

/// Puts `grad` into a parameter's `.grad`: the backward of a dot product.
fn give(params: &Params, name: &str, grad: &Tensor) {
    let param = params.get(name).unwrap();
    (param * grad.view_as(param)).sum(Kind::Float).backward();
}

/// Tolerance: 2e-6 absolute on values of about 1 after ten steps (a few fp32 roundings), norms 1e-6 relative.
#[test]
fn a_trajectory_is_that_of_torch_optim_adamw() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/adamw.json");
    let golden: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut params = Params::new(Device::Cpu);
    params.push("visual.head.weight", &wave(100.0, 12, 1.0).reshape([3, 4]), true);
    params.push("visual.head.bias", &wave(200.0, 3, 1.0), true);
    let spec = OptimizerSpec { lr: 1e-2, ..OptimizerSpec::default() };
    let mut adamw = AdamW::new(&spec, &params).unwrap();
    let steps = golden["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 10);
    for (k, step) in (1..).zip(steps) {
        let scale = if k % 3 == 0 { 10.0 } else { 0.1 };
        params.zero_grad().unwrap();
        give(&params, "visual.head.weight", &wave(f64::from(k), 12, scale));
        give(&params, "visual.head.bias", &wave(-f64::from(k), 3, scale));
        let report = adamw.step(&params, 1.0 / f64::from(k)).unwrap();
        let norm = step["norm"].as_f64().unwrap();
        assert!((report.grad_norm - norm).abs() < 1e-6 * norm, "{k}: {} {norm}", report.grad_norm);
        assert_eq!(report.clip < 1.0, k % 3 == 0);
        for (name, key) in [("visual.head.weight", "weight"), ("visual.head.bias", "bias")] {
            let want: Vec<f64> = step[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let got = Vec::<f64>::try_from(params.get(name).unwrap().detach().flatten(0, -1).to_kind(Kind::Double));
            for (got, want) in got.unwrap().into_iter().zip(want) {
                assert!((got - want).abs() < 2e-6, "step {k} {name}: {got} {want}");
            }
        }
    }
    assert_eq!(adamw.steps(), 10);
}

/// The roles of a whole model, registered where the towers are built.
#[test]
fn a_model_registers_who_learns_how() {
    let text_proj = TextProjSpec { width: 12, hidden: 20, layers: 1, frozen: false };
    let model = ModelSpec { vision: VisionPreset::Tiny, text_proj, ..ModelSpec::default() };
    let model =
        Model::build(&model, &Needs::of(&LossSpec::preset(LossPreset::Default), &DataSpec::default()), 0, Device::Cpu);
    let spec = OptimizerSpec { lr: 1.0, alpha_lr: 10.0, text_lr: 3.0, layer_decay: 0.5, ..OptimizerSpec::default() };
    let rule = |name: &str| {
        let param = model.params.iter().find(|p| p.name() == name);
        Rule::of(param.unwrap_or_else(|| panic!("{name} is registered")).role(), &spec)
    };
    for (name, lr, decays) in [
        ("visual.head.weight", 1.0, true),
        ("visual.norm.weight", 1.0, false),
        ("visual.blocks.3.attn.q_proj.weight", 0.5, true),
        ("visual.blocks.0.mlp.w1.weight", 0.5f64.powi(4), true),
        ("visual.blocks.0.norm1.weight", 0.5f64.powi(4), false),
        ("visual.patch_embed.proj.weight", 0.5f64.powi(5), true),
        ("visual.cls_token", 0.5f64.powi(5), false),
        ("visual.pos_embed", 0.5f64.powi(5), false),
        // The alpha convolution learns at its own rate, weight and bias, whatever its layer.
        ("visual.alpha_patch_embed.proj.weight", 10.0, true),
        ("visual.alpha_patch_embed.proj.bias", 10.0, false),
        ("text.text_adaptor.0.fn.0.weight", 3.0, true),
        ("text.text_adaptor.0.fn.0.bias", 3.0, false),
        ("logit_scale", 1.0, false),
    ] {
        assert_eq!(rule(name), Rule { lr, weight_decay: if decays { spec.weight_decay } else { 0.0 } }, "{name}");
    }
}

fn small() -> Params {
    let mut params = Params::new(Device::Cpu);
    params.push("visual.head.weight", &hash_fill("w", &[3, 4], 1.0), true);
    params.push("visual.norm.weight", &hash_fill("n", &[4], 1.0), false);
    params.push("logit_scale", &Tensor::from(2.0f32), true);
    params
}

fn train(params: &mut Params, adamw: &mut AdamW, steps: std::ops::Range<i32>) {
    for k in steps {
        params.zero_grad().unwrap();
        give(params, "visual.head.weight", &wave(f64::from(k), 12, 1.0));
        give(params, "logit_scale", &Tensor::from(0.3f32));
        adamw.step(params, 1.0).unwrap();
    }
}

fn named(tensors: Vec<(String, Tensor)>) -> HashMap<String, Tensor> {
    tensors.into_iter().map(|(name, t)| (name, t.copy())).collect()
}

#[test]
fn a_restored_run_goes_on_bit_for_bit() {
    let spec = OptimizerSpec { lr: 1e-2, ..OptimizerSpec::default() };
    let mut params = small();
    let mut adamw = AdamW::new(&spec, &params).unwrap();
    let mut teacher = params.detached_copy();
    train(&mut params, &mut adamw, 0..4);
    teacher.ema_update(&params, 0.5).unwrap();
    let state = State { params: &params, optimizer: &mut adamw, teacher: Some(&teacher) };
    let names: Vec<String> = state.tensors().into_iter().map(|(name, _)| name).collect();
    let want = [
        "param/visual.head.weight",
        "param/visual.norm.weight",
        "param/logit_scale",
        "adam_m/visual.head.weight",
        "adam_m/logit_scale",
        "adam_v/visual.head.weight",
        "adam_v/logit_scale",
        "ema/visual.head.weight",
        "ema/visual.norm.weight",
        "ema/logit_scale",
    ];
    assert_eq!(names, want);
    let (saved, steps) = (named(state.tensors()), state.steps());
    train(&mut params, &mut adamw, 4..8);

    let mut fresh = small();
    let mut other = AdamW::new(&spec, &fresh).unwrap();
    let blank = fresh.detached_copy();
    State { params: &fresh, optimizer: &mut other, teacher: Some(&blank) }.restore(&saved, steps).unwrap();
    assert_eq!(other.steps(), 4);
    assert_eq!(blank.get("visual.head.weight"), teacher.get("visual.head.weight"));
    train(&mut fresh, &mut other, 4..8);
    for (a, b) in params.iter().zip(fresh.iter()) {
        assert_eq!(a.tensor(), b.tensor(), "{}", a.name());
    }
}

#[test]
fn a_state_of_another_run_is_refused_whole() {
    let params = small();
    let mut adamw = AdamW::new(&OptimizerSpec::default(), &params).unwrap();
    let mut state = State { params: &params, optimizer: &mut adamw, teacher: None };
    let mut saved = named(state.tensors());
    let kept = saved.insert("param/visual.head.weight".into(), Tensor::zeros([3, 5], (Kind::Float, Device::Cpu)));
    let error = state.restore(&saved, 1).unwrap_err();
    assert_eq!(error.to_string(), "param/visual.head.weight: expected shape [3, 4], found [3, 5]");
    saved.insert("param/visual.head.weight".into(), kept.unwrap());
    saved.insert("ema/visual.head.weight".into(), Tensor::zeros([3, 4], (Kind::Float, Device::Cpu)));
    assert_eq!(state.restore(&saved, 1).unwrap_err().to_string(), "no parameter is named `ema/visual.head.weight`");
    saved.remove("ema/visual.head.weight");
    saved.remove("adam_v/logit_scale");
    let error = state.restore(&saved, 1).unwrap_err();
    assert!(error.to_string().starts_with("the saved state lacks `adam_v/logit_scale`: "), "{error}");
    assert_eq!(params.get("visual.head.weight").unwrap(), small().get("visual.head.weight").unwrap());
}

#[test]
fn a_missing_gradient_names_its_parameter() {
    let mut params = small();
    let mut adamw = AdamW::new(&OptimizerSpec::default(), &params).unwrap();
    give(&params, "visual.head.weight", &wave(0.0, 12, 1.0));
    let error = adamw.step(&params, 1.0).unwrap_err();
    assert!(error.to_string().contains("trainable parameter `logit_scale`"), "{error}");
    params.set_trainable(|_| true);
    let error = adamw.step(&params, 1.0).unwrap_err();
    let want = "parameter sets differ: the optimizer has `logit_scale` where the model has `visual.norm.weight`";
    assert_eq!(error.to_string(), want);
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing() {
    let params = small();
    let mut adamw = AdamW::new(&OptimizerSpec::default(), &params).unwrap();
    give(&params, "visual.head.weight", &wave(0.0, 12, f64::INFINITY));
    give(&params, "logit_scale", &Tensor::from(0.3f32));
    let error = adamw.step(&params, 1.0).unwrap_err();
    assert!(error.to_string().starts_with("the global gradient norm is NaN: no step was taken"), "{error}");
    assert_eq!(adamw.steps(), 0);
    assert_eq!(params.get("visual.head.weight").unwrap(), small().get("visual.head.weight").unwrap());
}

/// The end of a schedule: moments move, weights stay.
#[test]
fn a_rate_of_zero_moves_no_weight() {
    let params = small();
    let mut adamw = AdamW::new(&OptimizerSpec::default(), &params).unwrap();
    give(&params, "visual.head.weight", &wave(0.0, 12, 1.0));
    give(&params, "logit_scale", &Tensor::from(0.3f32));
    adamw.step(&params, 0.0).unwrap();
    assert_eq!(params.get("visual.head.weight").unwrap(), small().get("visual.head.weight").unwrap());
    let moments: Vec<Tensor> = adamw.slots().iter().map(|s| s.moments().0.shallow_clone()).collect();
    assert!(global_norm(&moments).unwrap().double_value(&[]) > 0.0);
}

#[test]
fn the_logit_scale_is_clamped() {
    let spec = LogitScaleSpec::default();
    let parameter = Tensor::from(9.0f32).set_requires_grad(true);
    clamp_logit_scale(&parameter, &spec).unwrap();
    assert!((parameter.double_value(&[]) - spec.max).abs() < 1e-6);
    let _ = no_grad(|| parameter.shallow_clone().fill_(-1.0));
    clamp_logit_scale(&parameter, &spec).unwrap();
    assert_eq!(parameter.double_value(&[]), 0.0);
    assert!(parameter.requires_grad());
}
