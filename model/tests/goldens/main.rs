//! The towers against other libraries: golden files in `tests/golden/`, each written by the script of the same name
//! that lies beside it. Weights and inputs are filled from their names on both sides.

#![allow(clippy::print_stdout, reason = "errors against the goldens are worth reading")]

mod eva02;
mod minilm;
mod roi_align;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pixfleet_model::params::read_tensors;
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
