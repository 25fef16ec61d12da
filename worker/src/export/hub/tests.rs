//! Weights in pieces, and what stands in a card.

use super::*;
use crate::hub::weights_at;
use pixfleet_checkpoint::Dtype;
use pixfleet_cluster::spec::RunSpec;
use pixfleet_cluster::{Generation, Manifest, RunId, Step};
use serde_json::json;

fn tensor(name: &str, values: usize) -> HostTensor {
    let bytes: Vec<u8> = (0..values).flat_map(|i| (i as f32 + name.len() as f32).to_le_bytes()).collect();
    HostTensor { name: name.into(), dtype: Dtype::F32, shape: vec![values], bytes: bytes.into() }
}

#[tokio::test]
async fn weights_in_pieces_are_the_same_weights() {
    let tensors = [tensor("a", 10), tensor("b", 30), tensor("cc", 10), tensor("d", 10), tensor("e", 1)];
    for (most, files) in [(1000, 1), (100, 3), (1, 5)] {
        let folder = tempfile::tempdir().expect("a folder");
        let written = pieces::write(&tensors, folder.path(), most).expect("written");
        assert_eq!(written.len(), if files == 1 { 1 } else { files + 1 }, "{written:?}");
        let mut read = weights_at(&folder.path().display().to_string()).await.expect("read");
        read.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(read, tensors);
        for name in written.iter().filter(|name| name.ends_with(".safetensors")) {
            let size = std::fs::metadata(folder.path().join(name)).expect("a file").len();
            assert!(size < most.max(120) + 400, "{name} has {size} bytes");
        }
        if files > 1 {
            let index = std::fs::read(folder.path().join("model.safetensors.index.json")).expect("an index");
            let index: Value = serde_json::from_slice(&index).expect("JSON");
            assert_eq!(index["metadata"]["total_size"], 61 * 4);
            assert!(
                index["weight_map"]["cc"].as_str().expect("a file").ends_with(&format!("-of-{files:05}.safetensors"))
            );
        }
    }
}

#[test]
fn a_card_says_what_is_known_and_nothing_else() {
    let text = "[run]\nname = \"one\"\nstore = \"s3://secret/runs\"\n[data]\nurl = \"s3://secret/grit\"\n[schedule]\nsteps = 90\nwarmup = 1\n";
    let spec = published(&RunSpec::parse(text, &[]).expect("a run file"), None);
    let config = Config::of(&spec, 20);
    let manifest = Manifest {
        version: Manifest::VERSION,
        run: RunId("one".into()),
        step: Step(20),
        generation: Generation(1),
        world: 1,
        nonce: String::new(),
        spec_digest: "5bec".into(),
        dataset_digest: "da7a".into(),
        parts: vec![],
    };
    let report = json!({"run": "one", "steps": 20, "split": "test", "in_image_mask": 0.5, "test_regions": 9, "train_s_one": 3.0});
    let Value::Object(report) = report else { panic!("an object") };
    let tags = ["it: \"is\"".to_owned()];
    let card = Card {
        repo: Some("me/pix"),
        license: None,
        tags: &tags,
        datasets: &[],
        spec: &spec,
        config: &config,
        manifest: &manifest,
        training: &Training::default(),
        parameters: 4_200_000,
        audit: None,
        report: Some(&report),
        has_curve: false,
    };
    let text = card.text();
    assert!(text.starts_with("---\nlibrary_name: pixfleet\n"), "{text}");
    let has = [
        "- \"it: \\\"is\\\"\"\n",
        "# pix\n",
        "4.2 million",
        "none: the ledger or the dataset's index",
        "`da7a`",
        "hf://me/pix",
    ];
    for part in has.into_iter().chain(["| in_image_mask | 0.5000 |", "| test_regions | 9 |", "hidden:///grit"]) {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    for absent in ["secret", "license", "datasets:", "samples seen", "train_s_one", "loss.svg"] {
        assert!(!text.contains(absent), "{absent} in\n{text}");
    }
    let licensed = Card { license: Some("apache-2.0"), datasets: &["me/grit".to_owned()], has_curve: true, ..card };
    let text = licensed.text();
    assert!(text.contains("license: \"apache-2.0\"\n") && text.contains("datasets:\n- \"me/grit\"\n"), "{text}");
    assert!(text.contains("![Loss over steps](loss.svg)"), "{text}");
}
