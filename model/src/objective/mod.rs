//! The objective: from the own rows' features to the losses of the global batch and the gradients of the own rows.
//!
//! Two gathers a step, whatever the data: the features that need global columns (packed with the validity flags into
//! one matrix), then the log-sum-exps and per-slot losses (packed into another). Between and after them each rank
//! computes its own rows only. Every reported number is a sum over gathered slots in global order, in f64: all ranks
//! report the same bits, and so does any other number of ranks.

mod exchange;
mod leaves;
mod pack;
mod pairs;
mod step;

#[cfg(test)]
mod tests;

pub use exchange::{Alone, Exchange};
pub use leaves::{Leaves, SetGrads};

use pixfleet_cluster::spec::terms::{Temperature, Term};
use pixfleet_cluster::spec::{LossSpec, Needs};
use tch::{Kind, Tensor};

use crate::ModelError;
use crate::host::read;
use crate::loss::Tile;
use pack::Packed;
use step::Step;

/// The values of the temperatures' parameters, ln s; those that a run does not have are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scales([f64; Temperature::ALL.len()]);

impl Scales {
    /// With a value for `temperature`.
    #[must_use]
    pub fn with(mut self, temperature: Temperature, ln_scale: f64) -> Self {
        self.0[temperature as usize] = ln_scale;
        self
    }

    /// That of `temperature`.
    #[must_use]
    pub fn of(&self, temperature: Temperature) -> f64 {
        self.0[temperature as usize]
    }
}

/// What one term came to in the global batch.
#[derive(Debug, Clone, PartialEq)]
pub struct TermLoss {
    /// The term's name.
    pub name: &'static str,
    /// Its mean, before its coefficient; 0 over no pair.
    pub loss: f64,
    /// The slots that it was over.
    pub pairs: i64,
    /// Share of pairs whose own partner was the nearest: of a contrast from the first set to the second and back, of
    /// hard negatives how often the true text.
    pub hits: Vec<f64>,
}

/// The losses of a step in numbers, the same on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// By term, in the order of the terms.
    pub terms: Vec<TermLoss>,
    /// Sum of the terms, each times its coefficient.
    pub total: f64,
}

/// What a step's losses come to, still on the device: the same on every rank but for the gradients, which are of the own
/// rows.
#[derive(Debug)]
pub struct StepLoss {
    /// dL/dfeature of the own items.
    pub grads: SetGrads,
    /// Rows of this rank.
    own_rows: i64,
    grad_temperatures: [Option<Tensor>; Temperature::ALL.len()],
    terms: Vec<(Term, i64)>,
    /// Each term's loss and hits, [] f64.
    means: Vec<Vec<Tensor>>,
}

impl StepLoss {
    fn of(own_rows: i64) -> Self {
        let grad_temperatures = std::array::from_fn(|_| None);
        Self { grads: SetGrads::default(), own_rows, grad_temperatures, terms: Vec::new(), means: Vec::new() }
    }

    /// Each own row's share of dL/d(parameter of `temperature`), `[n_own]` f64; `None` if no term moved it. The shares of all
    /// rows sum to the whole.
    #[must_use]
    pub fn grad_temperature(&self, temperature: Temperature) -> Option<&Tensor> {
        self.grad_temperatures[temperature as usize].as_ref()
    }

    /// Rows of this rank.
    #[must_use]
    pub fn own_rows(&self) -> i64 {
        self.own_rows
    }

    /// What [`Self::told`] reads, [numbers] f64: to be read together with whatever else a step tells.
    ///
    /// # Errors
    /// [`ModelError::Torch`].
    pub fn numbers(&self) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_stack(&self.means.iter().flatten().collect::<Vec<_>>(), 0)?)
    }

    /// The losses, from the values of [`Self::numbers`].
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] when a loss is NaN or infinite: on every rank alike.
    pub fn told(&self, numbers: &[f64]) -> Result<Told, ModelError> {
        let mut told = Told { terms: Vec::new(), total: 0.0 };
        let mut rest = numbers;
        for ((term, pairs), means) in self.terms.iter().zip(&self.means) {
            let (own, behind) = rest.split_at(means.len());
            rest = behind;
            let (loss, hits) = (own[0], own[1..].to_vec());
            if !loss.is_finite() {
                return Err(ModelError::NotFinite { term: term.name, loss });
            }
            told.terms.push(TermLoss { name: term.name, loss, pairs: *pairs, hits });
            told.total += term.coefficient * loss;
        }
        Ok(told)
    }

    /// The losses, read at once.
    ///
    /// # Errors
    /// As [`Self::told`], and [`ModelError::Torch`].
    pub fn tell(&self) -> Result<Told, ModelError> {
        self.told(&read(&self.numbers()?)?)
    }

    fn note(&mut self, term: &Term, pairs: i64, means: Vec<Tensor>) {
        self.terms.push((*term, pairs));
        self.means.push(means);
    }

    fn add_temperature(&mut self, temperature: Temperature, shares: Tensor) -> Result<(), ModelError> {
        match &mut self.grad_temperatures[temperature as usize] {
            Some(sum) => {
                let _ = sum.f_add_(&shares)?;
            }
            empty => *empty = Some(shares),
        }
        Ok(())
    }
}

impl Told {
    /// The loss of a term by name.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&TermLoss> {
        self.terms.iter().find(|t| t.name == name)
    }
}

/// The terms of a `[loss]` section, assembled.
#[derive(Debug, Clone)]
pub struct Objective {
    terms: Vec<Term>,
    smoothing: f64,
    tile: Option<Tile>,
    gathered: Kind,
}

impl Objective {
    /// The objective of a run.
    #[must_use]
    pub fn new(needs: &Needs, loss: &LossSpec) -> Self {
        Self { terms: needs.terms().to_vec(), smoothing: loss.label_smoothing, tile: None, gathered: Kind::Float }
    }

    /// The same with features gathered as `dtype`, fp32 or bf16: half the bytes and memory of the gathered matrix. Sums
    /// and gradients are fp32 either way.
    #[must_use]
    pub fn with_gathered(mut self, dtype: Kind) -> Self {
        self.gathered = dtype;
        self
    }

    /// The same with another tile than the device's own.
    #[must_use]
    pub fn with_tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// The losses of the global batch and the gradients on the own rows.
    ///
    /// # Errors
    /// [`ModelError::MissingInput`] and [`ModelError::Shape`] for leaves that do not fit, before any gather; the exchange's
    /// own.
    pub fn step_losses<X: Exchange + ?Sized>(
        &self,
        leaves: &Leaves,
        scales: Scales,
        exchange: &mut X,
    ) -> Result<StepLoss, X::Error> {
        let own = exchange.own_rows();
        let packed = Packed::new(&self.terms, leaves, &own, (self.gathered, &exchange.aside()))?;
        let gathered = exchange.all_gather_rows(packed.matrix())?;
        let (batch, aside) = packed.unpack(gathered, own, exchange.total_rows())?;
        exchange.heard(&aside);

        let tile = self.tile.unwrap_or_else(|| Tile::for_device(batch.device()));
        let step = Step::new(&self.terms, leaves, &batch, (scales, self.smoothing, tile))?;
        let rows = exchange.all_gather_rows(&step.first_half()?)?;
        Ok(step.second_half(&rows)?)
    }
}
