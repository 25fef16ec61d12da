use super::inputs::{Expected, check};
use super::*;
use pixfleet_cluster::spec::{ModelSpec, TextProjSpec, VisionPreset};
use pixfleet_model::testing::hash_fill;
use std::collections::HashMap;

fn needs(preset: LossPreset) -> Needs {
    Needs::of(&LossSpec::preset(preset), &DataSpec::default())
}

fn tiny() -> Model {
    let text_proj = TextProjSpec { width: 24, hidden: 32, layers: 1, frozen: false };
    let spec = ModelSpec { vision: VisionPreset::Tiny, text_proj, ..ModelSpec::default() };
    let mut model = Model::build(&spec, &needs(LossPreset::Default), 3, Device::Cpu);
    // From scratch the alpha convolution is zero and the head nearly so: nothing would depend on the mask.
    for name in ["visual.alpha_patch_embed.proj.weight", "visual.head.weight"] {
        let size = model.params.get(name).expect("is there").size();
        model.params.set(name, &hash_fill(name, &size, 0.2)).expect("fits");
    }
    model
}

fn given(model: &Model, n: i64) -> HashMap<String, Tensor> {
    let s = model.vision().image();
    let boxes = Tensor::from_slice(&[0.1f32, 0.2, 0.6, 0.7, 0.3, 0.1, 0.9, 0.8, 0.0, 0.0, 0.5, 1.0]).reshape([3, 4]);
    let shapes: [(&str, Vec<i64>); 5] = [
        ("pixels", vec![n, 3, s, s]),
        ("mask", vec![n, 1, s, s]),
        ("crop_pixels", vec![n, 3, s, s]),
        ("crop_mask", vec![n, 1, s, s]),
        ("text", vec![n, 24]),
    ];
    let mut all: HashMap<String, Tensor> =
        shapes.into_iter().map(|(name, shape)| (name.to_owned(), hash_fill(name, &shape, 1.0))).collect();
    all.insert("boxes".into(), boxes.narrow(0, 0, n));
    all
}

fn run(model: &mut Model, preset: LossPreset) -> HashMap<String, Tensor> {
    let loss = LossSpec::preset(preset);
    let needs = needs(preset);
    let inputs = check(given(model, 3), &Expected::of(model, &needs), "in").expect("good tensors");
    probe(model, &inputs, (&needs, &loss)).expect("a probe").into_iter().collect()
}

#[test]
fn the_total_is_the_sum_and_features_are_normalized() {
    for preset in [LossPreset::Default, LossPreset::Fineclip, LossPreset::Direct, LossPreset::Alphaclip] {
        let out = run(&mut tiny(), preset);
        let loss = |name: &str| out[&format!("loss.{name}")].double_value(&[]);
        let sum = loss("global") + loss("crop") + loss("local");
        assert!(
            loss("global") > 0.0 && (loss("total") - sum).abs() < 1e-5,
            "{preset:?}: {} is not {sum}",
            loss("total")
        );
        for name in ["image_features", "crop_features", "text_features", "roi_features"] {
            let norms: Vec<f64> =
                Vec::try_from(out[name].norm_scalaropt_dim(2.0, [1i64], false).to_kind(Kind::Double)).expect("numbers");
            assert!(norms.len() == 3 && norms.iter().all(|n| (n - 1.0).abs() < 1e-5), "{name}: {norms:?}");
        }
        assert_eq!(out["patch_map"].size()[0], 3);
        assert_eq!(out["patch_map"].dim(), 4);
    }
}

#[test]
fn every_parameter_has_its_gradient() {
    let mut model = tiny();
    let out = run(&mut model, LossPreset::Default);
    for p in model.params.iter() {
        assert_eq!(out[&format!("grad.{}", p.name())].size(), p.tensor().size(), "{}", p.name());
    }
    assert!(out["grad.logit_scale"].double_value(&[]).abs() > 1e-6);
}

#[test]
fn gradients_are_slopes_of_the_total() {
    let base = run(&mut tiny(), LossPreset::Default);
    for (name, index) in [("logit_scale", 0), ("visual.head.weight", 17), ("visual.alpha_patch_embed.proj.weight", 5)] {
        // G1's teacher is the crop without gradient, which a finite difference would see: leave branch 3 out.
        let slope = |out: &HashMap<String, Tensor>| out[&format!("grad.{name}")].flatten(0, -1).double_value(&[index]);
        let analytic = slope(&run(&mut tiny(), LossPreset::TwoCl));
        let step = 2e-2;
        let at = |by: f64| {
            let mut model = tiny();
            let values = model.params.get(name).expect("is there").detach().copy();
            let flat = values.flatten(0, -1);
            let _ = flat.get(index).fill_(flat.double_value(&[index]) + by);
            model.params.set(name, &flat.reshape(values.size())).expect("fits");
            let out = run(&mut model, LossPreset::TwoCl);
            out["loss.total"].double_value(&[])
        };
        let numeric = (at(step) - at(-step)) / (2.0 * step);
        let error = (numeric - analytic).abs();
        assert!(error < 2e-4 + 0.02 * analytic.abs(), "{name}: slope {numeric}, gradient {analytic}");
        assert!(slope(&base).is_finite());
    }
}

#[test]
fn missing_unknown_and_misshapen_tensors_are_named() {
    let model = tiny();
    let expected = Expected::of(&model, &needs(LossPreset::Default));
    let said = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut tensors = given(&model, 3);
        change(&mut tensors);
        check(tensors, &expected, "in.safetensors").expect_err("bad").to_string()
    };
    let s = model.vision().image();
    let missing = said(&|t| drop(t.remove("crop_mask")));
    assert_eq!(missing, format!("in.safetensors: tensor `crop_mask` is missing; expected shape [N, 1, {s}, {s}]"));
    let unknown = said(&|t| drop(t.insert("masks".into(), Tensor::from(1f32))));
    assert!(unknown.starts_with("in.safetensors: unknown tensor `masks`; expected pixels, mask,"), "{unknown}");
    let shape = said(&|t| drop(t.insert("text".into(), hash_fill("t", &[2, 24], 1.0))));
    assert_eq!(
        shape,
        "in.safetensors: tensor `text` has shape [2, 24]; expected [N, 24] with N = 3 as in `pixels`, N > 0"
    );
    let outside = said(&|t| drop(t.insert("boxes".into(), hash_fill("b", &[3, 4], 9.0))));
    assert!(outside.contains("`boxes` row 0"), "{outside}");
    let expected = Expected::of(&model, &needs(LossPreset::Alphaclip));
    let mut lean = given(&model, 3);
    lean.retain(|name, _| ["pixels", "mask", "text"].contains(&name.as_str()));
    assert!(check(lean, &expected, "in").is_ok(), "alphaclip needs neither crop nor boxes");
}
