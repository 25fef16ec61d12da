//! What comes after training: eval, encode, export and probe on a run's newest checkpoint.

use pixfleet_tests::system::System;
use pixfleet_tests::{TestRun, dataset, pixfleet, succeed};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::Path;

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

/// The same of FG-CLIP's runs.
const FGCLIP_KEYS: [&str; 13] = [
    "steps",
    "samples_seen",
    "samples_per_s",
    "test_images",
    "test_regions",
    "hard_regions",
    "hard_choice",
    "chance_hard",
    "long_text_to_image_r10",
    "short_text_to_image_r1",
    "chance_r10",
    "in_image_region",
    "wall_s",
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
    is_published(&run, &out, &parquet);
}

/// As a folder for the Hub the run is the same model, bit for bit, also in pieces; `report` and `parquet` are the run's own.
fn is_published(run: &TestRun, report: &Path, parquet: &Path) {
    let folder = run.dir.join("hub");
    let mut export = pixfleet(["export", "hub", &run.url(), "--license", "apache-2.0", "--repo", "me/small", "--out"]);
    export.arg(&folder).args(["--piece-bytes", "4000000", "--report"]).arg(report);
    let said = String::from_utf8(succeed(export).stdout).expect("text");
    assert!(said.contains("hf upload me/small"), "{said}");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let card = read("README.md");
    for part in [
        "license: \"apache-2.0\"",
        "clean: every sample was used exactly once",
        "| in_image_mask | 0.",
        "hidden:///mini",
    ] {
        assert!(card.contains(part), "the card lacks {part}:\n{card}");
    }
    assert!(!card.contains("file://") && !read("run.toml").contains("file://"), "a place is told");
    assert!(read("loss.svg").contains("<svg"));
    let index: Value = serde_json::from_str(&read("model.safetensors.index.json")).expect("JSON");
    assert!(index["weight_map"].as_object().expect("a map").len() > 40);
    let pieces = std::fs::read_dir(&folder).expect("a folder").flatten();
    let pieces = pieces.filter(|entry| entry.file_name().to_string_lossy().starts_with("model-0")).count();
    assert!(pieces > 1, "{pieces} pieces");

    let at = folder.display().to_string();
    let again = run.dir.join("again.parquet");
    let mut encode = pixfleet(["encode", &at, "--data", dataset(), "--split", "test", "--out"]);
    encode.arg(&again);
    succeed(encode);
    assert!(std::fs::read(&again).expect("written") == std::fs::read(parquet).expect("written"), "other embeddings");

    let nowhere = pixfleet(["eval", &at]).output().expect("it starts");
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(!nowhere.status.success() && said.contains("tell one: --data URL"), "{said}");
    let mut start = run.train(1);
    let weights = format!("model.weights={at}");
    start.args([
        "--set",
        "run.name=hub-start",
        "--set",
        "schedule.steps=1",
        "--set",
        "schedule.warmup=0",
        "--set",
        &weights,
    ]);
    succeed(start);
}

#[test]
fn two_runs_of_fgclip_are_reported_side_by_side() {
    let [first, second] = ["evaluated-first", "evaluated-second"].map(|name| TestRun::of(name, System::Fgclip));
    for (run, steps) in [(&first, 1), (&second, 2)] {
        let mut train = run.train(1);
        train.args(["--set", &format!("schedule.steps={steps}"), "--set", "schedule.warmup=0"]);
        succeed(train);
    }
    let out = second.dir.join("report");
    let mut eval = pixfleet(["eval", &second.url(), "--beside", &first.url(), "--label", "later", "--beside-label"]);
    eval.args(["earlier", "--data", dataset(), "--split", "test", "--templates", "plain", "--out"]).arg(&out);
    succeed(eval);

    let report: Value =
        serde_json::from_slice(&std::fs::read(out.join("report.json")).expect("written")).expect("JSON");
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("report.json lacks {key}: {report}"));
    for key in FGCLIP_KEYS.into_iter().chain(["hard_choice_earlier", "hard_choice_later", "in_image_region_earlier"]) {
        assert!(number(key).is_finite() && number(key) >= 0.0, "{key}");
    }
    assert_eq!((number("steps"), number("hard_choice")), (2.0, number("hard_choice_later")));
    assert!((number("chance_hard") - 1.0 / 11.0).abs() < 1e-4);
    let html = std::fs::read_to_string(out.join("report.html")).expect("written");
    assert!(html.contains("earlier") && html.contains("data:image/"), "both runs and pictures are on the page");
}
