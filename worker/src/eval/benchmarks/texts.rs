//! Texts of a benchmark through the run's own text tower: token ids that are made here, or vectors of the encoder that the run
//! was trained with, made here once and kept in the store beside the data.

use super::protocol::Protocol;
use crate::embed::KnownEncoder;
use crate::eval::subject::Subject;
use crate::eval::templates::Templates;
use crate::train::inputs::text_items;
use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use pixfleet_cluster::spec::terms::Set;
use pixfleet_model::{Compute, TextTower, l2_normalize};
use pixfleet_shards::batch::BatchTexts;
use pixfleet_shards::text_vectors::text_hash;
use pixfleet_shards::tokens::{LONG_TOKENS, SHORT_TOKENS};
use pixfleet_shards::{Location, Tokenizer};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::PathBuf;
use tch::{Device, Tensor};

/// Texts in one forward.
const AT_ONCE: usize = 640;
/// The one tensor of a file of vectors.
const VECTORS: &str = "vectors";

/// Encodes texts for one model.
pub(crate) struct TextEncoder<'a> {
    subject: &'a Subject,
    runtime: &'a tokio::runtime::Runtime,
    source: Source,
}

/// What the tower reads.
enum Source {
    Tokens { tokenizer: Tokenizer, long: usize },
    Vectors { weights: Option<PathBuf>, beside: Location },
}

impl<'a> TextEncoder<'a> {
    /// For the model of `subject`. `weights`: the folder of the encoder that made the vectors that it was trained on.
    ///
    /// # Errors
    /// A tokenizer or a dataset that cannot be opened.
    pub(crate) fn new(
        subject: &'a Subject,
        runtime: &'a tokio::runtime::Runtime,
        weights: Option<PathBuf>,
    ) -> Result<Self> {
        let source = match subject.model.text() {
            TextTower::Clip(clip) => {
                let name = &subject.data.tokenizer;
                let failed = || format!("cannot open the tokenizer `{name}` (data.tokenizer)");
                let long = if clip.config().long { LONG_TOKENS } else { SHORT_TOKENS };
                Source::Tokens { tokenizer: Tokenizer::open(name).with_context(failed)?, long }
            }
            TextTower::Adapter(_) => Source::Vectors { weights, beside: Location::parse(&subject.data.url)? },
        };
        Ok(Self { subject, runtime, source })
    }

    /// [texts, D] on the host: each text's mean over its prompts, of length 1. A text that stands there twice is encoded once.
    ///
    /// # Errors
    /// A text that cannot be read, an encoder that is not there or is another one.
    pub(crate) fn encode(&self, texts: &[String], templates: &Templates, protocol: &Protocol) -> Result<Tensor> {
        let (mut unique, mut places) = (Vec::new(), HashMap::new());
        let at: Vec<i64> = texts
            .iter()
            .map(|text| {
                *places.entry(text.as_str()).or_insert_with(|| {
                    unique.extend(templates.fill(text));
                    (unique.len() / templates.len()) as i64 - 1
                })
            })
            .collect();
        let features = self.features(&unique, protocol.long)?;
        let (n, d) = features.size2()?;
        let prompts = templates.len() as i64;
        let mean = features.f_reshape([n / prompts, prompts, d])?.f_mean_dim(1, false, None)?;
        Ok(l2_normalize(&mean).f_index_select(0, &Tensor::from_slice(&at))?)
    }

    /// [n, D] on the host.
    fn features(&self, texts: &[String], long: bool) -> Result<Tensor> {
        let device = self.subject.device;
        let (set, read): (Set, Box<dyn Fn(&[String], usize) -> Result<BatchTexts>>) = match &self.source {
            Source::Tokens { tokenizer, long: most } => {
                let long = long && *most > SHORT_TOKENS;
                let most = if long { *most } else { SHORT_TOKENS };
                let ids = move |texts: &[String], _: usize| {
                    let ids = texts
                        .iter()
                        .map(|t| Ok(tokenizer.encode(t, most).with_context(|| format!("the text `{t:.80}`"))?.ids));
                    Ok(BatchTexts::Tokens(ids.collect::<Result<_>>()?))
                };
                (if long { Set::LongText } else { Set::RegionText }, Box::new(ids))
            }
            Source::Vectors { weights, beside } => {
                let (width, all) = self.vectors(texts, weights.as_ref(), beside)?;
                let vectors = move |texts: &[String], from: usize| {
                    let values = all[from * width..(from + texts.len()) * width].to_vec();
                    Ok(BatchTexts::Vectors { width, values })
                };
                (Set::RegionText, Box::new(vectors))
            }
        };
        let w = self.subject.model.params.weights(Compute::FP32);
        let parts = texts.chunks(AT_ONCE).enumerate().map(|(i, texts)| {
            let items = text_items(&read(texts, i * AT_ONCE)?, device)?;
            let features = tch::no_grad(|| self.subject.model.text().forward(&w, set, &items))?;
            Ok(features.to_device(Device::Cpu))
        });
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// Numbers of a vector, and the vectors of `texts` one after the other, in f16's precision as stored ones are. They are
    /// those of an earlier evaluation of the same texts, or are encoded and kept.
    fn vectors(&self, texts: &[String], weights: Option<&PathBuf>, beside: &Location) -> Result<(usize, Vec<f32>)> {
        let key = &self.subject.data.vectors;
        let width = self.subject.model.spec().text_proj.width as usize;
        let path = cache_path(key, texts);
        if self.runtime.block_on(beside.exists(&path))? {
            let bytes = self.runtime.block_on(beside.get(&path))?;
            let values = unpacked(&bytes, (texts.len(), width)).with_context(|| beside.url_of(&path))?;
            return Ok((width, values));
        }
        let Some(weights) = weights else {
            bail!(
                "`{}` was trained on vectors `{key}`, and {} texts of the benchmark have none yet; tell where the weights of \
                 the encoder are that made them: --encoder-weights FOLDER",
                self.subject.name,
                texts.len()
            );
        };
        let mut encoder = KnownEncoder::open(key, weights)?;
        let bar = bar(texts.len() as u64);
        let vectors = encoder.encode(texts, &|batch| bar.inc(batch.len() as u64))?;
        bar.finish_and_clear();
        let found = vectors.first().map_or(width, Vec::len);
        ensure!(
            found == width,
            "{} makes vectors of {found} numbers, `{}` takes {width}: these are other weights than made `{key}`",
            weights.display(),
            self.subject.name
        );
        let halves: Vec<half::f16> = vectors.iter().flatten().map(|&v| half::f16::from_f32(v)).collect();
        let bytes = packed(&halves, (texts.len(), width))?;
        if let Err(error) = self.runtime.block_on(beside.put(&path, bytes)) {
            tracing::warn!("vectors of texts are not kept for the next time: {error}");
        }
        Ok((width, halves.iter().map(|v| v.to_f32()).collect()))
    }
}

/// Where the vectors of `texts` are kept: the texts themselves name it.
fn cache_path(key: &str, texts: &[String]) -> String {
    let mut hash = blake3::Hasher::new();
    texts.iter().for_each(|text| {
        hash.update(&text_hash(text));
    });
    format!("vectors/{key}/texts/{}.safetensors", &hash.finalize().to_hex()[..32])
}

fn packed(values: &[half::f16], (rows, width): (usize, usize)) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F16, vec![rows, width], &bytes)?;
    Ok(safetensors::serialize([(VECTORS, view)], None)?)
}

fn unpacked(bytes: &[u8], (rows, width): (usize, usize)) -> Result<Vec<f32>> {
    let file = SafeTensors::deserialize(bytes).context("not a file of vectors; delete it")?;
    let tensor = file.tensor(VECTORS).context("not a file of vectors; delete it")?;
    ensure!(
        tensor.dtype() == Dtype::F16 && tensor.shape() == [rows, width],
        "expected [{rows}, {width}] of f16, found {:?} of {:?}; delete it",
        tensor.shape(),
        tensor.dtype()
    );
    Ok(tensor.data().as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect())
}

fn bar(texts: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("embed  {bar:32.cyan/dim} {pos}/{len} texts  {per_sec}  eta {eta}");
    ProgressBar::new(texts).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_kept_as_they_are_stored_and_found_by_their_texts() {
        let values: Vec<half::f16> = (0..6).map(|i| half::f16::from_f32(i as f32 / 3.0)).collect();
        let bytes = packed(&values, (2, 3)).expect("bytes");
        let back = unpacked(&bytes, (2, 3)).expect("vectors");
        assert_eq!(back, values.iter().map(|v| v.to_f32()).collect::<Vec<_>>());
        let other = format!("{:#}", unpacked(&bytes, (3, 2)).expect_err("other texts"));
        assert!(other.contains("expected [3, 2] of f16, found [2, 3]"), "{other}");
        assert!(unpacked(b"<html>", (2, 3)).is_err());
        let path = |texts: &[&str]| cache_path("k", &texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>());
        assert_eq!(path(&["a", "b"]), path(&["a", "b"]));
        assert!(path(&["a", "b"]) != path(&["b", "a"]) && path(&["ab"]) != path(&["a", "b"]));
    }
}
