//! The objective against autograd of the plain formulas, for every variant and teacher; against itself over 1 to 4
//! ranks; and with rows dropped.

use std::ops::Range;
use std::sync::{Arc, Barrier, Mutex};

use pixfleet_cluster::spec::{CropLoss, LocalLoss, LossPreset, LossSpec, Teacher};
use tch::{Device, Kind as Dtype, Reduction, Tensor};

use super::*;
use crate::testing::hash_fill;

const D: i64 = 12;
const LOGIT_SCALE: f64 = 2.4;

fn feature(part: Part, n: i64) -> Tensor {
    let common = hash_fill("common", &[n, D], 1.0);
    let x = hash_fill(part.name(), &[n, D], 1.0) + common * 0.7;
    let norm = (&x * &x).sum_dim_intlist([1i64].as_slice(), true, Dtype::Float).sqrt();
    x / norm
}

fn leaves(n: i64, crop_valid: &[bool], rows: Range<i64>) -> Leaves {
    let own = rows.start as usize..rows.end as usize;
    Part::ALL.into_iter().fold(Leaves::new(crop_valid[own].to_vec()), |leaves, part| {
        leaves.with(part, &feature(part, n).narrow(0, rows.start, rows.end - rows.start))
    })
}

fn alone(objective: &ThreeBranch, n: i64, crop_valid: &[bool]) -> Outcome {
    objective.step_losses(&leaves(n, crop_valid, 0..n), LOGIT_SCALE, &mut Alone::new(n)).unwrap()
}

/// Features and logit scale in float64 with gradients, and the formulas of method.md section 2 as they stand there.
struct Naive {
    parts: Vec<Tensor>,
    logit_scale: Tensor,
    valid: Tensor,
    smoothing: f64,
}

impl Naive {
    fn new(n: i64, crop_valid: &[bool], smoothing: f64) -> Self {
        let valid: Vec<i64> = (0..n).filter(|&i| crop_valid[i as usize]).collect();
        Self {
            parts: Part::ALL.map(|p| feature(p, n).to_kind(Dtype::Double).set_requires_grad(true)).into(),
            logit_scale: Tensor::from(LOGIT_SCALE).set_requires_grad(true),
            valid: Tensor::from_slice(&valid),
            smoothing,
        }
    }

    fn get(&self, part: Part, only_valid: bool) -> Tensor {
        let x = self.parts[part as usize].shallow_clone();
        if only_valid { x.index_select(0, &self.valid) } else { x }
    }

    fn info_nce(&self, a: Part, b: Part, only_valid: bool) -> Tensor {
        let (a, b) = (self.get(a, only_valid), self.get(b, only_valid));
        let z = a.matmul(&b.tr()) * self.logit_scale.exp();
        let labels = Tensor::arange(a.size()[0], (Dtype::Int64, Device::Cpu));
        let ce = |z: &Tensor| z.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, self.smoothing);
        (ce(&z) + ce(&z.tr())) * 0.5
    }

    fn cosine(&self, x: Tensor, y: Tensor) -> Tensor {
        1.0 - (x * y).sum_dim_intlist([1i64].as_slice(), false, Dtype::Double).mean(Dtype::Double)
    }

    fn taught(&self, x: Part, teacher: Teacher) -> Tensor {
        let y = match teacher {
            Teacher::Online => self.get(Part::Crop, true).detach(),
            Teacher::NoStop => self.get(Part::Crop, true),
            Teacher::Ema | Teacher::Frozen => self.get(Part::Teacher, true).detach(),
        };
        self.cosine(self.get(x, true), y)
    }

    /// Branches 1, 2 and 3.
    fn branches(&self, spec: &LossSpec) -> [Tensor; 3] {
        let zero = || Tensor::from(0f64);
        let crop = match spec.crop {
            CropLoss::Off => zero(),
            CropLoss::C1 => self.info_nce(Part::Crop, Part::Text, true),
            CropLoss::C2 => self.taught(Part::Image, spec.teacher),
            CropLoss::C2Nce => self.info_nce(Part::Image, Part::Crop, true),
            CropLoss::C3 => {
                self.info_nce(Part::Crop, Part::Text, true) + self.taught(Part::Image, spec.teacher) * spec.c3_lambda
            }
        };
        let local = match spec.local {
            LocalLoss::Off => zero(),
            LocalLoss::G1 => self.taught(Part::Roi, spec.teacher),
            LocalLoss::G2 => self.info_nce(Part::Roi, Part::Text, false),
            LocalLoss::G1G2 => self.taught(Part::Roi, spec.teacher) + self.info_nce(Part::Roi, Part::Text, false),
            LocalLoss::G3 => self.cosine(self.get(Part::Image, false), self.get(Part::Roi, false)),
            LocalLoss::G3Nce => self.info_nce(Part::Image, Part::Roi, false),
        };
        [self.info_nce(Part::Image, Part::Text, false), crop, local]
    }
}

/// Losses to 1e-5 relative, gradients to 2e-5 of the largest element: fp32 against float64.
fn assert_is_naive(spec: &LossSpec, n: i64, crop_valid: &[bool]) {
    let naive = Naive::new(n, crop_valid, spec.label_smoothing);
    let [global, crop, local] = naive.branches(spec);
    let total = &global * spec.global_weight + &crop * spec.crop_weight + &local * spec.local_weight;
    total.backward();
    let got = alone(&ThreeBranch::new(spec), n, crop_valid);
    let what = format!("{:?} {:?} {:?}", spec.crop, spec.local, spec.teacher);
    let pairs = [
        (got.losses.global, &global),
        (got.losses.crop, &crop),
        (got.losses.local, &local),
        (got.losses.total, &total),
    ];
    for (got, want) in pairs {
        let want = want.double_value(&[]);
        assert!((got - want).abs() <= 1e-5 * want.abs().max(0.1), "{what}: {got} {want}");
    }
    for part in Part::ALL {
        let want = naive.parts[part as usize].grad();
        match (got.grads.part(part), want.defined()) {
            (Some(got), true) => {
                let gap = (got.to_kind(Dtype::Double) - &want).abs().max().double_value(&[]);
                assert!(gap <= 2e-5 * want.abs().max().double_value(&[]), "{what}: {part:?} {gap}");
            }
            (None, false) => {}
            (got, want) => panic!("{what}: gradient on {part:?}: {} but autograd {want}", got.is_some()),
        }
    }
    let want = naive.logit_scale.grad().double_value(&[]);
    let got = got.grad_logit_scale.sum(Dtype::Double).double_value(&[]);
    assert!((got - want).abs() <= 2e-5 * want.abs().max(0.1), "{what}: {want}");
}

const CROPS: [CropLoss; 5] = [CropLoss::Off, CropLoss::C1, CropLoss::C2, CropLoss::C2Nce, CropLoss::C3];
const LOCALS: [LocalLoss; 6] =
    [LocalLoss::Off, LocalLoss::G1, LocalLoss::G2, LocalLoss::G1G2, LocalLoss::G3, LocalLoss::G3Nce];
const TEACHERS: [Teacher; 4] = [Teacher::Online, Teacher::NoStop, Teacher::Ema, Teacher::Frozen];

fn some_dropped(n: i64) -> Vec<bool> {
    (0..n).map(|i| i % 5 != 1 && i != n - 1).collect()
}

#[test]
fn every_variant_and_teacher_is_its_formula() {
    let n = 17;
    for crop in CROPS {
        for local in LOCALS {
            for teacher in TEACHERS {
                let spec = LossSpec {
                    crop,
                    local,
                    teacher,
                    global_weight: 0.9,
                    crop_weight: 0.5,
                    local_weight: 2.0,
                    c3_lambda: 0.3,
                    label_smoothing: 0.1,
                    ..LossSpec::preset(LossPreset::Default)
                };
                assert_is_naive(&spec, n, &some_dropped(n));
            }
        }
    }
}

#[test]
fn every_preset_is_its_formula() {
    use LossPreset::{Alphaclip, Default, Direct, Fineclip, TwoCl};
    let names = |preset| terms(&LossSpec::preset(preset)).iter().map(|t| t.name).collect::<Vec<_>>().join("+");
    assert_eq!(names(Default), "B1+C1+G1");
    assert_eq!(names(TwoCl), "B1+C1");
    assert_eq!(names(Fineclip), "B1+G1+G2");
    assert_eq!(names(Direct), "B1+C2+G3");
    assert_eq!(names(Alphaclip), "B1");
    for preset in [Default, TwoCl, Fineclip, Direct, Alphaclip] {
        assert_is_naive(&LossSpec::preset(preset), 23, &[true; 23]);
        assert_is_naive(&LossSpec::preset(preset), 23, &some_dropped(23));
    }
}

/// No valid crop in the whole batch: those terms are 0 with zero gradients, nothing is NaN, no gather is left out.
#[test]
fn a_batch_without_valid_crops_is_finite() {
    for crop in CROPS {
        for local in [LocalLoss::Off, LocalLoss::G1, LocalLoss::G1G2] {
            let spec = LossSpec { crop, local, teacher: Teacher::NoStop, ..LossSpec::preset(LossPreset::Default) };
            let got = alone(&ThreeBranch::new(&spec), 9, &[false; 9]);
            assert_eq!((got.losses.crop, got.crops), (0.0, 0));
            if local == LocalLoss::G1 {
                assert_eq!(got.losses.local, 0.0);
            }
            assert!(got.losses.total.is_finite());
            let learns = spec.crop != CropLoss::Off || local != LocalLoss::Off;
            assert_eq!(got.grads.part(Part::Crop).is_some(), learns, "a learning branch still sends a gradient");
            if let Some(grad) = got.grads.part(Part::Crop) {
                assert_eq!(grad, &Tensor::zeros([9, D], (Dtype::Float, Device::Cpu)));
            }
        }
    }
}

/// A dropped row may hold anything, NaN too.
#[test]
fn dropped_rows_do_not_leak() {
    let n = 10;
    let spec = LossSpec::preset(LossPreset::Default);
    let valid = some_dropped(n);
    let objective = ThreeBranch::new(&spec);
    let clean = alone(&objective, n, &valid);
    let crop = feature(Part::Crop, n);
    let _ = crop.get(1).fill_(f64::NAN);
    assert!(!valid[1]);
    let dirty = leaves(n, &valid, 0..n).with(Part::Crop, &crop);
    let got = objective.step_losses(&dirty, LOGIT_SCALE, &mut Alone::new(n)).unwrap();
    assert_eq!(got.losses, clean.losses);
    for part in Part::ALL {
        assert_eq!(got.grads.part(part), clean.grads.part(part), "{part:?}");
    }
}

#[test]
fn a_loss_that_is_not_finite_is_an_error() {
    let n = 6;
    let spec = LossSpec::preset(LossPreset::Alphaclip);
    let image = feature(Part::Image, n);
    let _ = image.get(2).fill_(f64::NAN);
    let bad = leaves(n, &[true; 6], 0..n).with(Part::Image, &image);
    let error = ThreeBranch::new(&spec).step_losses(&bad, LOGIT_SCALE, &mut Alone::new(n)).unwrap_err();
    assert!(error.to_string().starts_with("loss B1 is NaN: "), "{error}");
}

#[test]
fn leaves_that_do_not_fit_are_refused_before_a_gather() {
    let objective = ThreeBranch::new(&LossSpec::preset(LossPreset::Default));
    let bare = Leaves::new(vec![true; 4]).with(Part::Image, &feature(Part::Image, 4));
    let bare = bare.with(Part::Text, &feature(Part::Text, 4));
    let error = objective.step_losses(&bare, LOGIT_SCALE, &mut Alone::new(4)).unwrap_err();
    let want = "the loss needs `crop features`, which this batch does not hold: the towers must be run for the same \
                `[loss]` section as the objective";
    assert_eq!(error.to_string(), want);
    let error = objective.step_losses(&leaves(5, &[true; 5], 0..5), LOGIT_SCALE, &mut Alone::new(4)).unwrap_err();
    assert_eq!(error.to_string(), "crop validity: expected shape [4], found [5]");
}

/// Ranks as threads: each leaves its rows, all wait, each reads them all in order.
struct Mesh {
    barrier: Barrier,
    slots: Mutex<Vec<Option<Tensor>>>,
}

struct Member {
    mesh: Arc<Mesh>,
    rank: usize,
    rows: Range<i64>,
    total: i64,
    gathers: usize,
}

impl Exchange for Member {
    type Error = ModelError;

    fn all_gather_rows(&mut self, own: &Tensor) -> Result<Tensor, ModelError> {
        self.gathers += 1;
        self.mesh.slots.lock().unwrap()[self.rank] = Some(own.copy());
        self.mesh.barrier.wait();
        let all = Tensor::cat(&self.mesh.slots.lock().unwrap().iter().flatten().collect::<Vec<_>>(), 0);
        self.mesh.barrier.wait();
        Ok(all)
    }

    fn own_rows(&self) -> Range<i64> {
        self.rows.clone()
    }

    fn total_rows(&self) -> i64 {
        self.total
    }
}

/// Outcomes of the ranks whose rows lie between the cuts.
fn split(objective: &ThreeBranch, crop_valid: &[bool], cuts: &[i64]) -> Vec<Outcome> {
    let (world, n) = (cuts.len() - 1, crop_valid.len() as i64);
    let mesh = Arc::new(Mesh { barrier: Barrier::new(world), slots: Mutex::new((0..world).map(|_| None).collect()) });
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world)
            .map(|rank| {
                let rows = cuts[rank]..cuts[rank + 1];
                let mut member = Member { mesh: Arc::clone(&mesh), rank, rows: rows.clone(), total: n, gathers: 0 };
                scope.spawn(move || {
                    let own = leaves(n, crop_valid, rows);
                    let outcome = objective.step_losses(&own, LOGIT_SCALE, &mut member).unwrap();
                    assert_eq!(member.gathers, 2);
                    outcome
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// 1 to 4 ranks, uneven ones and one without a valid crop among them: the reported numbers and every row's gradient
/// are the same bits, and the shares of the logit scale's gradient sum to the whole.
#[test]
fn the_world_size_changes_no_bit() {
    let n = 24;
    let mut valid = some_dropped(n);
    valid[..6].fill(false);
    for (crop, local) in
        [(CropLoss::C1, LocalLoss::G1), (CropLoss::C3, LocalLoss::G1G2), (CropLoss::C2Nce, LocalLoss::G3Nce)]
    {
        let spec = LossSpec { crop, local, label_smoothing: 0.1, ..LossSpec::preset(LossPreset::Default) };
        let objective = ThreeBranch::new(&spec).with_tile(Tile::new(4, 8));
        let whole = alone(&objective, n, &valid);
        for cuts in [vec![0, 12, 24], vec![0, 6, 7, 24], vec![0, 6, 12, 18, 24]] {
            let ranks = split(&objective, &valid, &cuts);
            for rank in &ranks {
                assert_eq!(rank.losses, whole.losses, "{crop:?} {local:?} {cuts:?}");
                assert_eq!((rank.image_to_text, rank.text_to_image), (whole.image_to_text, whole.text_to_image));
                assert_eq!((&rank.terms, rank.crops), (&whole.terms, whole.crops));
            }
            for part in Part::ALL {
                let parts: Vec<&Tensor> = ranks.iter().filter_map(|r| r.grads.part(part)).collect();
                assert!(parts.is_empty() || parts.len() == ranks.len(), "{part:?}");
                let joined = (!parts.is_empty()).then(|| Tensor::cat(&parts, 0));
                assert_eq!(joined.as_ref(), whole.grads.part(part), "{crop:?} {local:?} {part:?} {cuts:?}");
            }
            let shares: Vec<&Tensor> = ranks.iter().map(|r| &r.grad_logit_scale).collect();
            assert_eq!(Tensor::cat(&shares, 0), whole.grad_logit_scale, "{crop:?} {local:?} {cuts:?}");
        }
    }
}

#[test]
fn the_packed_row_holds_only_what_needs_global_columns() {
    let columns = |preset| {
        let packed = Packed::new(&terms(&LossSpec::preset(preset)), &leaves(4, &[true; 4], 0..4), &(0..4)).unwrap();
        packed.matrix().size()[1]
    };
    // G1's region and teacher meet row by row at home.
    assert_eq!(columns(LossPreset::Default), 3 * D + 1);
    assert_eq!(columns(LossPreset::Alphaclip), 2 * D + 1);
    assert_eq!(columns(LossPreset::Direct), 2 * D + 1);
    assert_eq!(columns(LossPreset::Fineclip), 3 * D + 1);
}
