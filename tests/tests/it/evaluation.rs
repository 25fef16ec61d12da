//! What comes after training: eval, encode, export and probe on a run's newest checkpoint.

use pixfleet_tests::{TestRun, dataset, pixfleet, succeed};
use safetensors::SafeTensors;
use serde_json::Value;

/// The keys of `report.json` that scripts may rely on.
const KEYS: [&str; 15] = [
    "steps",
    "samples_seen",
    "samples_per_s",
    "test_regions",
    "chance_r10",
    "text_to_region_r10",
    "region_to_text_r10",
    "chance_in_image",
    "in_image_mask",
    "in_image_box",
    "in_image_full",
    "wall_s",
    "long_text_to_region_r10",
    "long_in_image_mask",
    "long_in_image_full",
];

#[test]
fn a_run_is_evaluated_encoded_and_exported() {
    let run = TestRun::new("evaluated");
    succeed(run.train(2));

    let out = run.dir.join("report");
    let mut eval =
        pixfleet(["eval", &run.url(), "--data", dataset(), "--split", "test", "--text", "short,long", "--out"]);
    eval.arg(&out);
    succeed(eval);
    let report: Value =
        serde_json::from_slice(&std::fs::read(out.join("report.json")).expect("written")).expect("JSON");
    for key in KEYS {
        let value = report[key].as_f64().unwrap_or_else(|| panic!("report.json lacks {key}: {report}"));
        assert!(value.is_finite() && value >= 0.0, "{key} = {value}");
    }
    assert_eq!(report["steps"], 20);
    assert_eq!(report["samples_seen"], 480);
    let html = std::fs::read_to_string(out.join("report.html")).expect("written");
    assert!(html.contains("<svg") && html.contains("data:image/"), "curves and pictures are part of the page");

    let parquet = run.dir.join("embeddings.parquet");
    let mut encode = pixfleet(["encode", &run.url(), "--data", dataset(), "--split", "test", "--out"]);
    encode.arg(&parquet);
    succeed(encode);
    assert!(std::fs::read(&parquet).expect("written").starts_with(b"PAR1"));

    let weights = run.dir.join("model.safetensors");
    let mut export = pixfleet(["export", &run.url(), "--out"]);
    export.arg(&weights);
    succeed(export);
    let bytes = std::fs::read(&weights).expect("written");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    for name in [
        "logit_scale",
        "visual.alpha_patch_embed.proj.weight",
        "visual.blocks.0.attn.q_proj.bias",
        "text.text_adaptor.0.fn.0.weight",
    ] {
        assert!(tensors.tensor(name).is_ok(), "the export lacks {name}");
    }
}
