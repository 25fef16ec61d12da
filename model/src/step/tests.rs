//! The surrogate's backward against one autograd graph through towers and loss.

use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, Needs};
use tch::{Device, Kind, Reduction, Tensor};

use super::*;
use crate::items::{BySet, Items, Slots};
use crate::objective::{Alone, Objective, Scales};
use crate::testing::hash_fill;

struct Towers {
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor,
}

fn towers() -> Towers {
    Towers {
        image: hash_fill("wi", &[5, 8], 1.0).set_requires_grad(true),
        text: hash_fill("wt", &[7, 8], 1.0).set_requires_grad(true),
        logit_scale: Tensor::from(2.0f32).set_requires_grad(true),
    }
}

fn normalized(x: &Tensor) -> Tensor {
    x / (x * x).sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt()
}

impl Towers {
    fn features(&self, start: i64, rows: i64) -> Features {
        let input = |name: &str, d| hash_fill(name, &[12, d], 1.0).narrow(0, start, rows);
        let image = |name: &str| normalized(&input(name, 5).matmul(&self.image));
        let whole = |features: Tensor| Items { features, slots: Slots::all(rows, 1) };
        let sets = BySet::default()
            .with(Set::Image, whole(image("pixels")))
            .with(Set::Crop, whole(image("crops")))
            .with(Set::RegionText, whole(normalized(&input("texts", 7).matmul(&self.text))))
            .with(Set::Region, whole(image("regions")));
        Features { rows, sets }
    }

    fn temperatures(&self) -> [(Temperature, &Tensor); 1] {
        [(Temperature::Global, &self.logit_scale)]
    }
}

fn losses(preset: LossPreset, leaves: &Leaves, rows: i64) -> StepLoss {
    let loss = LossSpec::preset(preset);
    let objective = Objective::new(&Needs::of(&loss, &DataSpec::default()), &loss);
    objective.step_losses(leaves, Scales::default().with(Temperature::Global, 2.0), &mut Alone::new(rows)).unwrap()
}

/// Backward of a rank's one lane.
fn alone([lane]: [Features; 1], pull: Pull<'_>) -> Result<(), ModelError> {
    let mut lane = Some(lane);
    backward(pull, |_| Ok::<_, ModelError>(lane.take().expect("one lane")))
}

fn close(got: &Tensor, want: &Tensor) {
    let gap = (got - want).abs().max().double_value(&[]);
    assert!(gap <= 1e-5 * want.abs().max().double_value(&[]), "{got} {want}");
}

/// Lanes of 4, 3 and 5 rows accumulate to the gradient of the whole.
#[test]
fn lanes_add_up_to_the_gradient_of_one_graph() {
    let one = towers();
    let f = one.features(0, 12);
    let nce = |a: &Tensor, b: &Tensor| {
        let z = a.matmul(&b.tr()) * one.logit_scale.exp();
        let labels = Tensor::arange(12, (Kind::Int64, Device::Cpu));
        let ce = |z: &Tensor| z.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
        (ce(&z) + ce(&z.tr())) * 0.5
    };
    let of = |set| f.of(set).unwrap();
    let (image, text, crop) = (of(Set::Image), of(Set::RegionText), of(Set::Crop));
    let dots = (of(Set::Region) * crop.detach()).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    let taught = dots.mean(Kind::Float) * -1.0 + 1.0;
    let total: Tensor = nce(image, text) + nce(crop, text) + taught;
    total.backward();

    let many = towers();
    let lanes = [many.features(0, 4), many.features(4, 3), many.features(7, 5)];
    let leaves = Leaves::of_lanes(&lanes).unwrap();
    let loss = losses(LossPreset::Default, &leaves, 12);
    let temperatures = many.temperatures();
    let pull = Pull { loss: &loss, leaves: &leaves, temperatures: &temperatures };
    let mut seen = Vec::new();
    let mut lanes: Vec<_> = lanes.into_iter().map(Some).collect();
    let graph = |lane: usize| {
        seen.push((lane, many.logit_scale.grad().defined()));
        Ok::<_, ModelError>(lanes[lane].take().expect("once a lane"))
    };
    backward(pull, graph).unwrap();
    assert_eq!(seen, [(0, false), (1, true), (2, true)], "before each lane, which has a share of every gradient");
    close(&many.image.grad(), &one.image.grad());
    close(&many.text.grad(), &one.text.grad());
    close(&many.logit_scale.grad(), &one.logit_scale.grad());
}

/// A set without a valid item still reaches the parameters behind it, with zeros.
#[test]
fn a_set_without_items_still_sends_gradients() {
    let model = towers();
    let lane = model.features(0, 6);
    let crop = lane.of(Set::Crop).unwrap().narrow(0, 0, 0);
    let detached = |set| Items { features: lane.of(set).unwrap().detach(), slots: Slots::all(6, 1) };
    let none = Items { features: crop, slots: Slots::of(6, 1, Vec::new()).unwrap() };
    let sets = BySet::default()
        .with(Set::Image, detached(Set::Image))
        .with(Set::RegionText, detached(Set::RegionText))
        .with(Set::Crop, none);
    let lanes = [Features { rows: 6, sets }];
    let leaves = Leaves::of_lanes(&lanes).unwrap();
    let loss = losses(LossPreset::TwoCl, &leaves, 6);
    let pull = Pull { loss: &loss, leaves: &leaves, temperatures: &[] };
    alone(lanes, pull).unwrap();
    assert_eq!(model.image.grad(), Tensor::zeros([5, 8], (Kind::Float, Device::Cpu)));
}

/// Frozen towers and a frozen logit scale are left alone.
#[test]
fn what_does_not_learn_is_left_alone() {
    let mut model = towers();
    model.text = model.text.set_requires_grad(false);
    model.logit_scale = model.logit_scale.set_requires_grad(false);
    let lanes = [model.features(0, 6)];
    let leaves = Leaves::of_lanes(&lanes).unwrap();
    let loss = losses(LossPreset::Alphaclip, &leaves, 6);
    let temperatures = model.temperatures();
    let pull = Pull { loss: &loss, leaves: &leaves, temperatures: &temperatures };
    alone(lanes, pull).unwrap();
    assert!(model.image.grad().defined() && !model.text.grad().defined() && !model.logit_scale.grad().defined());
}

/// A temperature that no term moved in this step gets a zero.
#[test]
fn a_temperature_without_a_term_gets_a_zero() {
    let model = towers();
    let lanes = [model.features(0, 6)];
    let leaves = Leaves::of_lanes(&lanes).unwrap();
    let loss = losses(LossPreset::Alphaclip, &leaves, 6);
    let hard = Tensor::from(1.0f32).set_requires_grad(true);
    let temperatures = [(Temperature::Hard, &hard)];
    let pull = Pull { loss: &loss, leaves: &leaves, temperatures: &temperatures };
    alone(lanes, pull).unwrap();
    assert_eq!(hard.grad(), Tensor::from(0f32));
}

#[test]
fn gradients_of_other_rows_are_refused() {
    let model = towers();
    let lanes = [model.features(0, 6)];
    let leaves = Leaves::of_lanes(&lanes).unwrap();
    let loss = losses(LossPreset::Alphaclip, &leaves, 6);
    let pull = Pull { loss: &loss, leaves: &leaves, temperatures: &[] };
    let error = alone([model.features(0, 5)], pull).unwrap_err();
    assert_eq!(error.to_string(), "rows of a lane: expected shape 6, as when the losses were taken, found [5]");
}
