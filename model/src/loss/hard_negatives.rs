//! The choice of the true text among hard negatives (FG-CLIP v1, method.md 4.2):
//! `L = mean_i CE(s_h [r_i.t_i^0, ..., r_i.t_i^H], 0)`. Only an item and its own texts meet, so nothing of this term is
//! gathered but its per-item losses.

use tch::{Kind, Tensor};

use crate::ModelError;

/// The loss's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HardNegatives {
    /// `s_h`, the inverse temperature (not its logarithm).
    pub scale: f64,
    /// Texts of an item, 1 + H; the true one is the first.
    pub texts: i64,
}

/// What each item's choice comes to; both are fp32 `[k]`.
#[derive(Debug)]
pub struct Choices {
    /// Cross-entropy of the true text.
    pub loss: Tensor,
    /// 1 where no negative is nearer than the true text (a tie counts as a hit), else 0.
    pub hit: Tensor,
}

/// The gradient of the mean loss over all items of the batch, own items only.
#[derive(Debug)]
pub struct ChoiceGrad {
    /// On the items, `[k, D]` fp32.
    pub items: Tensor,
    /// On their texts, `[k x texts, D]` fp32.
    pub texts: Tensor,
    /// Each item's share of dL/d ln s_h, `[k]` fp32.
    pub log_scale: Tensor,
}

impl HardNegatives {
    /// `items` `[k, D]`, `texts` `[k x (1 + H), D]`, both L2-normalized fp32; the texts of an item stand together.
    ///
    /// # Errors
    /// [`ModelError::Shape`] if there are not as many texts as the items have, [`ModelError::Torch`].
    pub fn choices(&self, items: &Tensor, texts: &Tensor) -> Result<Choices, ModelError> {
        let z = self.logits(items, texts)?;
        let truth = z.f_select(1, 0)?;
        let loss = z.f_logsumexp([1i64].as_slice(), false)?.f_sub(&truth)?;
        let hit = truth.f_ge_tensor(&z.f_amax([1i64].as_slice(), false)?)?.f_to_kind(Kind::Float)?;
        Ok(Choices { loss, hit })
    }

    /// The gradient of the mean over `count` items of the whole batch. With `p = softmax(z)` and `e` the true text's unit
    /// vector, `dL/dz = (p - e) / count`.
    ///
    /// # Errors
    /// As [`Self::choices`].
    pub fn grad(&self, items: &Tensor, texts: &Tensor, count: i64) -> Result<ChoiceGrad, ModelError> {
        let z = self.logits(items, texts)?;
        let mut pull = z.f_softmax(1, Kind::Float)?;
        let _ = pull.f_select(1, 0)?.f_sub_scalar_(1.0)?;
        let _ = pull.f_mul_scalar_(1.0 / count.max(1) as f64)?;
        let log_scale = pull.f_mul(&z)?.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
        let pull = pull.f_mul_scalar_(self.scale)?.f_unsqueeze(1)?;
        let grouped = self.grouped(items, texts)?;
        let on_texts = pull.f_transpose(1, 2)?.f_matmul(&items.f_unsqueeze(1)?)?.f_reshape(texts.size())?;
        Ok(ChoiceGrad { items: pull.f_matmul(&grouped)?.f_squeeze_dim(1)?, texts: on_texts, log_scale })
    }

    /// `z` `[k, 1 + H]`.
    fn logits(&self, items: &Tensor, texts: &Tensor) -> Result<Tensor, ModelError> {
        let z = self.grouped(items, texts)?.f_matmul(&items.f_unsqueeze(2)?)?;
        Ok(z.f_squeeze_dim(2)?.f_mul_scalar(self.scale)?)
    }

    /// The texts, `[k, 1 + H, D]`.
    fn grouped(&self, items: &Tensor, texts: &Tensor) -> Result<Tensor, ModelError> {
        let (k, d) = items.size2()?;
        if texts.size() == [k * self.texts, d] {
            return Ok(texts.f_reshape([k, self.texts, d])?);
        }
        Err(ModelError::Shape {
            what: "texts of a choice".into(),
            expected: format!("[{}, {d}], {} an item", k * self.texts, self.texts),
            found: texts.size(),
        })
    }
}
