//! The vision tower.

use pixfleet_cluster::spec::{AlphaInit, LastBlock};
use tch::{Device, Kind, Tensor};

use super::{check_gradients, close, worst_cosine};
use crate::clip::embed::Embed;
use crate::clip::{ClipVision, ClipVisionConfig, PositionStart};
use crate::layers::l2_normalize;
use crate::params::{Builder, Compute, Params};
use crate::testing::hash_fill;

fn build(config: &ClipVisionConfig) -> (ClipVision, Params) {
    let mut params = Params::new(Device::Cpu);
    let vision = ClipVision::new(config, &mut Builder::new(&mut params, 3));
    (vision, params)
}

fn small(alpha_init: AlphaInit, last_block: LastBlock) -> (ClipVision, Params) {
    build(&ClipVisionConfig {
        image: 16,
        patch: 4,
        width: 32,
        depth: 2,
        heads: 2,
        hidden: 48,
        embed: 24,
        positions: PositionStart::Normal { std: 0.2 },
        alpha_init,
        last_block,
    })
}

fn pixels(rows: i64) -> Tensor {
    hash_fill("pixels", &[rows, 3, 16, 16], 2.0)
}

fn mask(rows: i64) -> Tensor {
    hash_fill("mask", &[rows, 1, 16, 16], 2.0)
}

#[test]
fn names_are_those_of_hugging_face_and_sizes_those_of_the_presets() {
    let (_, params) = build(&ClipVisionConfig { alpha_init: AlphaInit::Zero, ..ClipVisionConfig::tiny() });
    let shape = |name: &str| params.get(name).unwrap_or_else(|| panic!("no {name}")).size();
    assert_eq!(shape("vision_model.embeddings.class_embedding"), [256]);
    assert_eq!(shape("vision_model.embeddings.patch_embedding.weight"), [256, 3, 16, 16]);
    assert_eq!(shape("vision_model.embeddings.alpha_patch_embedding.weight"), [256, 1, 16, 16]);
    assert_eq!(shape("vision_model.embeddings.position_embedding.weight"), [37, 256]);
    assert_eq!(shape("vision_model.pre_layrnorm.bias"), [256]);
    assert_eq!(shape("vision_model.encoder.layers.1.self_attn.k_proj.bias"), [256]);
    assert_eq!(shape("vision_model.encoder.layers.1.self_attn.out_proj.weight"), [256, 256]);
    assert_eq!(shape("vision_model.encoder.layers.0.layer_norm2.weight"), [256]);
    assert_eq!(shape("vision_model.encoder.layers.0.mlp.fc2.weight"), [256, 1024]);
    assert_eq!(shape("vision_model.post_layernorm.weight"), [256]);
    assert_eq!(shape("visual_projection.weight"), [256, 256]);
    // Four of the embedding, two norms, the projection, 16 of each block.
    assert_eq!(params.len(), 4 + 4 + 1 + 2 * 16);
    assert!((1_500_000..2_000_000).contains(&params.elements()), "tiny has {} parameters", params.elements());
}

/// The vision side of OpenAI's ViT-L/14-336 has 304,293,888 parameters: too many for a test of every day, so they are
/// added up by hand.
#[test]
fn l14_336_has_the_published_parameter_count() {
    let c = ClipVisionConfig::l14_at_336();
    let (w, h) = (c.width, c.hidden);
    let block = 4 * w + 4 * (w * w + w) + (2 * w * h + h + w);
    let embed = w + (c.patches() + 1) * w + w * 3 * c.patch * c.patch;
    assert_eq!(c.depth * block + embed + 4 * w + w * c.embed, 304_293_888);
    assert_eq!((c.heads, c.embed, c.patches()), (16, 768, 576));
}

#[test]
fn the_class_token_is_the_same_with_and_without_a_map() {
    for last_block in [LastBlock::Normal, LastBlock::AttentionFree] {
        let (vision, params) = small(AlphaInit::Random, last_block);
        let gradients = |want_map: bool| {
            let out = vision.forward(&params.weights(Compute::FP32), &pixels(3), Some(&mask(3)), want_map);
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
            // A key's bias has no effect: its gradient is rounding alone, 1e-8 here.
            let scale = 1e-3 + b.abs().max().double_value(&[]);
            assert!(close(a, b) / scale < 1e-4, "{}: {}", p.name(), close(a, b) / scale);
        }
    }
}

/// With one block, and that one attention-free, a cell of the map is a function of its own patch.
#[test]
fn an_attention_free_block_mixes_nothing() {
    let other = pixels(1);
    let _ = other.narrow(2, 0, 4).narrow(3, 4, 4).fill_(0.5);
    for (last_block, mixes) in [(LastBlock::Normal, true), (LastBlock::AttentionFree, false)] {
        let config = ClipVisionConfig { depth: 1, ..small(AlphaInit::None, last_block).0.config().clone() };
        let (vision, params) = build(&config);
        let map = |pixels: &Tensor| {
            vision.forward(&params.weights(Compute::FP32), pixels, None, true).map.expect("asked for").detach()
        };
        let change = (map(&pixels(1)) - map(&other)).abs().amax([0, 1].as_slice(), false);
        assert!(change.double_value(&[0, 1]) > 1e-3);
        let _ = change.narrow(0, 0, 1).narrow(1, 1, 1).fill_(0.0);
        assert_eq!(change.max().double_value(&[]) > 1e-6, mixes, "{last_block:?}");
    }
}

/// The projection has no bias: FG-CLIP projects every patch and pools, we pool and project.
#[test]
fn pooling_then_projecting_is_projecting_then_pooling() {
    let (vision, params) = small(AlphaInit::None, LastBlock::AttentionFree);
    let w = params.weights(Compute::FP32);
    let map = vision.forward(&w, &pixels(3), None, true).map.expect("asked for");
    let weights = hash_fill("weights", &[3, 16, 1], 0.5) + 0.5;
    let pooled = map.flatten(2, 3).bmm(&weights).squeeze_dim(2);
    let patches = map.flatten(2, 3).transpose(1, 2);
    let projected = patches.linear(params.get("visual_projection.weight").expect("registered"), None::<&Tensor>);
    let theirs = l2_normalize(&projected.transpose(1, 2).bmm(&weights).squeeze_dim(2));
    assert!(close(&vision.head_norm(&w, &pooled), &theirs) < 1e-5);
}

#[test]
fn a_mask_matters_only_through_an_alpha_convolution_that_is_not_zero() {
    for (alpha, matters) in [(AlphaInit::Random, true), (AlphaInit::Zero, false), (AlphaInit::None, false)] {
        let (vision, params) = small(alpha, LastBlock::Normal);
        let registered = params.get("vision_model.embeddings.alpha_patch_embedding.weight").is_some();
        assert_eq!(registered, alpha != AlphaInit::None);
        let w = params.weights(Compute::FP32);
        let embed = |mask: Option<&Tensor>| vision.forward(&w, &pixels(2), mask, false).image;
        assert_eq!(close(&embed(Some(&mask(2))), &embed(None)) > 1e-4, matters, "{alpha:?}");
        assert!(matters || close(&embed(Some(&mask(2))), &embed(None)) < 1e-6);
    }
}

/// The embedding as one product against libtorch's convolutions.
#[test]
fn the_patch_embedding_is_the_sum_of_two_convolutions() {
    let config = small(AlphaInit::Random, LastBlock::Normal).0.config().clone();
    let mut params = Params::new(Device::Cpu);
    let embed = Embed::new(&config, &mut Builder::new(&mut params, 3));
    let tokens = embed.forward(&params.weights(Compute::FP32), &pixels(2), Some(&mask(2)));
    let get = |name: &str| params.get(name).expect("registered");
    let conv = |x: &Tensor, name: &str| x.conv2d(get(name), None::<&Tensor>, 4, 0, 1, 1).flatten(2, 3).transpose(1, 2);
    let sum = conv(&pixels(2), "patch_embedding.weight") + conv(&mask(2), "alpha_patch_embedding.weight");
    let class = get("class_embedding").expand([2, 1, 32], false);
    let expected = Tensor::cat(&[class, sum], 1) + get("position_embedding.weight");
    assert!(close(&tokens, &expected) < 1e-5);
}

#[test]
fn a_row_does_not_depend_on_the_other_rows() {
    let (vision, params) = small(AlphaInit::Random, LastBlock::AttentionFree);
    for compute in [Compute::FP32, Compute::BF16] {
        let forward = |pixels: &Tensor| {
            let rows = pixels.size()[0];
            let out = vision.forward(&params.weights(compute), pixels, Some(&mask(5).narrow(0, 0, rows)), true);
            (out.image.narrow(0, 0, 2).detach(), out.map.expect("asked for").narrow(0, 0, 2).detach())
        };
        let other = Tensor::cat(&[pixels(5).narrow(0, 0, 2), hash_fill("other", &[3, 3, 16, 16], 9.0)], 0);
        let (together, with_others) = (forward(&pixels(5)), forward(&other));
        assert_eq!(together, with_others, "{compute:?}");
        // A product of another height may sum in another order.
        let few = forward(&pixels(5).narrow(0, 0, 2));
        let tolerance = if compute == Compute::FP32 { 1e-6 } else { 1e-2 };
        assert!(close(&together.0, &few.0) < tolerance, "{compute:?}: {}", close(&together.0, &few.0));
    }
}

#[test]
fn bf16_stays_near_fp32_and_every_parameter_gets_an_fp32_gradient() {
    for last_block in [LastBlock::Normal, LastBlock::AttentionFree] {
        let (vision, params) = small(AlphaInit::Random, last_block);
        let exact = vision.forward(&params.weights(Compute::FP32), &pixels(3), Some(&mask(3)), true);
        let w = params.weights(Compute::BF16);
        // A forward without gradients first: its cached copies must not cut the graph of the next one.
        tch::no_grad(|| drop(vision.forward(&w, &pixels(3), Some(&mask(3)), true)));
        let rough = vision.forward(&w, &pixels(3), Some(&mask(3)), true);
        assert_eq!((rough.image.kind(), rough.map.as_ref().map(Tensor::kind)), (Kind::Float, Some(Kind::Float)));
        let cosine = worst_cosine(&exact.image, &rough.image);
        assert!(cosine > 0.9999, "cosine {cosine}");
        let map = rough.map.expect("asked for");
        let weights = hash_fill("map", &map.size(), 1.0);
        ((&rough.image * hash_fill("g", &[3, 24], 1.0)).sum(Kind::Float) + (map * weights).sum(Kind::Float)).backward();
        check_gradients(&params);
    }
}

#[test]
fn no_images_are_well_and_reach_every_parameter() {
    let (vision, params) = small(AlphaInit::Random, LastBlock::AttentionFree);
    let out = vision.forward(&params.weights(Compute::FP32), &pixels(0), Some(&mask(0)), true);
    assert_eq!(out.image.size(), [0, 24]);
    (out.image.sum(Kind::Float) + out.map.expect("asked for").sum(Kind::Float)).backward();
    assert!(params.iter().all(|p| p.tensor().grad().defined()));
}
