//! Parameters: determinism of the start, files, import rules.

use tch::{Device, Tensor};

use super::file::{read_tensors, save_tensors};
use super::*;
use crate::testing::hash_fill;

fn small() -> Params {
    let mut params = Params::new(Device::Cpu);
    params.push("visual.blocks.0.attn.q_proj.weight", &hash_fill("a", &[4, 4], 1.0), true);
    params.push("visual.blocks.0.attn.q_proj.bias", &hash_fill("b", &[4], 1.0), true);
    params.push("visual.pos_embed", &hash_fill("p", &[1, 17, 4], 1.0), true);
    params.push("frozen", &hash_fill("c", &[3], 1.0), false);
    params
}

#[test]
fn a_start_is_a_function_of_seed_name_and_index() {
    let init = Init::Normal { std: 0.02 };
    let long = init::draw(7, "visual.head.weight", 300_000, init);
    // A shorter draw takes another number of threads and must be a prefix.
    assert_eq!(init::draw(7, "visual.head.weight", 1_000, init), long[..1_000]);
    assert_ne!(init::draw(8, "visual.head.weight", 1_000, init), long[..1_000]);
    assert_ne!(init::draw(7, "visual.head.bias", 1_000, init), long[..1_000]);
    let mean = long.iter().map(|&v| f64::from(v)).sum::<f64>() / 3e5;
    let var = long.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 3e5;
    let fourth = long.iter().map(|&v| f64::from(v).powi(4)).sum::<f64>() / 3e5;
    assert!(mean.abs() < 2e-4, "mean {mean}");
    assert!((var.sqrt() - 0.02).abs() < 2e-4, "std {}", var.sqrt());
    assert!((fourth / (var * var) - 3.0).abs() < 0.1, "kurtosis {}", fourth / (var * var));
    let uniform = init::draw(7, "u", 10_000, Init::Uniform { bound: 0.5 });
    assert!(uniform.iter().all(|v| v.abs() < 0.5) && uniform.iter().any(|v| v.abs() > 0.49));
}

#[test]
fn waves_are_alike_where_they_are_near_and_as_large_as_said() {
    let (grid, width) = (6, 256);
    let table =
        Tensor::from_slice(&init::draw(7, "p", 37 * width, Init::Waves { std: 0.5, grid })).view([37, width as i64]);
    let cells = table.narrow(0, 1, 36);
    assert!((cells.std(true).double_value(&[]) - 0.5).abs() < 0.02);
    assert!((table.get(0).std(true).double_value(&[]) - 0.5).abs() < 0.05);
    let alike = |a: i64, b: i64| Tensor::cosine_similarity(&cells.get(a), &cells.get(b), 0, 1e-8).double_value(&[]);
    // Its neighbours to the right and below, the far ends of its row and of its column.
    assert!(alike(0, 1) > 0.8 && alike(0, 6) > 0.8, "{} {}", alike(0, 1), alike(0, 6));
    assert!(alike(0, 5) < 0.5 && alike(0, 30) < 0.5, "{} {}", alike(0, 5), alike(0, 30));
}

#[test]
fn save_and_load_round_trip_bit_for_bit() {
    let params = small();
    let mut other = small();
    for p in params.iter() {
        other.set(p.name(), &p.tensor().zeros_like()).unwrap();
    }
    let report = other.load_bytes(&params.save_bytes().unwrap(), "x", &LoadOptions::default()).unwrap();
    assert_eq!(report, LoadReport { loaded: 4, ..LoadReport::default() });
    for (a, b) in params.iter().zip(other.iter()) {
        assert_eq!(a.tensor(), b.tensor(), "{}", a.name());
        assert_eq!(a.trainable(), b.trainable());
    }
}

#[test]
fn a_foreign_file_is_reported_and_renamed() {
    let mut params = small();
    let bias = hash_fill("other", &[4], 1.0);
    let rope = hash_fill("rope", &[2, 2], 1.0);
    let extra = hash_fill("extra", &[2], 1.0);
    let tensors = [
        ("visual.blocks.0.attn.q_bias", &bias),
        ("visual.rope.freqs_cos", &rope),
        ("l2v.model.layers.0.x", &rope),
        ("visual.unknown", &extra),
    ];
    let bytes = save_tensors(tensors.into_iter()).unwrap();
    let report = params.load_bytes(&bytes, "eva.safetensors", &LoadOptions::default()).unwrap();
    assert_eq!(report.loaded, 1);
    assert_eq!(report.unexpected, ["visual.unknown"]);
    assert_eq!(report.missing, ["frozen", "visual.blocks.0.attn.q_proj.weight", "visual.pos_embed"]);
    assert_eq!(params.get("visual.blocks.0.attn.q_proj.bias").unwrap(), &bias);
}

#[test]
fn a_wrong_shape_names_the_parameter_and_the_file() {
    let mut params = small();
    let bytes = save_tensors([("frozen", &hash_fill("x", &[5], 1.0))].into_iter()).unwrap();
    let error = params.load_bytes(&bytes, "w.safetensors", &LoadOptions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`frozen` in w.safetensors has shape [5], the model has [3]: the file belongs to another preset"
    );
    let bytes = save_tensors([("foo", &hash_fill("x", &[5], 1.0))].into_iter()).unwrap();
    let error = params.load_bytes(&bytes, "w.safetensors", &LoadOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("w.safetensors holds none of the model's 4 parameters"), "{error}");
    let error = params.load_bytes(b"not a file", "w.safetensors", &LoadOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "w.safetensors is not a readable safetensors file");
}

#[test]
fn positions_of_another_grid_are_resized() {
    let mut params = small();
    // A linear ramp stays a linear ramp under bicubic resize, away from the border.
    let ramp = Tensor::arange(64, (tch::Kind::Float, Device::Cpu)).reshape([64, 1]).repeat([1, 4]);
    let positions = Tensor::cat(&[Tensor::full([1, 4], 9.0, (tch::Kind::Float, Device::Cpu)), ramp], 0).unsqueeze(0);
    let bytes = save_tensors([("visual.pos_embed", &positions)].into_iter()).unwrap();
    let report = params.load_bytes(&bytes, "x", &LoadOptions::default()).unwrap();
    assert_eq!(report.resized, ["visual.pos_embed"]);
    let got = params.get("visual.pos_embed").unwrap();
    assert_eq!(got.double_value(&[0, 0, 0]), 9.0);
    // Cell (1, 1) of a 4 x 4 grid over 8 x 8 is centred on (2.5, 2.5): 2.5 * 8 + 2.5.
    assert!((got.double_value(&[0, 1 + 4 + 1, 0]) - 22.5).abs() < 0.3);
}

#[test]
fn an_ema_moves_by_its_decay_and_copies_are_apart() {
    let params = small();
    let mut teacher = params.detached_copy();
    assert!(teacher.trainable().next().is_none());
    let mut moved = small();
    moved.set("frozen", &Tensor::from_slice(&[1f32, 1.0, 1.0])).unwrap();
    teacher.set("frozen", &Tensor::from_slice(&[0f32, 0.0, 0.0])).unwrap();
    teacher.ema_update(&moved, 0.9).unwrap();
    assert!((teacher.get("frozen").unwrap().double_value(&[0]) - 0.1).abs() < 1e-6);
    assert_eq!(params.get("frozen").unwrap(), &hash_fill("c", &[3], 1.0));
    let error = teacher.ema_update(&Params::new(Device::Cpu), 0.9).unwrap_err();
    assert_eq!(error.to_string(), "parameter sets differ: 4 against 0 parameters");
}

#[test]
fn half_precision_files_are_read_as_fp32() {
    let t = hash_fill("x", &[5], 1.0).to_kind(tch::Kind::BFloat16);
    let bytes = save_tensors([("t", &t)].into_iter()).unwrap();
    let back = read_tensors(&bytes, "x").unwrap();
    assert_eq!(back["t"], t.to_kind(tch::Kind::Float));
}
