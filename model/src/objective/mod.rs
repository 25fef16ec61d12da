//! The objective: from the own rows' features to the losses of the global batch and the gradients of the own rows.
//!
//! Two gathers a step, whatever the data: the features that need global columns (packed with the validity flags into
//! one matrix), then the log-sum-exps and per-row losses (packed into another). Between and after them each rank
//! computes its own rows only. Every reported number is a sum over gathered rows in global order, in f64: all ranks
//! report the same bits, and so does any other number of ranks.

mod exchange;
mod pack;
mod step;
mod term;

#[cfg(test)]
mod tests;

pub use exchange::{Alone, Exchange};
pub use term::{Branch, Kind, Mask, Part, Term, terms};

use pixfleet_cluster::spec::LossSpec;
use tch::Tensor;

use crate::ModelError;
use crate::loss::{InfoNce, Tile};
use pack::Packed;
use step::Step;

/// The own rows' features without a graph, one row per sample, fp32 `[n_own, D]`, L2-normalized. A rank with several
/// lanes hands in their concatenation, in lane order.
#[derive(Debug)]
pub struct Leaves {
    /// By [`Part`]; those that no term uses may be absent.
    parts: [Option<Tensor>; Part::ALL.len()],
    /// Rows whose crop is worth comparing (method.md 2.4: not where the region is most of the image).
    crop_valid: Vec<bool>,
}

impl Leaves {
    /// Leaves of `crop_valid.len()` rows. Graphs are cut here.
    #[must_use]
    pub fn new(crop_valid: Vec<bool>) -> Self {
        Self { parts: Default::default(), crop_valid }
    }

    /// Adds a feature.
    #[must_use]
    pub fn with(mut self, part: Part, feature: &Tensor) -> Self {
        self.parts[part as usize] = Some(feature.detach());
        self
    }

    /// A feature.
    #[must_use]
    pub fn part(&self, part: Part) -> Option<&Tensor> {
        self.parts[part as usize].as_ref()
    }

    /// Which rows' crops count.
    #[must_use]
    pub fn crop_valid(&self) -> &[bool] {
        &self.crop_valid
    }
}

/// Gradients of the total loss on the own rows: `[n_own, D]` fp32 by [`Part`], `None` where no term learns.
#[derive(Debug, Default)]
pub struct FeatureGrads([Option<Tensor>; Part::ALL.len()]);

impl FeatureGrads {
    /// The gradient on a feature.
    #[must_use]
    pub fn part(&self, part: Part) -> Option<&Tensor> {
        self.0[part as usize].as_ref()
    }

    fn add(&mut self, part: Part, grad: Tensor) -> Result<(), ModelError> {
        match &mut self.0[part as usize] {
            Some(sum) => {
                let _ = sum.f_add_(&grad)?;
            }
            empty => *empty = Some(grad),
        }
        Ok(())
    }
}

/// Losses of the global batch. Branches are means before their weights; a branch that is off is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Losses {
    /// Branch 1.
    pub global: f64,
    /// Branch 2, `C1 + c3_lambda C2` for C3.
    pub crop: f64,
    /// Branch 3.
    pub local: f64,
    /// Weighted sum.
    pub total: f64,
}

/// What a step's losses come to, the same on every rank but for the gradients, which are of the own rows.
#[derive(Debug)]
pub struct Outcome {
    /// Losses of the global batch.
    pub losses: Losses,
    /// Mean loss of each term by name (`B1`, `C1`, ...).
    pub terms: Vec<(&'static str, f64)>,
    /// Share of rows whose own text is the nearest to the image.
    pub image_to_text: f64,
    /// Share of rows whose own image is the nearest to the text.
    pub text_to_image: f64,
    /// Rows of the global batch whose crop counted.
    pub crops: i64,
    /// dL/dfeature of the own rows.
    pub grads: FeatureGrads,
    /// Each own row's share of dL/d(logit scale parameter), `[n_own]` f64: the shares of all rows sum to the whole.
    pub grad_logit_scale: Tensor,
}

/// The three branches of method.md section 2, assembled from a `[loss]` section.
#[derive(Debug, Clone)]
pub struct ThreeBranch {
    terms: Vec<Term>,
    weights: [f64; 3],
    smoothing: f64,
    tile: Option<Tile>,
}

impl ThreeBranch {
    /// The objective of a run.
    #[must_use]
    pub fn new(spec: &LossSpec) -> Self {
        Self {
            terms: terms(spec),
            weights: [spec.global_weight, spec.crop_weight, spec.local_weight],
            smoothing: spec.label_smoothing,
            tile: None,
        }
    }

    /// The same with another tile than the device's own.
    #[must_use]
    pub fn with_tile(mut self, tile: Tile) -> Self {
        self.tile = Some(tile);
        self
    }

    /// Its terms.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The losses of the global batch and the gradients on the own rows. `logit_scale` is the parameter's value, ln s.
    ///
    /// # Errors
    /// [`ModelError::MissingInput`] and [`ModelError::Shape`] for leaves that do not fit, before any gather;
    /// [`ModelError::NotFinite`] on every rank alike when a loss is NaN or infinite; the exchange's own.
    pub fn step_losses<X: Exchange + ?Sized>(
        &self,
        leaves: &Leaves,
        logit_scale: f64,
        exchange: &mut X,
    ) -> Result<Outcome, X::Error> {
        let own = exchange.own_rows();
        let packed = Packed::new(&self.terms, leaves, &own)?;
        let gathered = exchange.all_gather_rows(packed.matrix())?;
        let batch = packed.unpack(gathered, own, exchange.total_rows())?;

        let tile = self.tile.unwrap_or_else(|| Tile::for_device(batch.device()));
        let nce = InfoNce { scale: logit_scale.exp(), smoothing: self.smoothing, tile };
        let step = Step { terms: &self.terms, leaves, batch: &batch, nce };
        let own_rows = step.first_half()?;
        let rows = exchange.all_gather_rows(&own_rows)?;
        Ok(step.second_half(&rows, self.weights)?)
    }
}
