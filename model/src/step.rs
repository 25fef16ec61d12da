//! From gradients on features to gradients on parameters: a surrogate `sum(feature * gradient)` per lane, whose
//! backward is exactly the chain rule through the towers. The loss itself is never part of a graph.

use std::ops::Range;

use pixfleet_cluster::spec::terms::{Set, Temperature};
use tch::{Kind, Tensor};

use crate::objective::{Leaves, StepLoss};
use crate::{Features, ModelError};

/// What [`backward`] sends through the graphs.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    /// Gradients on the own items of all lanes and on the temperatures.
    pub loss: &'a StepLoss,
    /// Where lanes end.
    pub leaves: &'a Leaves,
    /// The temperatures' parameters; those that do not learn are left alone.
    pub temperatures: &'a [(Temperature, &'a Tensor)],
    /// Factor on everything: the world size where a reducer averages over ranks afterwards, else 1.
    pub factor: f64,
}

/// Runs backward lane by lane; gradients add up in the parameters' `.grad`. The graphs are freed.
///
/// `before` is called before each lane's backward with the lane's number. Before the last one a reducer is told to expect
/// gradients: its hooks must not fire for the lanes before. Every trainable parameter takes part in every lane's graph;
/// a feature whose gradient is zero (a set without a valid item) goes through backward all the same, so that no rank
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
    check_rows(lanes, pull)?;
    for (i, (lane, rows)) in lanes.iter().zip(pull.leaves.lanes()).enumerate() {
        let surrogate = of_lane(lane, pull, rows)?;
        before(i)?;
        run(&surrogate)?;
    }
    Ok(())
}

/// The summands of a lane's surrogate.
fn of_lane(lane: &Features, pull: Pull<'_>, rows: &Range<i64>) -> Result<Vec<Tensor>, ModelError> {
    let mut summands = Vec::new();
    for (set, items) in lane.sets.iter() {
        let (Some(grad), Some(all)) = (pull.loss.grads.of(set), pull.leaves.of(set)) else { continue };
        if items.features.requires_grad() {
            let (own, wide) = (all.slots.items_of(rows), i64::from(set.width()));
            let grad = grad.f_narrow(0, own.start * wide, (own.end - own.start) * wide)?.f_mul_scalar(pull.factor)?;
            summands.push(items.features.f_mul(&grad)?.f_sum(Kind::Float)?);
        }
    }
    for (temperature, parameter) in pull.temperatures.iter().filter(|(_, p)| p.requires_grad()) {
        let share = match pull.loss.grad_temperature(*temperature) {
            Some(shares) => {
                let shares = shares.f_narrow(0, rows.start, rows.end - rows.start)?;
                pull.factor * f64::try_from(shares.f_sum(Kind::Double)?)?
            }
            None => 0.0,
        };
        summands.push(parameter.f_mul_scalar(share)?.f_sum(Kind::Float)?);
    }
    Ok(summands)
}

fn run(summands: &[Tensor]) -> Result<(), ModelError> {
    if summands.is_empty() {
        return Ok(());
    }
    Ok(Tensor::f_stack(summands, 0)?.f_sum(Kind::Float)?.f_backward()?)
}

/// The lanes are those that the gradients are of.
fn check_rows(lanes: &[Features], pull: Pull<'_>) -> Result<(), ModelError> {
    let rows: Vec<i64> = lanes.iter().map(|lane| lane.rows).collect();
    let expected: Vec<i64> = pull.leaves.lanes().iter().map(|rows| rows.end - rows.start).collect();
    let shape = |what: String, expected: String, found| Err(ModelError::Shape { what, expected, found });
    if rows != expected || rows.iter().sum::<i64>() != pull.loss.own_rows() {
        return shape("rows of the lanes".into(), format!("{expected:?}, the lanes that the losses are of"), rows);
    }
    for set in Set::ALL {
        let (Some(grad), Some(all)) = (pull.loss.grads.of(set), pull.leaves.of(set)) else { continue };
        if grad.size() != all.features.size() {
            let what = format!("gradient on set `{}`", set.name());
            return shape(what, format!("{:?}, that of its features", all.features.size()), grad.size());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
