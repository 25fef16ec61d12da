//! FG-CLIP's terms against autograd of the plain formulas (method.md 4.2), ragged and over 1 to 4 ranks: rows without a
//! region, ranks without any, batches without a negative.

use std::ops::Range;

use pixfleet_cluster::spec::terms::{HARD_TEXTS, Set};
use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, RegionLoss};
use tch::{Device, Kind as Dtype, Reduction, Tensor};

use super::super::*;
use super::{assert_ranks_are, split};
use crate::items::{BySet, Features, Items, Slots};
use crate::testing::hash_fill;

const D: i64 = 12;
const ROWS: i64 = 12;
const REGIONS: i64 = 3;
const LANE: i64 = 2;

fn loss(region: RegionLoss) -> LossSpec {
    LossSpec { region, ..LossSpec::preset(LossPreset::Fgclip1Stage2) }
}

fn needs(loss: &LossSpec) -> Needs {
    Needs::of(loss, &DataSpec { regions: REGIONS as u32, ..DataSpec::default() })
}

fn scales() -> Scales {
    Scales::default().with(Temperature::Global, 2.4).with(Temperature::Region, 1.9).with(Temperature::Hard, 2.9)
}

/// Regions of each row, and which of them have negatives.
#[derive(Debug, Clone)]
struct Data {
    regions: Vec<i64>,
    hard: Vec<bool>,
}

impl Data {
    /// Rows of 0 to 3 regions, some with negatives; the first third of the rows has none.
    fn ragged() -> Self {
        let regions: Vec<i64> = (0..ROWS).map(|row| if row < ROWS / 3 { 0 } else { (row * 5) % 4 }).collect();
        Self { hard: (0..ROWS * REGIONS).map(|slot| slot % 3 != 1).collect(), regions }
    }

    fn none() -> Self {
        Self { regions: vec![0; ROWS as usize], hard: vec![true; (ROWS * REGIONS) as usize] }
    }

    /// Valid slots of a set over all rows.
    fn valid(&self, set: Set) -> Vec<i64> {
        let region = |slot: &i64| slot % REGIONS < self.regions[(slot / REGIONS) as usize];
        let slots = 0..ROWS * REGIONS;
        match set {
            Set::Region | Set::RegionText => slots.filter(region).collect(),
            Set::HardText => slots.filter(region).filter(|slot| self.hard[*slot as usize]).collect(),
            _ => (0..ROWS).collect(),
        }
    }
}

/// The features of every slot, whether it holds an item or not.
fn every(set: Set) -> Tensor {
    let count = ROWS * i64::from(set.slots(REGIONS as u32)) * i64::from(set.width());
    let x = hash_fill(set.name(), &[count, D], 1.0) + hash_fill("common", &[1, D], 0.7);
    let norm = (&x * &x).sum_dim_intlist([1i64].as_slice(), true, Dtype::Float).sqrt();
    x / norm
}

/// The items of slots, [slots x width, D].
fn of_slots(set: Set, all: &Tensor, slots: &[i64]) -> Tensor {
    let grouped = all.view([-1, i64::from(set.width()), D]).index_select(0, &Tensor::from_slice(slots));
    grouped.reshape([-1, D])
}

fn lane(data: &Data, loss: &LossSpec, rows: &Range<i64>) -> Features {
    let needs = needs(loss);
    let mut sets = BySet::default();
    for set in Set::ALL.into_iter().filter(|set| needs.has(*set)) {
        let per_row = i64::from(needs.slots(set));
        let own = (rows.start * per_row)..(rows.end * per_row);
        let slots: Vec<i64> = data.valid(set).into_iter().filter(|slot| own.contains(slot)).collect();
        let features = of_slots(set, &every(set), &slots);
        let slots = slots.iter().map(|slot| slot - own.start).collect();
        *sets.entry(set) = Some(Items { features, slots: Slots::of(rows.end - rows.start, per_row, slots).unwrap() });
    }
    Features { rows: rows.end - rows.start, sets }
}

fn leaves(data: &Data, loss: &LossSpec, rows: Range<i64>) -> Leaves {
    let lanes = (rows.start..rows.end).step_by(LANE as usize).map(|at| lane(data, loss, &(at..at + LANE)));
    Leaves::of_lanes(&lanes.collect::<Vec<_>>()).unwrap()
}

fn alone(data: &Data, loss: &LossSpec) -> StepLoss {
    let objective = Objective::new(&needs(loss), loss).with_tile(Tile::new(4, 8));
    objective.step_losses(&leaves(data, loss, 0..ROWS), scales(), &mut Alone::new(ROWS)).unwrap()
}

/// The formulas as they stand in method.md 4.2, in float64 with gradients.
struct Formula {
    sets: Vec<Tensor>,
    scales: Vec<Tensor>,
}

impl Formula {
    fn new() -> Self {
        let leaf = |t: Tensor| t.to_kind(Dtype::Double).set_requires_grad(true);
        Self {
            sets: Set::ALL.map(|set| leaf(every(set))).into(),
            scales: Temperature::ALL.map(|t| Tensor::from(scales().of(t)).set_requires_grad(true)).into(),
        }
    }

    fn set(&self, set: Set) -> &Tensor {
        &self.sets[Set::ALL.iter().position(|s| *s == set).unwrap()]
    }

    fn scale(&self, t: Temperature) -> Tensor {
        self.scales[t as usize].exp()
    }

    fn contrast(&self, (a, b): (&Tensor, &Tensor), t: Temperature) -> Tensor {
        let z = a.matmul(&b.tr()) * self.scale(t);
        let labels = Tensor::arange(a.size()[0], (Dtype::Int64, Device::Cpu));
        let ce = |z: &Tensor| z.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
        (ce(&z) + ce(&z.tr())) * 0.5
    }

    /// long, short, region, hard.
    fn terms(&self, data: &Data, region: RegionLoss) -> [Tensor; 4] {
        let image = self.set(Set::Image);
        let regional = |slots: &[i64]| {
            let of = |set| of_slots(set, self.set(set), slots);
            self.contrast((&of(Set::Region), &of(Set::RegionText)), Temperature::Region)
        };
        let slots = data.valid(Set::Region);
        let region = match region {
            RegionLoss::Off => Tensor::from(0f64),
            RegionLoss::Global => regional(&slots),
            RegionLoss::Lane => {
                let per_lane = LANE * REGIONS;
                let lanes = slots.chunk_by(|a, b| a / per_lane == b / per_lane);
                lanes.map(|lane| regional(lane) * lane.len() as f64).sum::<Tensor>() / slots.len() as f64
            }
        };
        let hard = data.valid(Set::HardText);
        let texts = of_slots(Set::HardText, self.set(Set::HardText), &hard).view([-1, i64::from(HARD_TEXTS), D]);
        let items = of_slots(Set::Region, self.set(Set::Region), &hard).unsqueeze(2);
        let z = texts.matmul(&items).squeeze_dim(2) * self.scale(Temperature::Hard);
        let labels = Tensor::zeros([hard.len() as i64], (Dtype::Int64, Device::Cpu));
        let hard = z.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
        let captions = |set| self.contrast((image, self.set(set)), Temperature::Global);
        [captions(Set::LongText), captions(Set::ShortText), region, hard]
    }
}

#[test]
fn fgclip_is_its_formula() {
    let data = Data::ragged();
    for region in [RegionLoss::Global, RegionLoss::Lane] {
        let spec = loss(region);
        let formula = Formula::new();
        let [long, short, regional, hard] = formula.terms(&data, region);
        let total = &long + &short + &regional * 0.1 + &hard * 0.5;
        total.backward();
        let got = alone(&data, &spec);
        let told = got.tell().unwrap();
        for (name, want) in [("long", &long), ("short", &short), ("region", &regional), ("hard", &hard)] {
            let (got, want) = (told.of(name).unwrap().loss, want.double_value(&[]));
            assert!((got - want).abs() <= 1e-5 * want.abs().max(0.1), "{region:?} {name}: {got} {want}");
        }
        assert!((told.total - total.double_value(&[])).abs() <= 1e-5 * told.total);
        assert_eq!(told.of("region").unwrap().pairs, data.valid(Set::Region).len() as i64);
        assert_eq!(told.of("hard").unwrap().pairs, data.valid(Set::HardText).len() as i64);
        for set in Set::ALL.into_iter().filter(|set| needs(&spec).has(*set)) {
            let want = of_slots(set, &formula.set(set).grad(), &data.valid(set));
            let gap = (got.grads.of(set).unwrap().to_kind(Dtype::Double) - &want).abs().max().double_value(&[]);
            assert!(gap <= 2e-5 * want.abs().max().double_value(&[]), "{region:?} {set:?}: {gap}");
        }
        for t in Temperature::ALL {
            let want = formula.scales[t as usize].grad().double_value(&[]);
            let got = got.grad_temperature(t).unwrap().sum(Dtype::Double).double_value(&[]);
            assert!((got - want).abs() <= 2e-5 * want.abs().max(0.1), "{region:?} {t:?}: {got} {want}");
        }
    }
}

/// The first two of three ranks have no region at all.
#[test]
fn regions_do_not_know_the_world_size() {
    for region in [RegionLoss::Global, RegionLoss::Lane] {
        let (data, spec) = (Data::ragged(), loss(region));
        let objective = Objective::new(&needs(&spec), &spec).with_tile(Tile::new(4, 8));
        let whole = alone(&data, &spec);
        for cuts in [vec![0, 6, 12], vec![0, 2, 4, 12], vec![0, 4, 6, 10, 12]] {
            let ranks = split(&objective, (ROWS, scales()), |rows| leaves(&data, &spec, rows), &cuts);
            assert_ranks_are(&ranks, &whole, &format!("{region:?} {cuts:?}"));
        }
    }
}

#[test]
fn a_batch_without_regions_is_finite_and_still_sends_gradients() {
    for region in [RegionLoss::Global, RegionLoss::Lane] {
        let got = alone(&Data::none(), &loss(region));
        let told = got.tell().unwrap();
        for name in ["region", "hard"] {
            let term = told.of(name).unwrap();
            assert_eq!((term.loss, term.pairs), (0.0, 0));
        }
        assert!(told.total.is_finite());
        for set in [Set::Region, Set::RegionText, Set::HardText] {
            assert_eq!(got.grads.of(set).unwrap().size(), [0, D], "{set:?}");
        }
        assert!(got.grad_temperature(Temperature::Hard).is_none());
    }
}
