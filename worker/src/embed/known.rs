//! The encoder that stored vectors were made with, from their key and its weights: texts that lie in no dataset (category
//! names, prompts) get vectors of the same kind.

use super::encoder::{Chosen, EncoderError, by_key};
use super::pool::Pool;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// An encoder of vectors with a given key; it loads its weights when there is a text to encode.
pub(crate) struct KnownEncoder {
    pool: Pool,
}

impl KnownEncoder {
    /// The encoder whose vectors have `key`, with the weights in the folder `weights`.
    ///
    /// # Errors
    /// A key that no encoder writes, weights of another model.
    pub(crate) fn open(key: &str, weights: &Path) -> Result<Self> {
        let chosen: Chosen = by_key(key, weights)?;
        let found = chosen.key();
        if found != key {
            bail!(
                "{} makes vectors of the key `{found}`; expected `{key}`, by the weights that made those",
                weights.display()
            );
        }
        Ok(Self { pool: Pool::new(chosen) })
    }

    /// One vector for each text, in their order; `told` gets each batch before it is encoded.
    ///
    /// # Errors
    /// Weights that cannot be loaded, a text that cannot be read.
    pub(crate) fn encode(&mut self, texts: &[String], told: &(dyn Fn(&[&str]) + Sync)) -> Result<Vec<Vec<f32>>> {
        let never = AtomicBool::new(false);
        let encoded: Result<_, EncoderError> = self.pool.encode(texts, &never, told);
        encoded.with_context(|| format!("encoding {} texts", texts.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::clip::tests::folder;
    use super::*;
    use pixfleet_model::llm::fingerprint;

    #[test]
    fn a_key_and_its_weights_are_the_encoder() {
        let folder = folder();
        let print = fingerprint(folder.path()).expect("weights");
        let texts = ["a red fox".to_owned(), "two bicycles".to_owned()];
        let mut named = KnownEncoder::open("mine-plain-77", folder.path()).expect("a person's name");
        let mut own = KnownEncoder::open(&format!("clip_{print}-plain-77"), folder.path()).expect("its fingerprint");
        let vectors = own.encode(&texts, &|_| {}).expect("vectors");
        assert_eq!((vectors.len(), vectors[0].len()), (2, 32));
        assert_eq!(vectors, named.encode(&texts, &|_| {}).expect("vectors"));
        assert_ne!(vectors[0], vectors[1]);
    }

    #[test]
    fn other_weights_and_other_keys_are_refused() {
        let folder = folder();
        let refused = |key: &str| format!("{:#}", KnownEncoder::open(key, folder.path()).err().expect("refused"));
        let other = refused("clip_00000000-plain-77");
        assert!(other.contains("expected `clip_00000000-plain-77`, by the weights"), "{other}");
        assert!(refused("clip_x-plain-76").contains("the key `clip_x-plain-77`"));
        for bad in ["minilm", "minilm-plain", "minilm-plain-many", "a-b-c-d"] {
            assert!(refused(bad).contains("is no key of"), "{bad}");
        }
        assert!(refused("minilm-llama3-256").contains("expected `minilm-llama3-256`"));
    }

    #[test]
    fn the_key_of_a_language_model_says_how_it_reads() {
        let read = super::super::encoder::seen;
        assert!(read("llama_0a1b2c3d").is_none() && read("clip").is_none());
        let (name, pooling, causal) = read("my_llama_both_mean").expect("a language model");
        assert_eq!((name, pooling, causal), ("my_llama", pixfleet_model::llm::Pooling::Mean, false));
    }
}
