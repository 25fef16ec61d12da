//! The towers' pieces: short cuts against the long way, the mask's path, texts that are cut, padded or refused. Held
//! against transformers in `tests/goldens/clip.rs`.

mod text;
mod vision;

use tch::{Kind, Tensor};

use crate::params::Params;

fn close(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// The smallest cosine of corresponding rows, which are unit vectors.
fn worst_cosine(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float).min().double_value(&[])
}

/// Every parameter has an fp32 gradient, and one that is not zero, but for the biases of keys: they add the same number
/// to all that a query is compared with, and the softmax takes it out again.
fn check_gradients(params: &Params) {
    for p in params.iter() {
        let grad = p.tensor().grad();
        assert!(grad.defined(), "{} got no gradient", p.name());
        assert_eq!(grad.kind(), Kind::Float);
        let matters = !p.name().ends_with("k_proj.bias");
        assert!(!matters || grad.abs().max().double_value(&[]) > 0.0, "{} got a zero gradient", p.name());
    }
}
