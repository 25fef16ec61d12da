//! Rotary position embedding (Su et al. 2021) with the scalings of Llama 3.1 and of Gemma 3, halves apart as the
//! published weights want it: dimension i turns with dimension i + d/2.

use tch::{Device, Kind, Tensor};

/// How fast positions turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rope {
    /// The base: pair i of d/2 turns by `theta^(-2i/d)` a position.
    pub(crate) theta: f64,
    pub(crate) scaling: Scaling,
}

/// What stretches the angles to texts longer than those of the first training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// All angles divided by a factor (Chen et al. 2023).
    Linear {
        factor: f64,
    },
    /// Slow pairs divided by the factor, fast ones left alone, those between in between (Llama 3.1's `rope_type` "llama3",
    /// as transformers computes it).
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

impl Rope {
    /// The d/2 angles a position.
    fn frequencies(self, dim: i64) -> Vec<f64> {
        let scaled = |i: i64| {
            let f = self.theta.powf(-2.0 * i as f64 / dim as f64);
            match self.scaling {
                Scaling::None => f,
                Scaling::Linear { factor } => f / factor,
                Scaling::Llama3 { factor, low, high, original } => {
                    // How often the pair turns within the original context.
                    let turns = original * f / std::f64::consts::TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - kept) * f / factor + kept * f
                }
            }
        };
        (0..dim / 2).map(scaled).collect()
    }

    /// Cosines and sines for positions below `length`, each [length, dim] fp32, both halves alike.
    pub(crate) fn tables(self, length: i64, dim: i64, device: Device) -> (Tensor, Tensor) {
        let angles = Tensor::arange(length, (Kind::Double, device)).unsqueeze(1)
            * Tensor::from_slice(&self.frequencies(dim)).to_device(device);
        let angles = Tensor::cat(&[&angles, &angles], 1);
        (angles.cos().to_kind(Kind::Float), angles.sin().to_kind(Kind::Float))
    }
}

/// Turns `x` [n, heads, T, dim], fp32, by tables of at least T positions.
pub(crate) fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Tensor {
    let length = x.size()[2];
    let halves = x.chunk(2, -1);
    let across = Tensor::cat(&[&halves[1].neg(), &halves[0]], -1);
    (x * cos.narrow(0, 0, length)).addcmul(&across, &sin.narrow(0, 0, length))
}
