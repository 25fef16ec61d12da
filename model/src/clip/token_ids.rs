//! Token ids as a text tower takes them: checked, cut behind the last text's end, on the tower's device.
//!
//! An id outside the vocabulary would read foreign memory or stop a GPU for good, so ids are checked on every call.
//! On the CPU that costs nothing worth counting; ids that lie on a GPU cost one wait for it.

use tch::{Device, Kind, Tensor};

use super::config::ClipTextConfig;
use crate::error::ModelError;
use crate::host::put;

/// Checked texts.
#[derive(Debug)]
pub(super) struct CheckedIds {
    /// [n, L], L the length of the longest text with its end.
    pub(super) ids: Tensor,
    /// [n]: where each text ends.
    pub(super) ends: Tensor,
}

impl CheckedIds {
    /// `ids` [n, L]; `most`: positions of the path.
    ///
    /// Behind a text's first end nothing is read: attention is causal. So the batch is cut there, and the result is the
    /// same to the bit however far it was padded.
    pub(super) fn check(ids: &Tensor, most: i64, config: &ClipTextConfig, device: Device) -> Result<Self, ModelError> {
        let (n, length) = match ids.size()[..] {
            [n, length] => (n, length),
            _ => {
                let expected = "[texts, tokens]".to_owned();
                return Err(ModelError::Shape { what: "token ids".to_owned(), expected, found: ids.size() });
            }
        };
        if length > most {
            return Err(ModelError::TooManyTokens { found: length, most });
        }
        if n == 0 || length == 0 {
            return Self::without_tokens(n, config, device);
        }
        let ids = ids.to_kind(Kind::Int64);
        let is_end = ids.eq(config.eot);
        let has_end = is_end.any_dim(1, false);
        // The first of equal maxima.
        let ends = is_end.to_kind(Kind::Int64).argmax(1, false);
        let facts = Tensor::stack(&[ids.min(), ids.max(), has_end.all().to_kind(Kind::Int64), ends.max()], 0);
        let facts = Vec::<i64>::try_from(facts.to_device(Device::Cpu))?;
        if facts[0] < 0 || facts[1] >= config.vocab {
            let outside = first(&ids.lt(0).logical_or(&ids.ge(config.vocab)).flatten(0, -1));
            let id = ids.int64_value(&[outside / length, outside % length]);
            return Err(ModelError::TokenOutside { row: outside / length, id, vocab: config.vocab });
        }
        if facts[2] == 0 {
            return Err(ModelError::NoEndOfText { row: first(&has_end.logical_not()), eot: config.eot });
        }
        Ok(Self { ids: put(&ids.narrow(1, 0, facts[3] + 1), device)?, ends: put(&ends, device)? })
    }

    /// No text is well; a text without tokens has no end.
    fn without_tokens(n: i64, config: &ClipTextConfig, device: Device) -> Result<Self, ModelError> {
        if n > 0 {
            return Err(ModelError::NoEndOfText { row: 0, eot: config.eot });
        }
        let empty = |shape: &[i64]| Tensor::zeros(shape, (Kind::Int64, device));
        Ok(Self { ids: empty(&[0, 1]), ends: empty(&[0]) })
    }
}

/// The place of the first true element of `flags`, of one dimension.
fn first(flags: &Tensor) -> i64 {
    flags.to_kind(Kind::Int64).argmax(0, false).int64_value(&[])
}
