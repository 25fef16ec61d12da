//! The BERT encoder: embeddings, post-norm blocks with exact GELU (Devlin et al. 2019). Inference only; the three
//! projections of attention are one matrix.

use std::collections::HashMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::BertConfig;
use crate::error::ModelError;
use crate::layers::{LayerNorm, Linear};
use crate::params::{Compute, ParamId, Params, Weights, read_tensors};

#[derive(Debug)]
struct Layer {
    qkv: Linear,
    out: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

/// Structure and numbers.
#[derive(Debug)]
pub(crate) struct Encoder {
    params: Params,
    words: ParamId,
    positions: ParamId,
    norm: LayerNorm,
    layers: Vec<Layer>,
    heads: i64,
    width: i64,
}

/// The tensors of a file, taken by name.
struct File<'f> {
    tensors: HashMap<String, Tensor>,
    params: Params,
    path: &'f Path,
    eps: f64,
}

impl File<'_> {
    fn take(&self, name: &str) -> Result<Tensor, ModelError> {
        let found = self.tensors.get(name).or_else(|| self.tensors.get(&format!("bert.{name}")));
        let missing = || ModelError::MissingWeight { name: name.to_owned(), origin: self.path.display().to_string() };
        Ok(found.ok_or_else(missing)?.shallow_clone())
    }

    fn linear(&mut self, stems: &[String]) -> Result<Linear, ModelError> {
        let join = |part: &str| {
            let parts: Result<Vec<Tensor>, _> = stems.iter().map(|s| self.take(&format!("{s}.{part}"))).collect();
            parts.map(|parts| Tensor::cat(&parts, 0))
        };
        let (weight, bias) = (join("weight")?, join("bias")?);
        let weight = self.params.push(&format!("{}.weight", stems[0]), &weight, false);
        let bias = self.params.push(&format!("{}.bias", stems[0]), &bias, false);
        Ok(Linear::of(weight, Some(bias)))
    }

    fn norm(&mut self, stem: &str) -> Result<LayerNorm, ModelError> {
        let (weight, bias) = (self.take(&format!("{stem}.weight"))?, self.take(&format!("{stem}.bias"))?);
        let weight = self.params.push(&format!("{stem}.weight"), &weight, false);
        let bias = self.params.push(&format!("{stem}.bias"), &bias, false);
        Ok(LayerNorm::of((weight, bias), self.eps))
    }

    fn layer(&mut self, i: i64) -> Result<Layer, ModelError> {
        let at = |name: &str| format!("encoder.layer.{i}.{name}");
        Ok(Layer {
            qkv: self.linear(&["query", "key", "value"].map(|n| at(&format!("attention.self.{n}"))))?,
            out: self.linear(&[at("attention.output.dense")])?,
            attention_norm: self.norm(&at("attention.output.LayerNorm"))?,
            up: self.linear(&[at("intermediate.dense")])?,
            down: self.linear(&[at("output.dense")])?,
            norm: self.norm(&at("output.LayerNorm"))?,
        })
    }
}

impl Encoder {
    pub(crate) fn load(config: &BertConfig, bytes: &[u8], path: &Path, device: Device) -> Result<Self, ModelError> {
        let tensors = read_tensors(bytes, &path.display().to_string())?;
        let mut file = File { tensors, params: Params::new(device), path, eps: config.layer_norm_eps };
        let words = file.take("embeddings.word_embeddings.weight")?;
        let words = file.params.push("words", &words, false);
        // Every token is of segment 0, so its embedding is part of the position's.
        let segment = file.take("embeddings.token_type_embeddings.weight")?.narrow(0, 0, 1);
        let positions = file.take("embeddings.position_embeddings.weight")? + segment;
        let positions = file.params.push("positions", &positions, false);
        let norm = file.norm("embeddings.LayerNorm")?;
        let layers = (0..config.num_hidden_layers).map(|i| file.layer(i)).collect::<Result<_, _>>()?;
        let (heads, width) = (config.num_attention_heads, config.hidden_size);
        Ok(Self { params: file.params, words, positions, norm, layers, heads, width })
    }

    pub(crate) fn width(&self) -> i64 {
        self.width
    }

    /// `ids` [n, T] and `attended` [n, T] (1 or 0; `None` if nothing is padding) -> hidden states [n, T, width].
    pub(crate) fn forward(&self, ids: &Tensor, attended: Option<&Tensor>, compute: Compute) -> Tensor {
        let w = self.params.weights(compute);
        let positions = w.fp32(self.positions).narrow(0, 0, ids.size()[1]);
        let words = Tensor::embedding(w.fp32(self.words), ids, -1, false, false);
        let mask = attended.map(|a| a.to_kind(Kind::Bool).unsqueeze(1).unsqueeze(1));
        let mut x = self.norm.forward(&w, &(words + positions));
        for layer in &self.layers {
            x = self.layer(&w, layer, &x, mask.as_ref());
        }
        x
    }

    /// The residual stream stays fp32: in bf16 it costs a cosine of 1e-4 over six layers.
    fn layer(&self, w: &Weights<'_>, layer: &Layer, x: &Tensor, mask: Option<&Tensor>) -> Tensor {
        let size = x.size();
        let qkv = layer.qkv.forward(w, x).view([size[0], size[1], 3, self.heads, self.width / self.heads]);
        let part = |i: i64| qkv.select(2, i).to_kind(w.attention_dtype()).transpose(1, 2);
        let (q, k, v) = (part(0), part(1), part(2));
        let a = Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, false, None, false);
        let a = layer.out.forward(w, &a.transpose(1, 2).flatten(2, 3));
        let x = layer.attention_norm.forward(w, &(x + a));
        let y = layer.down.forward(w, &layer.up.forward(w, &x).gelu("none"));
        layer.norm.forward(w, &(x + y))
    }
}
