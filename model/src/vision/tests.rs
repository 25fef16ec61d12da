//! The tower's pieces: rotary values, presets, the short cuts against the long way, the mask's path.

use pixfleet_cluster::spec::{AlphaInit, LastBlock, VisionPreset};
use tch::{Device, Kind, Tensor};

use super::*;
use crate::params::{Compute, Params};
use crate::testing::hash_fill;

fn small(last_block: LastBlock) -> (Vision, Params) {
    let config = VisionConfig {
        image: 16,
        patch: 4,
        width: 32,
        depth: 2,
        heads: 2,
        hidden: 48,
        embed: 24,
        last_block,
        alpha_init: AlphaInit::Random,
        ..VisionConfig::preset(VisionPreset::Tiny).expect("an EVA tower")
    };
    let mut params = Params::new(Device::Cpu);
    let vision = Vision::new(&config, &mut Builder::new(&mut params, 3).below("visual"), Device::Cpu);
    (vision, params)
}

fn close(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// Golden values of method.md 1.2.3 for B/16: channel c of the reference belongs to pair c / 2 here.
#[test]
fn rotary_values_of_b16() {
    let angles = rope::angles(14, 16, 64);
    let golden = [
        (17, 0, 0.414_997, 0.909_823),
        (17, 1, 0.414_997, 0.909_823),
        (17, 2, 0.800_495, 0.599_340),
        (17, 32, -0.959_103, -0.283_056),
        (17, 34, -0.349_681, 0.936_869),
        (195, 0, -0.659_367, 0.751_822),
        (195, 63, 0.999_997, 0.002_642),
    ];
    for (patch, channel, cos, sin) in golden {
        let phi = angles.double_value(&[patch, channel / 2]);
        assert!((phi.cos() - cos).abs() < 1e-6, "cos ({patch}, {channel}): {}", phi.cos());
        assert!((phi.sin() - sin).abs() < 1e-6, "sin ({patch}, {channel}): {}", phi.sin());
    }
}

/// `rope(x) = x cos + rot(x) sin` with rot (x0, x1) -> (-x1, x0), written out.
#[test]
fn rotation_turns_adjacent_channels_and_leaves_the_class_token() {
    let x = hash_fill("x", &[2, 5, 3, 8], 1.0);
    let turned = rope::rotate(&x, &rope::factors(2, 16, 8, Device::Cpu));
    let angles = rope::angles(2, 16, 8);
    assert_eq!(turned.narrow(1, 0, 1), x.narrow(1, 0, 1));
    for patch in 0..4 {
        for pair in 0..4 {
            let phi = angles.double_value(&[patch, pair]);
            let at = |c: i64| x.double_value(&[1, patch + 1, 2, 2 * pair + c]);
            let got = |c: i64| turned.double_value(&[1, patch + 1, 2, 2 * pair + c]);
            assert!((got(0) - (at(0) * phi.cos() - at(1) * phi.sin())).abs() < 1e-6);
            assert!((got(1) - (at(1) * phi.cos() + at(0) * phi.sin())).abs() < 1e-6);
        }
    }
}

#[test]
fn presets_have_the_published_parameter_counts_and_names() {
    let visual = |preset| {
        let mut params = Params::new(Device::Cpu);
        let _ = Vision::new(
            &VisionConfig::preset(preset).expect("an EVA tower"),
            &mut Builder::new(&mut params, 0).below("visual"),
            Device::Cpu,
        );
        params
    };
    let b16 = visual(VisionPreset::Eva02B16);
    assert_eq!(b16.elements(), 87_051_008);
    let shape = |name: &str| b16.get(name).unwrap_or_else(|| panic!("no {name}")).size();
    assert_eq!(shape("visual.pos_embed"), [1, 197, 768]);
    assert_eq!(shape("visual.alpha_patch_embed.proj.weight"), [768, 1, 16, 16]);
    assert_eq!(shape("visual.blocks.11.attn.inner_attn_ln.bias"), [768]);
    assert_eq!(shape("visual.blocks.0.mlp.w3.weight"), [768, 2048]);
    assert_eq!(shape("visual.head.weight"), [1280, 768]);
    assert!(b16.get("visual.blocks.0.attn.k_proj.bias").is_none());
    let tiny = visual(VisionPreset::Tiny).elements();
    assert!((3_000_000..4_000_000).contains(&tiny), "tiny has {tiny} parameters");
}

/// EVA02-L-14-336 holds 305 M parameters: too many for a test of every day, so its sizes are added up by hand.
#[test]
fn l14_336_has_the_published_parameter_count() {
    let c = VisionConfig::preset(VisionPreset::Eva02L14At336).expect("an EVA tower");
    let (w, h) = (c.width, c.hidden);
    let block = 4 * w + (4 * w * w + 3 * w + 2 * w) + (3 * w * h + 2 * h + w + 2 * h);
    let embed = w + (c.patches() + 1) * w + w * (4 * c.patch * c.patch) + 2 * w;
    assert_eq!(c.depth * block + embed + 2 * w + (w + 1) * c.embed, 305_159_360);
}

#[test]
fn the_class_token_is_the_same_with_and_without_a_map() {
    for last_block in [LastBlock::Normal, LastBlock::AttentionFree] {
        let (vision, params) = small(last_block);
        let (pixels, mask) = (hash_fill("pixels", &[3, 3, 16, 16], 2.0), hash_fill("mask", &[3, 1, 16, 16], 2.0));
        let gradients = |want_map: bool| {
            let w = params.weights(Compute::FP32);
            let out = vision.forward(&w, &pixels, Some(&mask), want_map);
            let loss = (&out.image * hash_fill("g", &[3, 24], 1.0)).sum(Kind::Float);
            let leaves: Vec<_> = params.iter().map(|p| p.tensor().shallow_clone()).collect();
            (out, Tensor::run_backward(&[loss], &leaves, false, false))
        };
        let (short, short_grads) = gradients(false);
        let (long, long_grads) = gradients(true);
        assert!(short.map.is_none());
        assert_eq!(long.map.expect("asked for").size(), [3, 32, 4, 4]);
        assert!(close(&short.image, &long.image) < 1e-6);
        for (p, (a, b)) in params.iter().zip(short_grads.iter().zip(&long_grads)) {
            let scale = 1e-6 + b.abs().max().double_value(&[]);
            assert!(close(a, b) / scale < 1e-4, "{}: {}", p.name(), close(a, b) / scale);
        }
    }
}

#[test]
fn the_attention_free_map_differs_and_each_patch_ignores_later_mixing() {
    let (normal, params) = small(LastBlock::Normal);
    let (free, _) = small(LastBlock::AttentionFree);
    let pixels = hash_fill("pixels", &[1, 3, 16, 16], 2.0);
    let w = params.weights(Compute::FP32);
    let a = normal.forward(&w, &pixels, None, true).map.expect("asked for");
    let b = free.forward(&w, &pixels, None, true).map.expect("asked for");
    assert!(close(&a, &b) > 1e-3);
}

#[test]
fn a_zero_alpha_convolution_ignores_the_mask_and_a_random_one_does_not() {
    let (vision, mut params) = small(LastBlock::Normal);
    let pixels = hash_fill("pixels", &[2, 3, 16, 16], 2.0);
    let masks = [hash_fill("m1", &[2, 1, 16, 16], 2.0), hash_fill("m2", &[2, 1, 16, 16], 2.0)];
    let embed = |params: &Params, mask: Option<&Tensor>| {
        vision.forward(&params.weights(Compute::FP32), &pixels, mask, false).image.detach()
    };
    assert!(close(&embed(&params, Some(&masks[0])), &embed(&params, Some(&masks[1]))) > 1e-4);
    for name in ["visual.alpha_patch_embed.proj.weight", "visual.alpha_patch_embed.proj.bias"] {
        let zero = params.get(name).expect("registered").zeros_like();
        params.set(name, &zero).expect("same shape");
    }
    assert!(close(&embed(&params, Some(&masks[0])), &embed(&params, None)) < 1e-6);
}

/// The embedding as one product against libtorch's convolutions.
#[test]
fn patch_embedding_is_the_sum_of_two_convolutions() {
    let (vision, params) = small(LastBlock::Normal);
    let (pixels, mask) = (hash_fill("pixels", &[2, 3, 16, 16], 2.0), hash_fill("mask", &[2, 1, 16, 16], 2.0));
    let tokens = vision.embed.forward(&params.weights(Compute::FP32), &pixels, Some(&mask));
    let conv = |x: &Tensor, name: &str| {
        let get = |part: &str| params.get(&format!("visual.{name}.proj.{part}")).expect("registered");
        x.conv2d(get("weight"), Some(get("bias")), 4, 0, 1, 1).flatten(2, 3).transpose(1, 2)
    };
    let sum = conv(&pixels, "patch_embed") + conv(&mask, "alpha_patch_embed");
    let class = params.get("visual.cls_token").expect("registered").expand([2, 1, 32], false);
    let expected = Tensor::cat(&[class, sum], 1) + params.get("visual.pos_embed").expect("registered");
    assert!(close(&tokens, &expected) < 1e-5);
}

#[test]
fn bf16_stays_near_fp32_and_every_parameter_gets_an_fp32_gradient() {
    let (vision, params) = small(LastBlock::Normal);
    let (pixels, mask) = (hash_fill("pixels", &[3, 3, 16, 16], 2.0), hash_fill("mask", &[3, 1, 16, 16], 2.0));
    let exact = vision.forward(&params.weights(Compute::FP32), &pixels, Some(&mask), true);
    let w = params.weights(Compute::BF16);
    // A forward without gradients first: its cached copies must not cut the graph of the next one.
    tch::no_grad(|| drop(vision.forward(&w, &pixels, Some(&mask), true)));
    let rough = vision.forward(&w, &pixels, Some(&mask), true);
    assert_eq!((rough.image.kind(), rough.map.as_ref().map(Tensor::kind)), (Kind::Float, Some(Kind::Float)));
    let cosine = (&exact.image * &rough.image).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    assert!(cosine.min().double_value(&[]) > 0.9999, "cosine {}", cosine.min().double_value(&[]));
    let map = rough.map.expect("asked for");
    ((&rough.image * hash_fill("g", &[3, 24], 1.0)).sum(Kind::Float) + map.square().sum(Kind::Float)).backward();
    for p in params.iter() {
        let grad = p.tensor().grad();
        assert!(grad.defined(), "{} got no gradient", p.name());
        assert_eq!(grad.kind(), Kind::Float);
        assert!(grad.abs().max().double_value(&[]) > 0.0, "{} got a zero gradient", p.name());
    }
}
