//! Gradients summed over the ranks while backward still runs: c10d's Reducer for one generation.
//!
//! Invariant: its buckets are fixed at birth (1 MiB first, then 25 MiB, last parameters first, because their
//! gradients are ready first) and never rebuilt, since rebuilt buckets differ between a rank that joined and one that
//! stayed. A new generation gets a new Reducer.

use std::sync::Arc;

use pixfleet_shim::reducer::RawReducer;
use tch::Tensor;

use crate::error::CollectiveError;
use crate::group::Group;
use crate::live::LiveGroup;

/// Hooks on parameters that all-reduce their gradients, bucket by bucket, during backward.
///
/// ```text
/// for lane in all but the last { loss(lane).f_backward()? }     // gradients add up locally
/// reducer.prepare_for_backward()?;
/// loss(last lane).f_backward()?;                                 // hooks reduce what has added up
/// reducer.finish()?;                                             // .grad = sum over ranks
/// ```
///
/// Gradients live in the buckets: `.grad` is a view of one, and is gone when the Reducer is. Every parameter must receive a gradient in the backward that
/// follows `prepare_for_backward`.
#[derive(Debug)]
pub struct Reducer {
    raw: RawReducer,
    live: Arc<LiveGroup>,
}

impl Reducer {
    /// Puts hooks on `params` (named for messages; same order, shapes and dtypes on all ranks). They leave with the
    /// Reducer. The autograd graph must not hold a graph of these parameters from before.
    ///
    /// # Errors
    /// [`CollectiveError::Shape`] for no parameters or one that needs no gradient; [`CollectiveError::Torch`] where
    /// c10d refuses one.
    pub fn new<'a>(
        group: &Group,
        params: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<Self, CollectiveError> {
        const OPERATION: &str = "making a reducer";
        let named: Vec<(&str, &Tensor)> = params.into_iter().collect();
        let problem = match named.iter().find(|(_, tensor)| !tensor.requires_grad()) {
            _ if named.is_empty() => Some("no parameters".to_owned()),
            Some((name, _)) => Some(format!("{name} needs no gradient")),
            None => None,
        };
        if let Some(problem) = problem {
            return Err(CollectiveError::Shape { operation: OPERATION, problem });
        }
        let raw = group.live().run(OPERATION, |raw| RawReducer::new(raw, &named))?;
        Ok(Self { raw, live: Arc::clone(group.live()) })
    }

    /// The next backward reduces. Without this call a backward only adds to `.grad` locally.
    ///
    /// # Errors
    /// [`CollectiveError::Torch`], naming the parameters, where the backward before left some without gradient.
    pub fn prepare_for_backward(&mut self) -> Result<(), CollectiveError> {
        self.raw.prepare().map_err(|failure| self.live.typed("prepare_for_backward", failure))
    }

    /// Call after backward: proves that every bucket was reduced. On CUDA it also waits, within the group's timeout,
    /// until the reduced gradients are there.
    ///
    /// # Errors
    /// [`CollectiveError::Torch`] naming parameters without gradient; otherwise as the group's operations.
    pub fn finish(&mut self) -> Result<(), CollectiveError> {
        self.raw.finish().map_err(|failure| self.live.typed("the gradient all-reduce", failure))
    }

    /// Seconds that the backward before the last [`finish`](Self::finish) waited for other ranks, its own gradients being
    /// under way; on a GPU by its own clock. Call `finish` right after backward.
    #[must_use]
    pub fn waited_s(&self) -> f64 {
        self.raw.waited_s()
    }

    /// The buckets, each a list of indices into the parameters, in the order in which they are reduced.
    #[must_use]
    pub fn buckets(&self) -> &[Vec<usize>] {
        self.raw.buckets()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, GroupConfig, HashStore};

    #[test]
    fn a_reducer_needs_parameters_that_need_gradients() {
        let group = Group::new(Backend::Gloo, Arc::new(HashStore::new()), GroupConfig::loopback(0, 1, 1)).unwrap();
        let frozen = Tensor::from_slice(&[0f32; 3]);
        let error = Reducer::new(&group, [("head.weight", &frozen)]).unwrap_err();
        assert_eq!(error.to_string(), "making a reducer: head.weight needs no gradient");
        let none: [(&str, &Tensor); 0] = [];
        assert_eq!(Reducer::new(&group, none).unwrap_err().to_string(), "making a reducer: no parameters");
    }
}
