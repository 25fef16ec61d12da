//! The objective against autograd of the plain formulas, for every variant and teacher; against itself over 1 to 4
//! ranks; and with rows dropped.

mod regions;

use std::ops::Range;
use std::sync::{Arc, Barrier, Mutex};

use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{CropLoss, DataSpec, LocalLoss, LossPreset, LossSpec, Teacher};
use tch::{Device, Kind as Dtype, Reduction, Tensor};

use super::*;
use crate::items::{BySet, Features, Items, Slots};
use crate::testing::hash_fill;

const D: i64 = 12;
const LOGIT_SCALE: f64 = 2.4;

/// The sets of PixCLIP, one slot a row.
const SETS: [Set; 5] = [Set::Image, Set::RegionText, Set::Crop, Set::Region, Set::Teacher];

fn feature(set: Set, n: i64) -> Tensor {
    let common = hash_fill("common", &[n, D], 1.0);
    let x = hash_fill(set.name(), &[n, D], 1.0) + common * 0.7;
    let norm = (&x * &x).sum_dim_intlist([1i64].as_slice(), true, Dtype::Float).sqrt();
    x / norm
}

/// Which slots of a set hold an item: crops count where `crop_valid` says so.
fn slots(set: Set, crop_valid: &[bool]) -> Slots {
    match set {
        Set::Crop | Set::Teacher => Slots::flagged(1, crop_valid.iter().copied()),
        _ => Slots::all(crop_valid.len() as i64, 1),
    }
}

fn items(features: &Tensor, slots: Slots) -> Items {
    Items { features: features.index_select(0, &Tensor::from_slice(slots.valid())), slots }
}

/// One lane of the rows `rows` of `n`.
fn lane(n: i64, crop_valid: &[bool], rows: &Range<i64>) -> Features {
    let own = &crop_valid[rows.start as usize..rows.end as usize];
    let sets = SETS.into_iter().fold(BySet::default(), |sets, set| {
        let all = feature(set, n).narrow(0, rows.start, rows.end - rows.start);
        sets.with(set, items(&all, slots(set, own)))
    });
    Features { rows: rows.end - rows.start, sets }
}

/// Where lanes end, as far as a batch reaches.
const BORDERS: [i64; 5] = [6, 7, 12, 18, i64::MAX];

fn leaves(n: i64, crop_valid: &[bool], rows: Range<i64>) -> Leaves {
    let ends = BORDERS.iter().map(|end| *end.min(&rows.end));
    let lanes = ends.scan(rows.start, |start, end| Some(std::mem::replace(start, end.max(*start))..end));
    let lanes = lanes.filter(|lane| lane.start < lane.end).map(|own| lane(n, crop_valid, &own));
    Leaves::of_lanes(&lanes.collect::<Vec<_>>()).unwrap()
}

fn objective(spec: &LossSpec) -> Objective {
    Objective::new(&Needs::of(spec, &DataSpec::default()), spec)
}

fn scales() -> Scales {
    Scales::default().with(Temperature::Global, LOGIT_SCALE)
}

fn alone(objective: &Objective, n: i64, crop_valid: &[bool]) -> StepLoss {
    objective.step_losses(&leaves(n, crop_valid, 0..n), scales(), &mut Alone::new(n)).unwrap()
}

/// The sum of a branch's terms, by the first word of their names and without the branch's weight.
fn branch(step: &Told, spec: &LossSpec, name: &str) -> f64 {
    let of = |t: &&TermLoss| t.name.split('_').next() == Some(name);
    step.terms.iter().filter(of).map(|t| t.loss * if t.name == "crop_cosine" { spec.c3_lambda } else { 1.0 }).sum()
}

/// Features and logit scale in float64 with gradients, and the formulas of method.md section 2 as they stand there.
struct Naive {
    sets: Vec<Tensor>,
    logit_scale: Tensor,
    valid: Tensor,
    smoothing: f64,
}

impl Naive {
    fn new(n: i64, crop_valid: &[bool], smoothing: f64) -> Self {
        let valid: Vec<i64> = (0..n).filter(|&i| crop_valid[i as usize]).collect();
        Self {
            sets: SETS.map(|s| feature(s, n).to_kind(Dtype::Double).set_requires_grad(true)).into(),
            logit_scale: Tensor::from(LOGIT_SCALE).set_requires_grad(true),
            valid: Tensor::from_slice(&valid),
            smoothing,
        }
    }

    fn leaf(&self, set: Set) -> &Tensor {
        &self.sets[SETS.iter().position(|s| *s == set).unwrap()]
    }

    fn get(&self, set: Set, only_valid: bool) -> Tensor {
        let x = self.leaf(set).shallow_clone();
        if only_valid { x.index_select(0, &self.valid) } else { x }
    }

    fn info_nce(&self, a: Set, b: Set, only_valid: bool) -> Tensor {
        let (a, b) = (self.get(a, only_valid), self.get(b, only_valid));
        let z = a.matmul(&b.tr()) * self.logit_scale.exp();
        let labels = Tensor::arange(a.size()[0], (Dtype::Int64, Device::Cpu));
        let ce = |z: &Tensor| z.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, self.smoothing);
        (ce(&z) + ce(&z.tr())) * 0.5
    }

    fn cosine(&self, x: Tensor, y: Tensor) -> Tensor {
        1.0 - (x * y).sum_dim_intlist([1i64].as_slice(), false, Dtype::Double).mean(Dtype::Double)
    }

    fn taught(&self, x: Set, teacher: Teacher) -> Tensor {
        let y = match teacher {
            Teacher::Online => self.get(Set::Crop, true).detach(),
            Teacher::NoStop => self.get(Set::Crop, true),
            Teacher::Ema | Teacher::Frozen => self.get(Set::Teacher, true).detach(),
        };
        self.cosine(self.get(x, true), y)
    }

    /// Branches 1, 2 and 3.
    fn branches(&self, spec: &LossSpec) -> [Tensor; 3] {
        let zero = || Tensor::from(0f64);
        let crop = match spec.crop {
            CropLoss::Off => zero(),
            CropLoss::C1 => self.info_nce(Set::Crop, Set::RegionText, true),
            CropLoss::C2 => self.taught(Set::Image, spec.teacher),
            CropLoss::C2Nce => self.info_nce(Set::Image, Set::Crop, true),
            CropLoss::C3 => {
                self.info_nce(Set::Crop, Set::RegionText, true) + self.taught(Set::Image, spec.teacher) * spec.c3_lambda
            }
        };
        let local = match spec.local {
            LocalLoss::Off => zero(),
            LocalLoss::G1 => self.taught(Set::Region, spec.teacher),
            LocalLoss::G2 => self.info_nce(Set::Region, Set::RegionText, false),
            LocalLoss::G1G2 => {
                self.taught(Set::Region, spec.teacher) + self.info_nce(Set::Region, Set::RegionText, false)
            }
            LocalLoss::G3 => self.cosine(self.get(Set::Image, false), self.get(Set::Region, false)),
            LocalLoss::G3Nce => self.info_nce(Set::Image, Set::Region, false),
        };
        [self.info_nce(Set::Image, Set::RegionText, false), crop, local]
    }
}

/// Losses to 1e-5 relative, gradients to 2e-5 of the largest element: fp32 against float64.
fn assert_is_naive(spec: &LossSpec, n: i64, crop_valid: &[bool]) {
    let naive = Naive::new(n, crop_valid, spec.label_smoothing);
    let [global, crop, local] = naive.branches(spec);
    let total = &global * spec.global_weight + &crop * spec.crop_weight + &local * spec.local_weight;
    total.backward();
    let got = alone(&objective(spec), n, crop_valid);
    let what = format!("{:?} {:?} {:?}", spec.crop, spec.local, spec.teacher);
    let told = got.tell().unwrap();
    let pairs = [
        (branch(&told, spec, "global"), &global),
        (branch(&told, spec, "crop"), &crop),
        (branch(&told, spec, "local"), &local),
        (told.total, &total),
    ];
    for (got, want) in pairs {
        let want = want.double_value(&[]);
        assert!((got - want).abs() <= 1e-5 * want.abs().max(0.1), "{what}: {got} {want}");
    }
    for set in SETS {
        let want = naive.leaf(set).grad();
        match (got.grads.of(set), want.defined()) {
            (Some(got), true) => {
                let want = want.index_select(0, &Tensor::from_slice(slots(set, crop_valid).valid()));
                let gap = (got.to_kind(Dtype::Double) - &want).abs().max().double_value(&[]);
                assert!(gap <= 2e-5 * want.abs().max().double_value(&[]), "{what}: {set:?} {gap}");
            }
            (None, false) => {}
            (got, want) => panic!("{what}: gradient on {set:?}: {} but autograd {want}", got.is_some()),
        }
    }
    let want = naive.logit_scale.grad().double_value(&[]);
    let got = got.grad_temperature(Temperature::Global).unwrap().sum(Dtype::Double).double_value(&[]);
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
            let got = alone(&objective(&spec), 9, &[false; 9]);
            let told = got.tell().unwrap();
            for name in ["crop", "crop_cosine", "local"] {
                let term = told.of(name);
                assert!(term.is_none_or(|t| (t.loss, t.pairs) == (0.0, 0)), "{term:?}");
            }
            assert!(told.total.is_finite());
            let learns = spec.crop != CropLoss::Off || local != LocalLoss::Off;
            assert_eq!(got.grads.of(Set::Crop).is_some(), learns, "a learning set still sends a gradient");
            if let Some(grad) = got.grads.of(Set::Crop) {
                assert_eq!(grad.size(), [0, D]);
            }
            if let Some(grad) = got.grads.of(Set::Region).filter(|_| local == LocalLoss::G1) {
                assert_eq!(grad, &Tensor::zeros([9, D], (Dtype::Float, Device::Cpu)));
            }
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_is_an_error() {
    let n = 6;
    let spec = LossSpec::preset(LossPreset::Alphaclip);
    let mut bad = lane(n, &[true; 6], &(0..n));
    let _ = bad.of(Set::Image).unwrap().get(2).fill_(f64::NAN);
    bad.sets = bad.sets.with(Set::RegionText, items(&feature(Set::RegionText, n), Slots::all(n, 1)));
    let bad = Leaves::of_lanes(&[bad]).unwrap();
    let error = objective(&spec).step_losses(&bad, scales(), &mut Alone::new(n)).unwrap().tell().unwrap_err();
    assert!(error.to_string().starts_with("loss global is NaN: "), "{error}");
}

#[test]
fn leaves_that_do_not_fit_are_refused_before_a_gather() {
    let objective = objective(&LossSpec::preset(LossPreset::Default));
    let message = |sets: BySet<Items>| {
        let leaves = Leaves::of_lanes(&[Features { rows: 4, sets }]).unwrap();
        objective.step_losses(&leaves, scales(), &mut Alone::new(4)).unwrap_err().to_string()
    };
    let whole = |set, n| items(&feature(set, n), Slots::all(n, 1));
    let bare =
        || BySet::default().with(Set::Image, whole(Set::Image, 4)).with(Set::RegionText, whole(Set::RegionText, 4));
    let want = "the loss needs `crop`, which this batch does not hold: the towers must be run for the same `[loss]` \
                section as the objective";
    assert_eq!(message(bare()), want);
    let want = "slots of set `crop` in term `crop`: expected shape [4, 1], found [5, 1]";
    assert_eq!(message(bare().with(Set::Crop, whole(Set::Crop, 5))), want);
    let two = items(&feature(Set::Crop, 8), Slots::all(4, 2));
    let want = "slots of set `region_text` in term `crop`: expected shape [4, 2], found [4, 1]";
    assert_eq!(message(bare().with(Set::Crop, two)), want);
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

/// What the ranks whose rows lie between the cuts find; `own` gives the leaves of some rows.
fn split(
    objective: &Objective,
    (n, scales): (i64, Scales),
    own: impl Fn(Range<i64>) -> Leaves + Sync,
    cuts: &[i64],
) -> Vec<StepLoss> {
    let (world, own) = (cuts.len() - 1, &own);
    let mesh = Arc::new(Mesh { barrier: Barrier::new(world), slots: Mutex::new((0..world).map(|_| None).collect()) });
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world)
            .map(|rank| {
                let rows = cuts[rank]..cuts[rank + 1];
                let mut member = Member { mesh: Arc::clone(&mesh), rank, rows: rows.clone(), total: n, gathers: 0 };
                scope.spawn(move || {
                    let step = objective.step_losses(&own(rows), scales, &mut member).unwrap();
                    assert_eq!(member.gathers, 2);
                    step
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
        let objective = objective(&spec).with_tile(Tile::new(4, 8));
        let whole = alone(&objective, n, &valid);
        for cuts in [vec![0, 12, 24], vec![0, 6, 7, 24], vec![0, 6, 12, 18, 24]] {
            let ranks = split(&objective, (n, scales()), |rows| leaves(n, &valid, rows), &cuts);
            assert_ranks_are(&ranks, &whole, &format!("{crop:?} {local:?} {cuts:?}"));
        }
    }
}

/// Every rank reports the same bits, and together they have the gradients of the whole.
fn assert_ranks_are(ranks: &[StepLoss], whole: &StepLoss, what: &str) {
    for rank in ranks {
        assert_eq!(rank.tell().unwrap(), whole.tell().unwrap(), "{what}");
    }
    for set in Set::ALL {
        let parts: Vec<&Tensor> = ranks.iter().filter_map(|r| r.grads.of(set)).collect();
        assert!(parts.is_empty() || parts.len() == ranks.len(), "{what} {set:?}");
        let joined = (!parts.is_empty()).then(|| Tensor::cat(&parts, 0));
        assert_eq!(joined.as_ref(), whole.grads.of(set), "{what} {set:?}");
    }
    for temperature in Temperature::ALL {
        let shares: Vec<&Tensor> = ranks.iter().filter_map(|r| r.grad_temperature(temperature)).collect();
        let joined = (!shares.is_empty()).then(|| Tensor::cat(&shares, 0));
        assert_eq!(joined.as_ref(), whole.grad_temperature(temperature), "{what} {temperature:?}");
    }
}

#[test]
fn the_packed_row_holds_only_what_needs_global_columns() {
    let columns = |preset| {
        let needs = Needs::of(&LossSpec::preset(preset), &DataSpec::default());
        let beside = (Dtype::Float, [0; 4].as_slice());
        let packed = Packed::new(needs.terms(), &leaves(4, &[true; 4], 0..4), &(0..4), beside).unwrap();
        packed.matrix().size()[1]
    };
    // G1's region and teacher meet row by row at home; each set has a flag, and one byte rides along.
    assert_eq!(columns(LossPreset::Default), 3 * D + 5);
    assert_eq!(columns(LossPreset::Alphaclip), 2 * D + 3);
    assert_eq!(columns(LossPreset::Direct), 2 * D + 5);
    assert_eq!(columns(LossPreset::Fineclip), 3 * D + 5);
}
