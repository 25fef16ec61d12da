//! How parameters start: each value is a pure function of (seed, parameter name, index). There is no generator
//! state, so the start is the same on every rank and for any order or number of threads.

use pixfleet_cluster::rng::{Use, key, mix};
use tch::Tensor;

use super::{ParamGroup, ParamId, Params, Role};
use crate::testing::fnv1a64;

/// The start of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// One value.
    Constant(f64),
    /// Normal(0, std). The original truncates at the absolute values +-2, 100 standard deviations at std 0.02: never.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in +-bound. PyTorch's default for convolutions and linears has bound `1 / sqrt(fan_in)`.
    Uniform {
        /// Half the width.
        bound: f64,
    },
    /// A position table, [1 + grid * grid, width], whose neighbours are alike: every column is a triangle wave over the
    /// picture with a direction, a length and a phase of its own, variance std^2; row 0, the class token's, is
    /// Normal(0, std). Random Fourier features (Rahimi and Recht, 2007) with arithmetic in place of the cosine, so that the
    /// result does not depend on the system's libm.
    Waves {
        /// Standard deviation.
        std: f64,
        /// Cells along a side of the picture.
        grid: u32,
    },
}

/// Standard deviation of the number of a wave's periods from one side of the picture to the other.
const PERIODS: f64 = 0.5;

/// Registers parameters under a common prefix.
#[derive(Debug)]
pub struct Builder<'p> {
    params: &'p mut Params,
    seed: u64,
    prefix: String,
    group: ParamGroup,
}

impl<'p> Builder<'p> {
    /// A builder at the root of the names.
    pub fn new(params: &'p mut Params, seed: u64) -> Self {
        Self { params, seed, prefix: String::new(), group: ParamGroup::Vision { above: 0 } }
    }

    /// The builder of the names below `name`.
    pub fn below(&mut self, name: &str) -> Builder<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        Builder { params: self.params, seed: self.seed, prefix, group: self.group }
    }

    /// The same place for parameters of `group`.
    pub fn of(&mut self, group: ParamGroup) -> Builder<'_> {
        Builder { params: self.params, seed: self.seed, prefix: self.prefix.clone(), group }
    }

    /// Appends the parameter `name` of `shape`; weight decay acts where it has more than one dimension.
    pub fn param(&mut self, name: &str, shape: &[i64], init: Init) -> ParamId {
        self.register(name, shape, init, Role::plain(self.group, shape))
    }

    /// Appends a parameter of which is told whether weight decay acts on it.
    pub fn param_that(&mut self, decays: bool, name: &str, shape: &[i64], init: Init) -> ParamId {
        self.register(name, shape, init, Role { group: self.group, decays })
    }

    fn register(&mut self, name: &str, shape: &[i64], init: Init, role: Role) -> ParamId {
        let name = format!("{}{name}", self.prefix);
        let count = usize::try_from(shape.iter().product::<i64>()).expect("a shape has no negative sides");
        let values = draw(self.seed, &name, count, init);
        self.params.register(&name, &Tensor::from_slice(&values).reshape(shape), true, role)
    }

    /// Appends the parameter `name`, whose start is made from that of `source` on the CPU: so it is a function of
    /// (seed, name, index) too, of the source's name.
    pub(crate) fn derived(&mut self, name: &str, source: ParamId, start: impl Fn(&Tensor) -> Tensor) -> ParamId {
        let name = format!("{}{name}", self.prefix);
        let values = start(&self.params.tensor(source).detach().to_device(tch::Device::Cpu));
        let role = Role::plain(self.group, &values.size());
        self.params.register(&name, &values, true, role)
    }
}

/// The first `count` values of the parameter `name`.
pub(crate) fn draw(seed: u64, name: &str, count: usize, init: Init) -> Vec<f32> {
    let stream = key(&[seed, fnv1a64(name.as_bytes()), Use::Init as u64]);
    match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Constant(c) => vec![c as f32; count],
        Init::Normal { std } => fill(count, |i| (normal(unit(stream, i)) * std) as f32),
        Init::Uniform { bound } => fill(count, |i| ((unit(stream, i) * 2.0 - 1.0) * bound) as f32),
        Init::Waves { std, grid } => waves(stream, count as u64, std, u64::from(grid)),
    }
}

fn waves(stream: u64, count: u64, std: f64, grid: u64) -> Vec<f32> {
    let rows = 1 + grid * grid;
    assert!(count.is_multiple_of(rows), "a table of {rows} positions cannot have {count} values");
    let width = count / rows;
    fill(count as usize, |i| {
        let (row, column) = (i / width, i % width);
        let draw = |which: u64| unit(stream, which * width + column);
        let Some(cell) = row.checked_sub(1) else { return (normal(draw(0)) * std) as f32 };
        let middle = |at: u64| (at as f64 + 0.5) / grid as f64;
        let [x, y] = [cell % grid, cell / grid].map(middle);
        let periods = PERIODS * (normal(draw(1)) * x + normal(draw(2)) * y) + draw(3);
        // Uniform in -1..1 over the phases: variance 1/3.
        let wave = 4.0 * (periods - periods.floor() - 0.5).abs() - 1.0;
        (wave * 3f64.sqrt() * std) as f32
    })
}

/// Values by index, by all cores when there are many.
fn fill(count: usize, value: impl Fn(u64) -> f32 + Sync) -> Vec<f32> {
    const ONE_THREAD: usize = 1 << 16;
    let mut values = vec![0f32; count];
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count / ONE_THREAD + 1);
    let share = count.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (part, chunk) in values.chunks_mut(share).enumerate() {
            let value = &value;
            scope.spawn(move || {
                for (i, v) in chunk.iter_mut().enumerate() {
                    *v = value((part * share + i) as u64);
                }
            });
        }
    });
    values
}

/// Uniform in (0, 1), never an end: the middle of one of 2^32 equal cells.
fn unit(stream: u64, i: u64) -> f64 {
    let bits = mix(stream.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))) >> 32;
    (bits as f64 + 0.5) / (1u64 << 32) as f64
}

/// The standard normal quantile, by PPND7 of Wichura, "Algorithm AS 241: The percentage points of the normal
/// distribution", Applied Statistics 37 (1988); relative error below 1e-7. Only IEEE operations in the middle 85 %;
/// the tails take a logarithm of this file, so that the result does not depend on the system's libm.
fn normal(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        let num = ((59.109_374_72 * r + 159.291_132_02) * r + 50.434_271_938) * r + 3.387_132_717_9;
        let den = ((67.187_563_6 * r + 78.757_757_664) * r + 17.895_169_469) * r + 1.0;
        return q * num / den;
    }
    let r = (-ln(p.min(1.0 - p))).sqrt();
    let z = if r <= 5.0 {
        let r = r - 1.6;
        let num = ((0.170_238_211_03 * r + 1.306_728_481_6) * r + 2.756_815_39) * r + 1.423_437_277_7;
        num / ((0.120_211_329_75 * r + 0.737_001_642_5) * r + 1.0)
    } else {
        let r = r - 5.0;
        let num = ((0.017_337_203_997 * r + 0.428_682_943_37) * r + 3.081_226_386) * r + 6.657_905_115;
        num / ((0.012_258_202_635 * r + 0.241_978_942_25) * r + 1.0)
    };
    if q < 0.0 { -z } else { z }
}

/// Natural logarithm of a normal positive number, to about 1e-13: exponent and the series of 2 artanh((m-1)/(m+1)).
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) as i64 - 1023) as f64;
    let mut mantissa = f64::from_bits((bits & 0x000F_FFFF_FFFF_FFFF) | 0x3FF0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let mut sum = 0.0;
    for k in (0..9).rev() {
        sum = sum * s2 + 1.0 / f64::from(2 * k + 1);
    }
    exponent * std::f64::consts::LN_2 + 2.0 * s * sum
}

#[cfg(test)]
mod maths {
    use super::*;

    #[test]
    fn logarithm_and_quantile_agree_with_known_values() {
        for x in [1e-9, 0.01, 0.5, 0.7, 1.0, 1.5, 3.0, 1e12] {
            assert!((ln(x) - f64::ln(x)).abs() < 1e-9, "ln {x}: {}", ln(x));
        }
        // Python: statistics.NormalDist().inv_cdf(p)
        let known = [
            (0.5, 0.0),
            (0.975, 1.959_963_984_5),
            (0.01, -2.326_347_874),
            (0.8, 0.841_621_233_6),
            (1e-9, -5.997_807_015),
            (1e-14, -7.650_628_093),
        ];
        for (p, z) in known {
            assert!((normal(p) - z).abs() < 2e-6, "quantile {p}: {} against {z}", normal(p));
        }
    }
}
