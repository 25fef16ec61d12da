//! all-MiniLM-L6-v2 against transformers on 200 captions (golden/minilm.py).

use std::path::Path;
use std::time::Instant;

use pixfleet_model::Compute;
use pixfleet_model::bert::MiniLm;
use tch::{Device, Kind, Tensor};

use crate::{golden, golden_path};

/// fp32 against fp32.
const COSINE: f64 = 0.99999;
/// bf16 against fp32: what `shards embed` may lose when it is told to be fast.
const COSINE_BF16: f64 = 0.9999;

fn load() -> MiniLm {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/minilm");
    MiniLm::load(&dir, Device::Cpu).unwrap_or_else(|e| panic!("{e}\n`make setup` fetches it once."))
}

fn texts() -> Vec<String> {
    let all = std::fs::read_to_string(golden_path("minilm.txt")).expect("golden files are part of the tree");
    let texts: Vec<String> = all.split_terminator('\n').map(str::to_owned).collect();
    assert_eq!(texts.len(), 200);
    texts
}

/// The smallest cosine of corresponding rows.
fn worst_cosine(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let norm = |x: &Tensor| x.norm_scalaropt_dim(2.0, [1i64].as_slice(), false);
    let dot = (a * b).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    (dot / (norm(a) * norm(b))).min().double_value(&[])
}

#[test]
fn minilm_agrees_with_transformers() {
    let golden = golden("minilm.safetensors");
    let (encoder, texts) = (load(), texts());
    let counts: Vec<f32> = encoder.token_counts(&texts).expect("tokenizes").iter().map(|&n| n as f32).collect();
    assert_eq!(Tensor::from_slice(&counts), golden["tokens"], "token counts");
    for (compute, least) in [(Compute::FP32, COSINE), (Compute::BF16, COSINE_BF16)] {
        let start = Instant::now();
        let vectors = encoder.encode(&texts, compute).expect("encodes");
        let rate = texts.len() as f64 / start.elapsed().as_secs_f64();
        let cosine = worst_cosine(&vectors, &golden["vectors"]);
        println!(
            "{compute:?}: 1 - cosine {:.1e}, {rate:.0} texts/s, {:.0} tokens a text",
            1.0 - cosine,
            counts.iter().sum::<f32>() / counts.len() as f32
        );
        assert!(cosine >= least, "{compute:?}: {cosine}");
        let norms = vectors.norm_scalaropt_dim(2.0, [1i64].as_slice(), false);
        assert!((norms - 1.0).abs().max().double_value(&[]) < 1e-5);
    }
}

#[test]
fn a_vector_does_not_depend_on_its_batch() {
    let (encoder, texts) = (load(), texts());
    let few = [&texts[13], &texts[0], &texts[40]];
    let together = encoder.encode(&few, Compute::FP32).expect("encodes");
    let apart: Vec<Tensor> = few.iter().map(|t| encoder.encode(&[t], Compute::FP32).expect("encodes")).collect();
    assert!(worst_cosine(&together, &Tensor::cat(&apart, 0)) > 0.999_999);
    assert_eq!(encoder.encode::<&str>(&[], Compute::FP32).expect("nothing to do").size(), [0, 384]);
}
