//! The model whole: which sets a loss gets, which of them carry gradients, teachers, shapes refused.

use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{
    CropLoss, DataSpec, LocalLoss, LossPreset, LossSpec, ModelSpec, Needs, PatchMapMask, Pool, PoolOrder, Teacher,
    TextProjSpec, VisionPreset,
};
use tch::{Device, Kind, Tensor};

use crate::items::{BySet, Features, Inputs, Slots, TextItems};
use crate::params::{Compute, ParamGroup};
use crate::testing::hash_fill;
use crate::towers::{Model, VisionSizes};
use crate::vision::VisionConfig;

fn spec() -> ModelSpec {
    let text_proj = TextProjSpec { width: 12, hidden: 20, layers: 2, frozen: false };
    ModelSpec { vision: VisionPreset::Tiny, text_proj, ..ModelSpec::default() }
}

fn small_of(spec: &ModelSpec, seed: u64) -> Model {
    let tiny = VisionConfig::of(spec).expect("an EVA tower");
    let config = VisionConfig { image: 16, patch: 4, width: 32, depth: 2, heads: 2, hidden: 48, embed: 24, ..tiny };
    Model::with_sizes(
        spec,
        &needs(&LossSpec::preset(LossPreset::Default)),
        &VisionSizes::Eva(config),
        seed,
        Device::Cpu,
    )
}

fn needs(loss: &LossSpec) -> Needs {
    Needs::of(loss, &DataSpec::default())
}

fn encode(model: &Model, batch: &Inputs, loss: &LossSpec) -> Features {
    model.encode(batch, &needs(loss), Compute::FP32).expect("encodes")
}

fn texts(vectors: Tensor) -> BySet<TextItems> {
    BySet::default().with(Set::RegionText, TextItems::Vectors(vectors))
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
        slots: [Set::Crop, Set::Teacher, Set::Region, Set::RegionText]
            .into_iter()
            .fold(BySet::default(), |slots, set| slots.with(set, Slots::all(n, 1))),
        texts: texts(hash_fill("text", &[n, 12], 1.0)),
    }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn every_preset_gets_its_sets_as_unit_vectors() {
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
        let f = encode(&model, &inputs(3), &LossSpec::preset(preset));
        let has = |set| f.of(set).is_some();
        assert_eq!((has(Set::Crop), has(Set::Region), has(Set::Teacher)), (crop, roi, false), "{preset:?}");
        assert_eq!(f.of(Set::Crop).is_some_and(Tensor::requires_grad), crop_graph, "{preset:?}");
        for (_, items) in f.sets.iter() {
            assert_eq!((items.features.size(), items.features.kind()), (vec![3, 24], Kind::Float));
            let norm = items.features.norm_scalaropt_dim(2.0, [1i64].as_slice(), false);
            assert!((norm - 1.0).abs().max().double_value(&[]) < 1e-5);
        }
        assert!([Set::Image, Set::RegionText].iter().all(|set| f.of(*set).is_some_and(Tensor::requires_grad)));
    }
}

/// The parts that a crop gives come from other pixels and another mask than the image's: nothing is mixed up.
#[test]
fn crop_and_image_read_their_own_tensors() {
    let model = small();
    let loss = LossSpec::preset(LossPreset::Default);
    let base = encode(&model, &inputs(2), &loss);
    let mut other = inputs(2);
    other.crop_pixels = Some(hash_fill("another crop", &[2, 3, 16, 16], 2.0));
    let moved = encode(&model, &other, &loss);
    let gap = |a: &Features, b: &Features, set| difference(a.of(set).expect("is there"), b.of(set).expect("is there"));
    assert!(gap(&base, &moved, Set::Crop) > 1e-3);
    assert!(gap(&base, &moved, Set::Image) < 1e-6);
    other.boxes = Some(Tensor::from_slice(&[0f32, 0.0, 0.3, 0.3]).repeat([2, 1]));
    let boxed = encode(&model, &other, &loss);
    assert!(gap(&boxed, &base, Set::Region) > 1e-4);
}

#[test]
fn a_teacher_set_teaches_without_a_graph_and_follows_its_own_numbers() {
    for teacher in [Teacher::Ema, Teacher::Frozen] {
        let loss = LossSpec { teacher, crop: CropLoss::Off, ..LossSpec::preset(LossPreset::Default) };
        let mut model = small();
        let error = model.encode(&inputs(2), &needs(&loss), Compute::FP32).expect_err("no teacher yet");
        assert!(error.to_string().contains("start_teacher"), "{error}");
        model.start_teacher(&needs(&loss));
        let head = hash_fill("new head", &[24, 32], 1.0);
        model.params.set("visual.head.weight", &head).expect("same shape");
        let f = encode(&model, &inputs(2), &loss);
        // The model's own crop is read by nothing here.
        assert!(f.of(Set::Crop).is_none());
        let taught = f.of(Set::Teacher).expect("a teacher");
        assert!(!taught.requires_grad());
        let online = LossSpec { teacher: Teacher::Online, ..loss.clone() };
        let before = encode(&small(), &inputs(2), &online);
        assert!(difference(taught, before.of(Set::Crop).expect("online")) < 1e-6);
        model.start_teacher(&needs(&online));
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
            let region = |batch: &Inputs| encode(&model, batch, &loss).of(Set::Region).expect("region").shallow_clone();
            let roi = region(&batch);
            assert!(seen.iter().all(|s| difference(s, &roi) > 1e-5), "{pool:?} {pool_order:?}");
            seen.push(roi.detach());
            batch.boxes = Some(Tensor::zeros([2, 4], (Kind::Float, Device::Cpu)));
            batch.mask = Some(Tensor::full([2, 1, 16, 16], -1.923_076_923, (Kind::Float, Device::Cpu)));
            let roi = region(&batch);
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
    let base = encode(&model, &inputs(2), &loss);
    let mut other = inputs(2);
    other.mask = Some(hash_fill("another mask", &[2, 1, 16, 16], 2.0));
    let moved = encode(&model, &other, &loss);
    let gap = |set| difference(base.of(set).expect("is there"), moved.of(set).expect("is there"));
    assert!(gap(Set::Image) > 1e-4 && gap(Set::Region) < 1e-6);
}

#[test]
fn what_is_frozen_gets_no_gradient() {
    let mut spec = spec();
    spec.text_proj.frozen = true;
    spec.logit_scale.trainable = false;
    let model = small_of(&spec, 5);
    let f = encode(&model, &inputs(2), &LossSpec::preset(LossPreset::Default));
    let learns = |set| f.of(set).is_some_and(Tensor::requires_grad);
    assert!(!learns(Set::RegionText) && learns(Set::Image));
    assert!(model.temperatures().iter().all(|(_, p)| !p.requires_grad()));
    let visual = |group| matches!(group, ParamGroup::Vision { .. } | ParamGroup::Alpha);
    assert!(model.params.trainable().all(|p| visual(p.role().group)));
}

#[test]
fn missing_and_misshapen_inputs_are_named() {
    let model = small();
    let loss = LossSpec::preset(LossPreset::Default);
    let needs = needs(&loss);
    let message = |batch: &Inputs| model.encode(batch, &needs, Compute::FP32).expect_err("refused").to_string();
    let mut batch = inputs(2);
    batch.boxes = None;
    assert_eq!(
        message(&batch),
        "the loss needs `boxes`, which this batch does not hold: pool regions by mask or give their boxes"
    );
    let mut batch = inputs(2);
    batch.texts = texts(hash_fill("text", &[2, 13], 1.0));
    assert_eq!(message(&batch), "region_text: expected shape [texts, 12], found [2, 13]");
    let mut batch = inputs(2);
    batch.crop_pixels = None;
    assert!(message(&batch).starts_with("the loss needs `crop_pixels`"));
}

/// Only valid crops are features, and the map is pooled once for each region of an image.
#[test]
fn slots_without_an_item_have_no_feature() {
    let model = small();
    let loss = LossSpec::preset(LossPreset::Default);
    let whole = encode(&model, &inputs(3), &loss);
    let mut batch = inputs(3);
    batch.slots = batch.slots.with(Set::Crop, Slots::flagged(1, [true, false, true]));
    let some = encode(&model, &batch, &loss);
    let kept = Tensor::from_slice(&[0i64, 2]);
    let crop = |f: &Features| f.of(Set::Crop).expect("crops").detach();
    assert_eq!(crop(&some), crop(&whole).index_select(0, &kept));
    // Two regions of the first image, none of the second, one of the third.
    batch.slots = batch.slots.with(Set::Region, Slots::flagged(2, [true, true, false, false, true, false]));
    let boxes = batch.boxes.as_ref().expect("boxes");
    let owners = Tensor::from_slice(&[0i64, 0, 2]);
    batch.boxes = Some(boxes.index_select(0, &owners));
    let region = |f: &Features| f.of(Set::Region).expect("regions").detach();
    let pooled = region(&encode(&model, &batch, &loss));
    assert!(difference(&pooled, &region(&whole).index_select(0, &owners)) < 1e-6);
}

/// Saved and loaded into a model of another seed, the towers give the same features.
#[test]
fn weights_carry_the_model() {
    let (first, mut second) = (small(), small_of(&spec(), 6));
    let loss = LossSpec::preset(LossPreset::Default);
    let of = |m: &Model| encode(m, &inputs(2), &loss).of(Set::Image).expect("images").detach();
    assert!(difference(&of(&first), &of(&second)) > 1e-3);
    let bytes = first.params.save_bytes().expect("saves");
    let report = second.params.load_bytes(&bytes, "first", &crate::params::LoadOptions::default()).expect("loads");
    assert!(report.missing.is_empty() && report.unexpected.is_empty());
    assert_eq!(of(&first), of(&second));
}
