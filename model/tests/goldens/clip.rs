//! CLIP ViT-B/16 and its text tower with FG-CLIP's additions, forward and backward, against transformers' `CLIPModel` and
//! plain PyTorch (golden/clip.py).

use std::collections::HashMap;

use pixfleet_cluster::spec::{AlphaInit, LastBlock};
use pixfleet_model::clip::{
    ClipText, ClipTextConfig, ClipVision, ClipVisionConfig, KEPT_POSITIONS, TextPath, stretch_positions,
};
use pixfleet_model::params::{Builder, Compute, Params};
use pixfleet_model::testing::hash_fill;
use tch::{Device, Kind, Tensor};

use crate::{difference, golden, parameter_fill};

/// Components of a unit vector of 512 numbers, fp32 against fp32 with another order of sums.
const FEATURE_TOLERANCE: f64 = 2e-6;
/// Patch map after the final norm: values of order 1.
const MAP_TOLERANCE: f64 = 1e-4;
/// Gradients, relative to the largest number compared.
const GRADIENT_TOLERANCE: f64 = 1e-4;
/// The stretched table: one rounding or two.
const STRETCH_TOLERANCE: f64 = 1e-7;

/// OpenAI's CLIP ViT-B/16 has 149,620,737 parameters, one of them the logit scale.
const PUBLISHED: i64 = 149_620_736;
/// Alpha convolution, two long tables, the long projection.
const ADDED: i64 = 768 * 256 + 2 * 248 * 512 + 512 * 512;

fn filled_b16() -> (ClipVision, ClipText, Params) {
    let mut params = Params::new(Device::Cpu);
    let mut root = Builder::new(&mut params, 0);
    let vision = ClipVisionConfig {
        alpha_init: AlphaInit::Zero,
        last_block: LastBlock::AttentionFree,
        ..ClipVisionConfig::b16()
    };
    let vision = ClipVision::new(&vision, &mut root);
    let text = ClipText::new(&ClipTextConfig { long: true, ..ClipTextConfig::b16() }, &mut root);
    assert_eq!(params.elements(), (PUBLISHED + ADDED) as u64);
    let names: Vec<(String, Vec<i64>)> = params.iter().map(|p| (p.name().to_owned(), p.tensor().size())).collect();
    for (name, shape) in &names {
        params.set(name, &parameter_fill(name, shape)).expect("own name, own shape");
    }
    (vision, text, params)
}

fn check(what: &str, ours: &Tensor, expected: &Tensor, tolerance: f64) {
    let error = difference(ours, expected);
    println!("{what}: {error:.1e}");
    assert!(error < tolerance, "{what}: {error}");
}

fn slice_of(map: &Tensor) -> Tensor {
    map.slice(1, 0, 768, 32).slice(2, 0, 14, 3).slice(3, 0, 14, 3)
}

fn check_gradients(params: &Params, golden: &HashMap<String, Tensor>) {
    let mut checked = 0;
    for (key, expected) in golden {
        let Some(name) = key.strip_prefix("grad.") else { continue };
        let grad = params.get(name).expect("a name of ours").grad().flatten(0, -1);
        // Of the long tables the rows around the 20th, where one takes over from the other.
        let start = if name.contains("position_embedding_") { KEPT_POSITIONS * 512 - 256 } else { 0 };
        let scale = expected.abs().max().double_value(&[]);
        let error = difference(&grad.narrow(0, start, 512), expected) / scale;
        println!("{name}: gradient error {error:.1e}");
        assert!(error < GRADIENT_TOLERANCE, "{name}: {error}");
        // In f64: an fp32 sum of two million squares is off by more than the tolerance.
        let norm = grad.to_kind(Kind::Double).norm().double_value(&[]);
        let expected_norm = golden[&format!("norm.{name}")].double_value(&[0]);
        assert!((norm / expected_norm - 1.0).abs() < GRADIENT_TOLERANCE, "{name}: {norm} against {expected_norm}");
        checked += 1;
    }
    assert_eq!(checked, 24);
    let start = params.get("text_model.embeddings.token_embedding.weight").expect("ours").grad().select(0, 49406);
    let expected = &golden["grad_of_start"];
    let scale = expected.abs().max().double_value(&[]);
    check("gradient of the start token", &(start / scale), &(expected / scale), GRADIENT_TOLERANCE);
}

#[test]
fn clip_b16_agrees_with_transformers_and_fg_clips_definitions() {
    let golden = golden("clip_b16.safetensors");
    let (vision, text, params) = filled_b16();
    let pixels = hash_fill("input.pixels", &[2, 3, 224, 224], 2.0);
    let mask = hash_fill("input.mask", &[2, 1, 224, 224], 2.0);
    let w = params.weights(Compute::FP32);

    // The same numbers under a tower whose last block is whole.
    let whole = ClipVisionConfig { last_block: LastBlock::Normal, ..vision.config().clone() };
    let whole = ClipVision::new(&whole, &mut Builder::new(&mut Params::new(Device::Cpu), 0));
    let plain = tch::no_grad(|| whole.forward(&w, &pixels, None, true));
    check("features without mask", &plain.image, &golden["image_without_mask"], FEATURE_TOLERANCE);
    check(
        "map of the whole block",
        &slice_of(&plain.map.expect("asked for")),
        &golden["normal_map_slice"],
        MAP_TOLERANCE,
    );
    assert!(difference(&golden["image"], &golden["image_without_mask"]) > 1e-2, "the mask must matter");

    let out = vision.forward(&w, &pixels, Some(&mask), true);
    let map = out.map.expect("asked for");
    check("features", &out.image, &golden["image"], FEATURE_TOLERANCE);
    check("dense map", &slice_of(&map), &golden["dense_map_slice"], MAP_TOLERANCE);
    let pooled = map.narrow(2, 3, 6).narrow(3, 2, 5).mean_dim([2i64, 3].as_slice(), false, Kind::Float);
    check("region", &vision.head_norm(&w, &pooled), &golden["region"], FEATURE_TOLERANCE);

    let ids = |name: &str| golden[name].to_kind(Kind::Int64);
    let short = text.forward(&w, &ids("short_ids"), TextPath::Short).expect("good ids");
    check("short texts", &short, &golden["short"], FEATURE_TOLERANCE);
    let long = text.forward(&w, &ids("long_ids"), TextPath::Long).expect("good ids");
    check("long texts", &long, &golden["long"], FEATURE_TOLERANCE);

    let loss = (&out.image * hash_fill("grad.image", &[2, 512], 1.0)).sum(Kind::Float)
        + (&map * hash_fill("grad.map", &[2, 768, 14, 14], 1e-3)).sum(Kind::Float)
        + (short * hash_fill("grad.short", &[4, 512], 1.0)).sum(Kind::Float)
        + (long * hash_fill("grad.long", &[3, 512], 1.0)).sum(Kind::Float);
    loss.backward();
    check_gradients(&params, &golden);
}

#[test]
fn positions_are_stretched_as_fg_clip_does() {
    let name = "text_model.embeddings.position_embedding.weight";
    let stretched = stretch_positions(&parameter_fill(name, &[77, 512]), KEPT_POSITIONS).expect("77 rows");
    check(
        "stretched",
        &stretched.slice(1, 0, 512, 64),
        &golden("clip_b16.safetensors")["stretched_slice"],
        STRETCH_TOLERANCE,
    );
}
