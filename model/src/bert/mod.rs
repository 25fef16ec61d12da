//! all-MiniLM-L6-v2 and BERT encoders like it, frozen: text -> unit vector (mean over the attended tokens, then L2).
//!
//! Texts are tokenized to at most [`MAX_TOKENS`] tokens and run in batches of similar length, so that little of a batch
//! is padding; the result keeps the order of the texts.

mod encoder;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tokenizers::{Tokenizer, TruncationParams};

use crate::error::ModelError;
use crate::layers::l2_normalize;
use crate::packing::{in_order, pack};
use crate::params::Compute;
use encoder::Encoder;

/// Longer texts are cut (sentence-transformers' `max_seq_length` of this model).
pub const MAX_TOKENS: usize = 256;

/// Padded tokens of one batch. Activations of a layer are about 20 kB a token in fp32.
const BATCH_TOKENS: usize = 4096;

/// `config.json` of a BERT encoder, the keys that matter.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BertConfig {
    pub(crate) hidden_size: i64,
    pub(crate) num_attention_heads: i64,
    pub(crate) num_hidden_layers: i64,
    pub(crate) layer_norm_eps: f64,
    #[serde(default)]
    pub(crate) pad_token_id: i64,
}

/// A loaded text encoder.
#[derive(Debug)]
pub struct MiniLm {
    tokenizer: Tokenizer,
    tokenizer_path: PathBuf,
    encoder: Encoder,
    pad: i64,
    device: Device,
}

impl MiniLm {
    /// Loads `config.json`, `tokenizer.json` and `model.safetensors` of a folder in sentence-transformers' layout.
    ///
    /// # Errors
    /// If a file is missing, unreadable, or not what its name says.
    pub fn load(dir: &Path, device: Device) -> Result<Self, ModelError> {
        let file = |name: &str| {
            let path = dir.join(name);
            if path.is_file() { Ok(path) } else { Err(ModelError::EncoderMissing { path, dir: dir.to_owned() }) }
        };
        let (config_path, tokenizer_path, weights_path) =
            (file("config.json")?, file("tokenizer.json")?, file("model.safetensors")?);
        let config = serde_json::from_slice::<BertConfig>(&read(&config_path)?)
            .map_err(|source| ModelError::EncoderConfig { path: config_path, source })?;
        let tokenizer = load_tokenizer(&tokenizer_path)
            .map_err(|source| ModelError::Tokenizer { path: tokenizer_path.clone(), source })?;
        let encoder = Encoder::load(&config, &read(&weights_path)?, &weights_path, device)?;
        Ok(Self { tokenizer, tokenizer_path, encoder, pad: config.pad_token_id, device })
    }

    /// Width of the vectors: 384 for MiniLM.
    #[must_use]
    pub fn width(&self) -> i64 {
        self.encoder.width()
    }

    /// Token counts of `texts` after the cut, special tokens included.
    ///
    /// # Errors
    /// If the tokenizer refuses a text.
    pub fn token_counts<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<usize>, ModelError> {
        Ok(self.tokenize(texts)?.iter().map(Vec::len).collect())
    }

    /// `texts` -> [n, width] fp32 on the CPU, rows of unit length, in the order of the texts.
    ///
    /// # Errors
    /// If the tokenizer refuses a text.
    pub fn encode<S: AsRef<str>>(&self, texts: &[S], compute: Compute) -> Result<Tensor, ModelError> {
        let _guard = tch::no_grad_guard();
        let tokens = self.tokenize(texts)?;
        let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
        let batches = pack(&lengths, BATCH_TOKENS);
        let mut vectors = vec![Tensor::zeros([0, self.width()], (Kind::Float, Device::Cpu))];
        for batch in &batches {
            vectors.push(self.encode_batch(batch, &tokens, compute).to_device(Device::Cpu));
        }
        Ok(Tensor::cat(&vectors, 0).index_select(0, &in_order(&batches)))
    }

    fn tokenize<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<i64>>, ModelError> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let encodings = self
            .tokenizer
            .encode_batch_fast(texts, true)
            .map_err(|source| ModelError::Tokenizer { path: self.tokenizer_path.clone(), source })?;
        Ok(encodings.iter().map(|e| e.get_ids().iter().map(|&id| i64::from(id)).collect()).collect())
    }

    /// The texts `batch`, shortest first -> [batch, width].
    fn encode_batch(&self, batch: &[usize], tokens: &[Vec<i64>], compute: Compute) -> Tensor {
        let longest = batch.last().map_or(0, |&i| tokens[i].len());
        let mut ids = vec![self.pad; batch.len() * longest];
        let mut attended = vec![0f32; batch.len() * longest];
        for (row, &i) in batch.iter().enumerate() {
            let at = row * longest;
            ids[at..at + tokens[i].len()].copy_from_slice(&tokens[i]);
            attended[at..at + tokens[i].len()].fill(1.0);
        }
        let shape = [batch.len() as i64, longest as i64];
        let ids = Tensor::from_slice(&ids).reshape(shape).to_device(self.device);
        let attended = Tensor::from_slice(&attended).reshape(shape).to_device(self.device);
        let padded = tokens[batch[0]].len() < longest;
        let hidden = self.encoder.forward(&ids, padded.then_some(&attended), compute);
        // The mean's divisor is lost in the L2 norm.
        l2_normalize(&attended.unsqueeze(1).bmm(&hidden.to_kind(Kind::Float)).squeeze_dim(1))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })
}

/// The tokenizer with our cut and without padding; its file asks for 128 tokens of both.
fn load_tokenizer(path: &Path) -> Result<Tokenizer, tokenizers::Error> {
    let mut tokenizer = Tokenizer::from_file(path)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(Some(TruncationParams { max_length: MAX_TOKENS, ..TruncationParams::default() }))?;
    Ok(tokenizer)
}
