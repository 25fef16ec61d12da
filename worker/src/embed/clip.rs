//! CLIP's text tower, frozen, as an encoder of stored vectors: the joint embedding of a text, L2-normalized.

use super::encoder::EncoderError;
use anyhow::{Context, Result, bail, ensure};
use pixfleet_model::clip::{ClipText, ClipTextConfig, TextPath};
use pixfleet_model::params::{Builder, LoadOptions};
use pixfleet_model::{Compute, Params};
use pixfleet_shards::Tokenizer;
use pixfleet_shards::tokens::{CLIP, END, SHORT_TOKENS};
use serde::Deserialize;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// `config.json` of transformers' `CLIPModel`, the keys that matter.
#[derive(Deserialize)]
struct ClipFolder {
    projection_dim: i64,
    text_config: ClipSizes,
}

#[derive(Deserialize)]
struct ClipSizes {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    max_position_embeddings: i64,
    #[serde(default)]
    hidden_act: Option<String>,
}

pub(super) struct ClipEncoder {
    tower: ClipText,
    params: Params,
    tokenizer: Tokenizer,
    compute: Compute,
}

impl ClipEncoder {
    /// Of a folder as Hugging Face has it: config.json and model.safetensors. The tokenizer is built in.
    pub(super) fn load(dir: &Path, compute: Compute, device: Device) -> Result<Self> {
        let path = dir.join("config.json");
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let folder: ClipFolder = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not the configuration of a CLIPModel", path.display()))?;
        let sizes = folder.text_config;
        if let Some(act) = sizes.hidden_act.filter(|act| act != "quick_gelu") {
            bail!("{}: `hidden_act` is {act}, expected quick_gelu, as in OpenAI's CLIP", path.display());
        }
        let config = ClipTextConfig {
            vocab: sizes.vocab_size,
            width: sizes.hidden_size,
            depth: sizes.num_hidden_layers,
            heads: sizes.num_attention_heads,
            hidden: sizes.intermediate_size,
            embed: folder.projection_dim,
            short_positions: sizes.max_position_embeddings,
            long: false,
            eot: i64::from(END),
        };
        let mut params = Params::new(device);
        let tower = ClipText::new(&config, &mut Builder::new(&mut params, 0));
        let weights = dir.join("model.safetensors");
        let report = params.load_safetensors(&weights, &LoadOptions::default())?;
        ensure!(report.missing.is_empty(), "{} lacks {}", weights.display(), report.missing.join(", "));
        params.set_trainable(|_| false);
        Ok(Self { tower, params, tokenizer: Tokenizer::open(CLIP)?, compute })
    }

    /// [n, D] fp32 on the CPU.
    pub(super) fn encode(&self, texts: &[&str]) -> Result<Tensor, EncoderError> {
        let _guard = tch::no_grad_guard();
        let tokens = texts.iter().map(|t| self.tokenizer.encode(t, SHORT_TOKENS)).collect::<Result<Vec<_>, _>>()?;
        let longest = tokens.iter().map(|t| t.ids.len()).max().unwrap_or_default();
        let padded = |ids: &[u32]| ids.iter().copied().chain(std::iter::repeat(END)).take(longest).collect::<Vec<_>>();
        let ids: Vec<i64> = tokens.iter().flat_map(|t| padded(&t.ids)).map(i64::from).collect();
        let ids = Tensor::from_slice(&ids).reshape([texts.len() as i64, longest as i64]);
        let vectors = self.tower.forward(&self.params.weights(self.compute), &ids, TextPath::Short)?;
        Ok(vectors.to_kind(Kind::Float).to_device(Device::Cpu))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The folder of a tiny tower with random weights.
    pub(in crate::embed) fn folder() -> tempfile::TempDir {
        let config = ClipTextConfig {
            vocab: 49_408,
            width: 64,
            depth: 2,
            heads: 2,
            hidden: 128,
            embed: 32,
            short_positions: 77,
            long: false,
            eot: i64::from(END),
        };
        let mut params = Params::new(Device::Cpu);
        ClipText::new(&config, &mut Builder::new(&mut params, 5));
        let folder = tempfile::tempdir().expect("a folder");
        let sizes = serde_json::json!({
            "vocab_size": 49408, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 128, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
        });
        let json = serde_json::json!({ "projection_dim": 32, "text_config": sizes }).to_string();
        std::fs::write(folder.path().join("config.json"), json).expect("written");
        std::fs::write(folder.path().join("model.safetensors"), params.save_bytes().expect("bytes")).expect("written");
        folder
    }

    #[test]
    fn a_folder_gives_unit_vectors_that_do_not_depend_on_their_neighbours() {
        let folder = folder();
        let clip = ClipEncoder::load(folder.path(), Compute::FP32, Device::Cpu).expect("a good folder");
        let texts = ["a red fox", "fox ".repeat(200).leak(), "two bicycles behind a wall, in the rain"];
        let together = clip.encode(&texts).expect("vectors");
        for (i, text) in texts.iter().enumerate() {
            let alone = clip.encode(&[text]).expect("a vector").get(0);
            let apart = (&alone - together.get(i as i64)).abs().max().double_value(&[]);
            assert!(apart < 1e-5 && (alone.norm().double_value(&[]) - 1.0).abs() < 1e-5, "`{text:.20}`: {apart:e}");
        }
    }

    #[test]
    fn another_activation_is_refused() {
        let folder = folder();
        let path = folder.path().join("config.json");
        let json = std::fs::read_to_string(&path).expect("it is there");
        std::fs::write(&path, json.replace("quick_gelu", "gelu")).expect("written");
        let error = ClipEncoder::load(folder.path(), Compute::FP32, Device::Cpu).err().expect("another activation");
        assert!(error.to_string().contains("`hidden_act` is gelu, expected quick_gelu"), "{error}");
    }
}
