//! What FG-CLIP's probe reads and says.

use super::fgclip::{needs, probe, read};
use super::*;
use crate::weights::Preset;
use pixfleet_cluster::spec::TextProjSpec;
use pixfleet_model::testing::hash_fill;
use std::collections::HashMap;

const N: i64 = 3;
/// The middle row has no region, the last no negatives.
const BOXES: [i64; 3] = [2, 0, 4];
const HARD: [i64; 3] = [2, 0, 0];
const END: i64 = 49_407;

fn tiny() -> Model {
    let (spec, _) = Preset::Fgclip1Tiny.model(TextProjSpec::default());
    Model::build(&spec, &needs(&loss()), 3, Device::Cpu)
}

fn loss() -> LossSpec {
    LossSpec::preset(LossPreset::Fgclip1Stage2)
}

/// Token ids [rows, length]: a text of a few made-up words in each row; long ones reach beyond the 20 positions that stay
/// as they were.
fn ids(name: &str, rows: i64, length: i64) -> Tensor {
    let words = hash_fill(name, &[rows, length], 20_000.0).abs().to_kind(Kind::Int64) + 300;
    for row in 0..rows {
        let _ = words.get(row).get(0).fill_(49_406);
        let end = if length > 77 { 40 + row } else { 4 + row % 9 };
        let _ = words.get(row).narrow(0, end, length - end).fill_(END);
    }
    words
}

fn given() -> HashMap<&'static str, Tensor> {
    let boxes = |name: &str| {
        let corner = hash_fill(name, &[N, 4, 2], 0.2) + 0.2;
        Tensor::cat(&[&corner, &(&corner + 0.4)], 2)
    };
    HashMap::from([
        ("pixels", hash_fill("pixels", &[N, 3, 96, 96], 1.0)),
        ("text_long", ids("long", N, 248)),
        ("text_short", ids("short", N, 77)),
        ("boxes", boxes("boxes")),
        ("box_counts", Tensor::from_slice(&BOXES)),
        ("text_region", ids("region", 4 * N, 77)),
        ("hard_boxes", boxes("hard")),
        ("hard_counts", Tensor::from_slice(&HARD)),
        ("text_hard", ids("negatives", 11 * HARD.iter().sum::<i64>(), 77)),
    ])
}

fn bytes(given: &HashMap<&'static str, Tensor>) -> Vec<u8> {
    save_tensors(given.iter().map(|(name, t)| (*name, t))).expect("saves")
}

fn run(model: &mut Model, given: &HashMap<&'static str, Tensor>) -> HashMap<String, Tensor> {
    let inputs = read(&bytes(given), "in", 96).expect("good tensors");
    probe(model, &inputs, (&needs(&loss()), &loss())).expect("a probe").into_iter().collect()
}

#[test]
fn the_total_is_the_weighted_sum_over_what_counts() {
    let mut model = tiny();
    let out = run(&mut model, &given());
    let loss = |name: &str| out[&format!("loss.{name}")].double_value(&[]);
    let sum = loss("long") + loss("short") + 0.1 * loss("region") + 0.5 * loss("hard");
    assert!(loss("hard") > 0.0 && (loss("total") - sum).abs() < 1e-5, "{} is not {sum}", loss("total"));
    for (name, rows) in [("image", N), ("text_long", N), ("text_short", N), ("region", 6)] {
        let features = &out[&format!("{name}_features")];
        assert_eq!(features.size(), [rows, 256], "{name}");
        let norms: Tensor = features.norm_scalaropt_dim(2.0, [1i64], false) - 1.0;
        assert!(norms.abs().max().double_value(&[]) < 1e-5);
    }
    for p in model.params.iter() {
        let grad = &out[&format!("grad.{}", p.name())];
        assert_eq!(grad.size(), p.tensor().size(), "{}", p.name());
        assert!(grad.abs().max().double_value(&[]) > 0.0, "{} got no gradient", p.name());
    }
}

/// What does not count is not looked at, and a batch without any region is one of captions alone.
#[test]
fn boxes_beyond_the_counts_and_missing_regions_change_nothing() {
    let base = run(&mut tiny(), &given());
    let mut other = given();
    let boxes = other["boxes"].copy();
    let _ = boxes.get(0).narrow(0, 2, 2).fill_(f64::NAN);
    other.insert("boxes", boxes);
    assert_eq!(run(&mut tiny(), &other)["loss.total"], base["loss.total"]);
    other.insert("box_counts", Tensor::zeros([N], tch::kind::INT64_CPU));
    other.insert("hard_counts", Tensor::zeros([N], tch::kind::INT64_CPU));
    other.remove("text_hard");
    let bare = run(&mut tiny(), &other);
    let loss = |name: &str| bare[&format!("loss.{name}")].double_value(&[]);
    assert_eq!((loss("region"), loss("hard")), (0.0, 0.0));
    assert!((loss("total") - loss("long") - loss("short")).abs() < 1e-5);
    assert_eq!(bare["loss.long"], base["loss.long"]);
    assert!(bare.iter().all(|(name, t)| t.isfinite().all().int64_value(&[]) == 1 || panic!("{name}")));
}

#[test]
fn gradients_are_slopes_of_the_total() {
    let names = [
        ("logit_scale_finegraind", 0),
        ("logit_scale_hardneg", 0),
        ("visual_projection.weight", 17),
        ("text_filip_projection.weight", 5),
        ("text_model.embeddings.position_embedding_res.weight", 128 * 21 + 3),
    ];
    let base = run(&mut tiny(), &given());
    for (name, index) in names {
        let analytic = base[&format!("grad.{name}")].flatten(0, -1).double_value(&[index]);
        let at = |by: f64| {
            let mut model = tiny();
            let values = model.params.get(name).expect("is there").detach().copy();
            let flat = values.flatten(0, -1);
            let _ = flat.get(index).fill_(flat.double_value(&[index]) + by);
            model.params.set(name, &flat.reshape(values.size())).expect("fits");
            run(&mut model, &given())["loss.total"].double_value(&[])
        };
        let numeric = (at(2e-2) - at(-2e-2)) / 4e-2;
        assert!((numeric - analytic).abs() < 3e-4 + 0.03 * analytic.abs(), "{name}: {numeric} and {analytic}");
    }
}

#[test]
fn what_is_wrong_with_the_tensors_is_named() {
    let said = |change: &dyn Fn(&mut HashMap<&'static str, Tensor>)| {
        let mut tensors = given();
        change(&mut tensors);
        read(&bytes(&tensors), "in", 96).expect_err("bad").to_string()
    };
    assert_eq!(said(&|t| drop(t.remove("text_long"))), "in: tensor `text_long` is missing; expected shape [3, N]");
    assert!(said(&|t| drop(t.insert("masks", Tensor::from(1f32)))).starts_with("in: unknown tensor `masks`; expected"));
    let five = Tensor::from_slice(&[5i64, 0, 0]);
    assert_eq!(said(&|t| drop(t.insert("box_counts", five.copy()))), "in: `box_counts` row 0 is 5; expected 0 to 4");
    let shape = said(&|t| drop(t.insert("text_hard", ids("x", 7, 77))));
    assert_eq!(shape, "in: tensor `text_hard` has shape [7, 77]; expected [22, N]");
    let endless = said(&|t| drop(t.insert("text_short", Tensor::zeros([3, 77], tch::kind::INT64_CPU))));
    assert_eq!(endless, "in: `text_short` row 0 has no end, the id 49407");
    let outside = said(&|t| drop(t.insert("boxes", hash_fill("b", &[3, 4, 4], 9.0))));
    assert!(outside.starts_with("in: `boxes` row 0, box 0 is ["), "{outside}");
}
