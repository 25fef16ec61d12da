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
}

/// Runs backward lane by lane; gradients add up in the parameters' `.grad`. The graphs are freed.
///
/// `graph` yields a lane's features with their graph, right before its backward: kept since the losses were taken, or made
/// anew. Before the last one it tells a reducer to expect gradients, whose hooks must not fire for the lanes before. Every
/// trainable parameter takes part in every lane's graph; a feature whose gradient is zero (a set without a valid item)
/// goes through backward all the same, so that no rank waits for a gradient that another one does not send.
///
/// # Errors
/// [`ModelError::Torch`] (a collective that fails inside a hook surfaces here too), what `graph` returns,
/// [`ModelError::Shape`] if the gradients have not as many rows as the lanes.
pub fn backward<E: From<ModelError>>(
    pull: Pull<'_>,
    mut graph: impl FnMut(usize) -> Result<Features, E>,
) -> Result<(), E> {
    check_items(pull)?;
    for (i, rows) in pull.leaves.lanes().iter().enumerate() {
        let lane = graph(i)?;
        check_rows(&lane, rows)?;
        let surrogate = of_lane(&lane, pull, rows)?;
        drop(lane);
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
            let grad = grad.f_narrow(0, own.start * wide, (own.end - own.start) * wide)?;
            summands.push(items.features.f_mul(&grad)?.f_sum(Kind::Float)?);
        }
    }
    for (temperature, parameter) in pull.temperatures.iter().filter(|(_, p)| p.requires_grad()) {
        let share = match pull.loss.grad_temperature(*temperature) {
            Some(shares) => {
                let shares = shares.f_narrow(0, rows.start, rows.end - rows.start)?;
                shares.f_sum(Kind::Double)?.f_to_kind(Kind::Float)?
            }
            None => parameter.f_detach()?.f_zeros_like()?,
        };
        summands.push(parameter.f_mul(&share)?.f_sum(Kind::Float)?);
    }
    Ok(summands)
}

fn run(summands: &[Tensor]) -> Result<(), ModelError> {
    if summands.is_empty() {
        return Ok(());
    }
    Ok(Tensor::f_stack(summands, 0)?.f_sum(Kind::Float)?.f_backward()?)
}

/// The lane is one that the gradients are of.
fn check_rows(lane: &Features, rows: &Range<i64>) -> Result<(), ModelError> {
    let expected = rows.end - rows.start;
    if lane.rows == expected {
        return Ok(());
    }
    let expected = format!("{expected}, as when the losses were taken");
    Err(ModelError::Shape { what: "rows of a lane".into(), expected, found: vec![lane.rows] })
}

/// The gradients are those of the leaves.
fn check_items(pull: Pull<'_>) -> Result<(), ModelError> {
    let rows = pull.leaves.lanes().last().map_or(0, |lane| lane.end);
    if rows != pull.loss.own_rows() {
        let expected = format!("{}, the rows that the losses are of", pull.loss.own_rows());
        return Err(ModelError::Shape { what: "rows of the lanes".into(), expected, found: vec![rows] });
    }
    for set in Set::ALL {
        let (Some(grad), Some(all)) = (pull.loss.grads.of(set), pull.leaves.of(set)) else { continue };
        if grad.size() != all.features.size() {
            let what = format!("gradient on set `{}`", set.name());
            let expected = format!("{:?}, that of its features", all.features.size());
            return Err(ModelError::Shape { what, expected, found: grad.size() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
