//! From gradients on features to gradients on parameters: a surrogate `sum(feature * gradient)` per lane, whose
//! backward is exactly the chain rule through the towers. The loss itself is never part of a graph.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::objective::{FeatureGrads, Leaves, Part};
use crate::{Features, ModelError};

impl Features {
    /// A feature by part.
    #[must_use]
    pub fn part(&self, part: Part) -> Option<&Tensor> {
        match part {
            Part::Image => Some(&self.image),
            Part::Text => Some(&self.text),
            Part::Crop => self.crop.as_ref(),
            Part::Roi => self.roi.as_ref(),
            Part::Teacher => self.teacher.as_ref(),
        }
    }

    /// Rows of this lane.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.image.size()[0]
    }
}

impl Leaves {
    /// The leaves of a rank's lanes, concatenated in lane order; `crop_valid` is that of all of them.
    ///
    /// # Errors
    /// [`ModelError::Torch`] if the lanes' widths differ.
    pub fn of_lanes(lanes: &[Features], crop_valid: Vec<bool>) -> Result<Self, ModelError> {
        let mut leaves = Self::new(crop_valid);
        for part in Part::ALL {
            let own: Vec<Tensor> = lanes.iter().filter_map(|lane| lane.part(part)).map(Tensor::detach).collect();
            match own.len() {
                0 => {}
                1 => leaves = leaves.with(part, &own[0]),
                _ => leaves = leaves.with(part, &Tensor::f_cat(&own, 0)?),
            }
        }
        Ok(leaves)
    }
}

/// What [`backward`] sends through the graphs.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    /// Gradients on the own rows of all lanes ([`crate::objective::Outcome::grads`]).
    pub grads: &'a FeatureGrads,
    /// The logit scale's parameter; left alone if it does not learn.
    pub logit_scale: &'a Tensor,
    /// Its gradient by own row ([`crate::objective::Outcome::grad_logit_scale`]).
    pub grad_logit_scale: &'a Tensor,
    /// Factor on everything: the world size where a reducer averages over ranks afterwards, else 1.
    pub factor: f64,
}

/// Runs backward lane by lane; gradients add up in the parameters' `.grad`. The graphs are freed.
///
/// `before` is called before each lane's backward with the lane's number. Before the last one a reducer is told to expect
/// gradients: its hooks must not fire for the lanes before. Every trainable parameter takes part in every lane's graph;
/// a feature whose gradient is zero (a branch without a valid row) goes through backward all the same, so that no rank
/// waits for a gradient that another one does not send.
///
/// # Errors
/// [`ModelError::Torch`] (a collective that fails inside a hook surfaces here too), what `before` returns,
/// [`ModelError::Shape`] if the gradients have not as many rows as the lanes.
pub fn backward<E: From<ModelError>>(
    lanes: &[Features],
    pull: Pull<'_>,
    mut before: impl FnMut(usize) -> Result<(), E>,
) -> Result<(), E> {
    let rows: i64 = lanes.iter().map(Features::rows).sum();
    check_rows(pull, rows)?;
    let mut start = 0;
    for (i, lane) in lanes.iter().enumerate() {
        let own = start..start + lane.rows();
        start = own.end;
        let surrogate = of_lane(lane, pull, own)?;
        before(i)?;
        run(&surrogate)?;
    }
    Ok(())
}

/// The summands of a lane's surrogate.
fn of_lane(lane: &Features, pull: Pull<'_>, rows: Range<i64>) -> Result<Vec<Tensor>, ModelError> {
    let mut summands = Vec::new();
    for part in Part::ALL {
        let (Some(feature), Some(grad)) = (lane.part(part), pull.grads.part(part)) else { continue };
        if feature.requires_grad() {
            let grad = grad.f_narrow(0, rows.start, rows.end - rows.start)?.f_mul_scalar(pull.factor)?;
            summands.push(feature.f_mul(&grad)?.f_sum(Kind::Float)?);
        }
    }
    if pull.logit_scale.requires_grad() {
        let shares = pull.grad_logit_scale.f_narrow(0, rows.start, rows.end - rows.start)?;
        let share = pull.factor * f64::try_from(shares.f_sum(Kind::Double)?)?;
        summands.push(pull.logit_scale.f_mul_scalar(share)?.f_sum(Kind::Float)?);
    }
    Ok(summands)
}

fn run(summands: &[Tensor]) -> Result<(), ModelError> {
    if summands.is_empty() {
        return Ok(());
    }
    Ok(Tensor::f_stack(summands, 0)?.f_sum(Kind::Float)?.f_backward()?)
}

fn check_rows(pull: Pull<'_>, rows: i64) -> Result<(), ModelError> {
    for grad in Part::ALL.into_iter().filter_map(|part| pull.grads.part(part)).chain([pull.grad_logit_scale]) {
        if grad.size()[0] != rows {
            return Err(ModelError::Shape {
                what: "gradient on the own rows".into(),
                expected: format!("[{rows}, width] for the rows of all lanes"),
                found: grad.size(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
