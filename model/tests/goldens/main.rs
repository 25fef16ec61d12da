//! The towers against other libraries: golden files in `tests/golden/`, each written by the script of the same name
//! that lies beside it. Weights and inputs are filled from their names on both sides.

#![allow(clippy::print_stdout, reason = "errors against the goldens are worth reading")]

mod clip;
mod eva02;
mod minilm;
mod roi_align;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pixfleet_model::params::read_tensors;
use pixfleet_model::testing::hash_fill;
use tch::Tensor;

/// A file of `tests/golden/`.
fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str) -> HashMap<String, Tensor> {
    let bytes = std::fs::read(golden_path(name)).expect("golden files are part of the tree");
    read_tensors(&bytes, name).expect("a golden file is safetensors")
}

/// The largest absolute difference.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// `parameter_fill` of golden/common.py.
fn parameter_fill(name: &str, shape: &[i64]) -> Tensor {
    let fan_in: i64 = shape.iter().skip(1).product();
    match (name.ends_with(".weight"), shape.len() >= 2) {
        (true, true) => hash_fill(name, shape, 1.7 / (fan_in as f64).sqrt()),
        (true, false) => hash_fill(name, shape, 0.2) + 1.0,
        _ => hash_fill(name, shape, 0.2),
    }
}
