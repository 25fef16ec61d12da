//! The surrogate's backward against one autograd graph through towers and loss.

use pixfleet_cluster::spec::{LossPreset, LossSpec};
use tch::{Device, Kind, Reduction, Tensor};

use super::*;
use crate::objective::{Alone, ThreeBranch};
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
        Features {
            image: image("pixels"),
            crop: Some(image("crops")),
            text: normalized(&input("texts", 7).matmul(&self.text)),
            roi: Some(image("regions")),
            teacher: None,
        }
    }
}

fn close(got: &Tensor, want: &Tensor) {
    let gap = (got - want).abs().max().double_value(&[]);
    assert!(gap <= 1e-5 * want.abs().max().double_value(&[]), "{got} {want}");
}

/// Lanes of 4, 3 and 5 rows accumulate to the gradient of the whole, times the factor.
#[test]
fn lanes_add_up_to_the_gradient_of_one_graph() {
    let spec = LossSpec::preset(LossPreset::Default);
    let one = towers();
    let f = one.features(0, 12);
    let nce = |a: &Tensor, b: &Tensor| {
        let z = a.matmul(&b.tr()) * one.logit_scale.exp();
        let labels = Tensor::arange(12, (Kind::Int64, Device::Cpu));
        let ce = |z: &Tensor| z.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
        (ce(&z) + ce(&z.tr())) * 0.5
    };
    let (crop, roi) = (f.crop.as_ref().unwrap(), f.roi.as_ref().unwrap());
    let dots = (roi * crop.detach()).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    let taught = dots.mean(Kind::Float) * -1.0 + 1.0;
    let total: Tensor = nce(&f.image, &f.text) + nce(crop, &f.text) + taught;
    total.backward();

    let many = towers();
    let lanes = [many.features(0, 4), many.features(4, 3), many.features(7, 5)];
    let leaves = Leaves::of_lanes(&lanes, vec![true; 12]).unwrap();
    let outcome = ThreeBranch::new(&spec).step_losses(&leaves, 2.0, &mut Alone::new(12)).unwrap();
    let pull = Pull {
        grads: &outcome.grads,
        logit_scale: &many.logit_scale,
        grad_logit_scale: &outcome.grad_logit_scale,
        factor: 3.0,
    };
    let mut seen = Vec::new();
    let before = |lane| {
        seen.push((lane, many.logit_scale.grad().defined()));
        Ok::<(), ModelError>(())
    };
    backward(&lanes, pull, before).unwrap();
    assert_eq!(seen, [(0, false), (1, true), (2, true)], "before each lane, which has a share of every gradient");
    close(&many.image.grad(), &(one.image.grad() * 3.0));
    close(&many.text.grad(), &(one.text.grad() * 3.0));
    close(&many.logit_scale.grad(), &(one.logit_scale.grad() * 3.0));
}

/// A branch without a valid row still reaches the parameters behind it, with zeros.
#[test]
fn a_branch_without_rows_still_sends_gradients() {
    let model = towers();
    let lanes = [model.features(0, 6)];
    let lanes = lanes.map(|f| Features { image: f.image.detach(), roi: Some(f.roi.unwrap().detach()), ..f });
    let leaves = Leaves::of_lanes(&lanes, vec![false; 6]).unwrap();
    let objective = ThreeBranch::new(&LossSpec::preset(LossPreset::TwoCl));
    let outcome = objective.step_losses(&leaves, 2.0, &mut Alone::new(6)).unwrap();
    let none = Tensor::zeros([6], (Kind::Double, Device::Cpu));
    let pull = Pull { grads: &outcome.grads, logit_scale: &model.logit_scale, grad_logit_scale: &none, factor: 1.0 };
    backward(&lanes, pull, |_| Ok::<(), ModelError>(())).unwrap();
    assert_eq!(model.image.grad(), Tensor::zeros([5, 8], (Kind::Float, Device::Cpu)));
    assert_eq!(model.logit_scale.grad(), Tensor::from(0f32));
}

/// Frozen towers and a frozen logit scale are left alone.
#[test]
fn what_does_not_learn_is_left_alone() {
    let mut model = towers();
    model.text = model.text.set_requires_grad(false);
    model.logit_scale = model.logit_scale.set_requires_grad(false);
    let lanes = [model.features(0, 6)];
    let leaves = Leaves::of_lanes(&lanes, vec![true; 6]).unwrap();
    let objective = ThreeBranch::new(&LossSpec::preset(LossPreset::Alphaclip));
    let outcome = objective.step_losses(&leaves, 2.0, &mut Alone::new(6)).unwrap();
    let pull = Pull {
        grads: &outcome.grads,
        logit_scale: &model.logit_scale,
        grad_logit_scale: &outcome.grad_logit_scale,
        factor: 1.0,
    };
    backward(&lanes, pull, |_| Ok::<(), ModelError>(())).unwrap();
    assert!(model.image.grad().defined() && !model.text.grad().defined() && !model.logit_scale.grad().defined());
}

#[test]
fn gradients_of_other_rows_are_refused() {
    let model = towers();
    let lanes = [model.features(0, 6)];
    let leaves = Leaves::of_lanes(&lanes, vec![true; 6]).unwrap();
    let objective = ThreeBranch::new(&LossSpec::preset(LossPreset::Alphaclip));
    let outcome = objective.step_losses(&leaves, 2.0, &mut Alone::new(6)).unwrap();
    let pull = Pull {
        grads: &outcome.grads,
        logit_scale: &model.logit_scale,
        grad_logit_scale: &outcome.grad_logit_scale,
        factor: 1.0,
    };
    let error = backward(&[model.features(0, 5)], pull, |_| Ok::<(), ModelError>(())).unwrap_err();
    assert!(error.to_string().contains("[5, width] for the rows of all lanes, found [6, 8]"), "{error}");
}
