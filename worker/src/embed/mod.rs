//! `pixfleet shards embed`: captions of a dataset through a text encoder, vectors beside the rows.
//!
//! What is there and current is skipped, and a text is encoded once per key, so an interrupted run goes on where it
//! was and a second one does nothing.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use pixfleet_cluster::index::SplitIndex;
use pixfleet_model::bert::{MAX_TOKENS, MiniLm};
use pixfleet_model::{Compute, ModelError};
use pixfleet_shards::embed::{EmbedJob, EmbedProgress, embed_split};
use pixfleet_shards::text_vectors::vector_key;
use pixfleet_shards::{Location, index};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tch::{Device, Tensor};

/// Texts that are encoded between two moves of the progress bar; sorted by length, so that little is padding.
const TEXTS_PER_BATCH: usize = 64;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet shards embed s3://bucket/mini --weights .cache/minilm
  pixfleet shards embed file:///data/mini --split train,test --weights .cache/minilm --precision bf16")]
pub(crate) struct Args {
    /// URL of the dataset.
    url: String,
    /// Splits, by comma; all of them unless told.
    #[arg(long, value_delimiter = ',')]
    split: Vec<String>,
    /// The text encoder.
    #[arg(long, value_enum, default_value = "minilm")]
    encoder: EncoderKind,
    /// Folder of its weights: model.safetensors, tokenizer.json, config.json.
    #[arg(long)]
    weights: PathBuf,
    /// Arithmetic of the encoder; bf16 is faster, and its vectors have a key of their own.
    #[arg(long, value_enum, default_value = "fp32")]
    precision: EncoderPrecision,
}

/// A text encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EncoderKind {
    /// all-MiniLM-L6-v2: BERT, 6 layers, 384 numbers, mean pooling, L2-normalized.
    Minilm,
}

/// Arithmetic of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EncoderPrecision {
    /// fp32 throughout.
    Fp32,
    /// Matrix products and attention in bf16.
    Bf16,
}

impl EncoderKind {
    fn key(self, precision: EncoderPrecision) -> String {
        let model = match (self, precision) {
            (Self::Minilm, EncoderPrecision::Fp32) => "minilm",
            (Self::Minilm, EncoderPrecision::Bf16) => "minilm_bf16",
        };
        vector_key(model, "plain", MAX_TOKENS as u32)
    }
}

impl From<EncoderPrecision> for Compute {
    fn from(precision: EncoderPrecision) -> Self {
        match precision {
            EncoderPrecision::Fp32 => Self::FP32,
            EncoderPrecision::Bf16 => Self::BF16,
        }
    }
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let location = Location::parse(&args.url)?;
    let index =
        runtime.block_on(index::open(&location)).with_context(|| format!("opening the dataset {}", args.url))?;
    let splits: Vec<String> = if args.split.is_empty() { index.splits.keys().cloned().collect() } else { args.split };
    let key = args.encoder.key(args.precision);
    let mut encoder = None;
    for name in &splits {
        let Some(split) = index.split(name) else {
            bail!(
                "{} has no split `{name}`; it has {}",
                args.url,
                index.splits.keys().cloned().collect::<Vec<_>>().join(", ")
            );
        };
        let started = Instant::now();
        let bar = bar(name, split);
        let mut encode = |texts: &[String]| -> Result<Vec<Vec<f32>>, ModelError> {
            let minilm = match &mut encoder {
                Some(minilm) => minilm,
                // Loaded only where there is something to encode.
                empty => empty.insert(MiniLm::load(&args.weights, Device::cuda_if_available())?),
            };
            by_length(texts, |batch| {
                let vectors = minilm.encode(batch, args.precision.into())?;
                bar.inc(batch.len() as u64);
                rows(&vectors)
            })
        };
        let job = EmbedJob { location: &location, index: &index, split: name, key: &key };
        let mut told = EmbedProgress::default();
        let mut progress = |now: EmbedProgress| {
            bar.inc(now.cached - told.cached);
            told = now;
        };
        let done =
            runtime.block_on(embed_split(job, &mut encode, &mut progress)).with_context(|| format!("split {name}"))?;
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        eprintln!(
            "{name}: {} texts encoded in {seconds:.1} s ({:.0} texts/s), {} known before, {} files skipped; key {key}",
            done.encoded,
            done.encoded as f64 / seconds.max(1e-9),
            done.cached,
            done.files_skipped
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn bar(name: &str, split: &SplitIndex) -> ProgressBar {
    // A short and a long text for each region, one for each image: at most, since texts may be missing.
    let texts = 2 * split.regions() + split.rows();
    let template = "embed {msg} {bar:32.cyan/dim} {pos}/{len} texts  {per_sec}  eta {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(texts).with_style(style).with_message(name.to_owned())
}

/// [n, width] as n vectors.
fn rows(vectors: &Tensor) -> Result<Vec<Vec<f32>>, ModelError> {
    let width = vectors.size2()?.1.max(1) as usize;
    let flat = Vec::<f32>::try_from(vectors.f_flatten(0, -1)?)?;
    Ok(flat.chunks_exact(width).map(<[f32]>::to_vec).collect())
}

/// Hands texts on in batches of similar length and puts the results back in the order given.
fn by_length<V, E>(texts: &[String], mut encode: impl FnMut(&[&str]) -> Result<Vec<V>, E>) -> Result<Vec<V>, E> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].len());
    let mut placed: Vec<(usize, V)> = Vec::with_capacity(texts.len());
    for batch in order.chunks(TEXTS_PER_BATCH) {
        let batch_texts: Vec<&str> = batch.iter().map(|&i| texts[i].as_str()).collect();
        placed.extend(batch.iter().copied().zip(encode(&batch_texts)?));
    }
    placed.sort_by_key(|(i, _)| *i);
    Ok(placed.into_iter().map(|(_, vector)| vector).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_their_order_from_batches_of_like_length() {
        let texts: Vec<String> = (0..200).map(|i| "x".repeat((i * 37) % 101 + 1)).collect();
        let mut widest = 0;
        let lengths = by_length(&texts, |batch| {
            let (short, long) = (batch.iter().map(|t| t.len()).min(), batch.iter().map(|t| t.len()).max());
            widest = widest.max(long.unwrap_or(0) - short.unwrap_or(0));
            Ok::<_, ModelError>(batch.iter().map(|t| t.len()).collect())
        });
        assert_eq!(lengths.expect("no error"), texts.iter().map(String::len).collect::<Vec<_>>());
        assert!(widest < 40, "a batch spans {widest} letters of 100");
    }
}
