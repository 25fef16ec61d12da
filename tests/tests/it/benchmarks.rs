//! The papers' benchmarks on a run's newest checkpoint: numbers held against those of the evaluation that knows no benchmarks,
//! texts encoded by the run's own encoder, and what is said where a dataset lacks something.

use pixfleet_tests::system::System;
use pixfleet_tests::{TestRun, dataset, pixfleet, root, succeed};
use serde_json::Value;
use std::process::{Command, Stdio};

/// One step.
fn train(run: &TestRun) {
    let mut train = run.train(1);
    train.args(["--set", "schedule.steps=1", "--set", "schedule.warmup=0"]);
    succeed(train);
}

/// `pixfleet eval` of about 60 regions of the test split.
fn eval(run: &TestRun, args: &[&str]) -> Command {
    let mut eval = pixfleet(["eval", &run.url(), "--data", dataset(), "--split", "test", "--limit", "60"]);
    eval.args(args);
    eval
}

fn json(command: Command) -> Value {
    serde_json::from_slice(&succeed(command).stdout).expect("JSON on standard output")
}

/// What a command says that fails.
fn refused(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1), "{command:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn number(of: &Value, key: &str) -> f64 {
    of[key].as_f64().unwrap_or_else(|| panic!("no {key} in {of}"))
}

#[test]
fn benchmarks_give_the_numbers_that_the_evaluation_of_fgclip_gives() {
    let run = TestRun::of("benchmarked-fgclip", System::Fgclip);
    // It waits for the first checkpoint, and ends with the last.
    let mut beside = eval(&run, &["--bench", "fgovd-hard", "--ties", "share", "--follow", "--json"]);
    let beside = beside.stdout(Stdio::piped()).spawn().expect("the program starts");
    train(&run);
    let followed = beside.wait_with_output().expect("it ends");
    assert!(followed.status.success());
    let followed: Value = serde_json::from_slice(&followed.stdout).expect("one line of JSON");
    let known = json(eval(&run, &["--templates", "one", "--json"]));
    let out = run.dir.join("benchmarks");
    let asked = ["--bench", "fgovd-hard,coco-retrieval", "--ties", "share", "--captions", "long", "--json", "--out"];
    let mut command = eval(&run, &asked);
    command.arg(&out);
    let found = json(command);
    let boxes = json(eval(&run, &["--bench", "coco-box", "--templates", "one", "--json"]));

    let pairs = [
        (&found[0], "top1", "hard_choice", "hard_regions"),
        (&found[1], "text_to_image_r5", "long_text_to_image_r5", "long_captions"),
        (&found[1], "image_to_text_r5", "long_image_to_text_r5", "long_captions"),
        (&boxes[0], "top1", "box_top1_plain", "boxes"),
        (&boxes[0], "top5", "box_top5_plain", "boxes"),
    ];
    for (result, key, other, count) in pairs {
        let (found, wanted, n) = (number(&result["scores"], key), number(&known, other), number(&known, count));
        // Another batch may round two similarities into another order.
        assert!((found - wanted).abs() <= 1.0 / n + 1e-6, "{key}: {found}, {other} {wanted} of {n}");
    }
    let shared = |workers: &str| {
        let asked = ["--data", dataset(), "--split", "test", "--bench", "coco-box,coco-retrieval"];
        let mut eval = pixfleet(["eval", &run.url()]);
        eval.args(asked).args(["--captions", "long", "--first", "40", "--json", "--workers", workers]);
        let found = json(eval);
        [found[0]["scores"].clone(), found[0]["counts"].clone(), found[1]["scores"].clone(), found[1]["counts"].clone()]
    };
    let alone = shared("1");
    assert!(alone[1]["regions"].as_u64().is_some_and(|n| n > 40), "{alone:?}");
    assert_eq!((&alone, &alone), (&shared("2"), &shared("3")), "several processes see what one sees");
    let failed = refused({
        let mut eval =
            pixfleet(["eval", &run.url(), "--bench", "coco-mask", "--data", "file:///nowhere", "--workers", "2"]);
        eval.arg("--json");
        eval
    });
    assert!(failed.contains("nowhere"), "{failed}");
    assert_eq!(number(&boxes[0]["counts"], "classes"), number(&known, "box_classes"));
    assert_eq!(followed[0]["scores"], found[0]["scores"]);
    assert_eq!(found[0]["history"], serde_json::json!([{ "steps": 1, "scores": found[0]["scores"] }]));
    let differs = found[0]["differs"].to_string();
    assert!(differs.contains("ties: share; published: right") && differs.contains("split `test`"), "{differs}");
    let file: Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).expect("written")).expect("JSON");
    assert_eq!((file.as_array().map(Vec::len), &file[0]["benchmark"]), (Some(2), &"fgovd-hard".into()));
    let html = std::fs::read_to_string(out.join("report.html")).expect("written");
    assert!(html.contains("FG-OVD, hard negatives") && html.contains("SigLIP 2"), "published rows are on the page");

    let masks = refused(eval(&run, &["--bench", "coco-mask"]));
    assert!(masks.contains("this model takes none") && masks.contains("--show pool"), "{masks}");
}

#[test]
fn a_run_of_stored_vectors_has_its_own_encoder_read_the_texts_once() {
    let run = TestRun::new("benchmarked-pixclip");
    train(&run);
    let minilm = root().join(".cache/minilm");
    let asked = ["--bench", "coco-mask,refcoco,imagenet-s", "--first", "16", "--json"];
    let without = refused(eval(&run, &asked));
    assert!(without.contains("--encoder-weights FOLDER") && without.contains("minilm-plain-256"), "{without}");

    let mut with = eval(&run, &asked);
    with.arg("--encoder-weights").arg(&minilm);
    let found = json(with);
    for (i, name) in ["coco-mask", "refcoco", "imagenet-s"].into_iter().enumerate() {
        let result = &found[i];
        assert_eq!(
            (&result["benchmark"], &result["split"], number(&result["counts"], "pictures")),
            (&name.into(), &"test".into(), 16.0)
        );
        for (key, value) in result["scores"].as_object().expect("scores") {
            let value = value.as_f64().expect("a share");
            assert!((0.0..=1.0).contains(&value), "{name} {key}: {value}");
        }
    }
    assert!(found[0]["published"].as_array().is_some_and(|rows| rows.len() == 3));
    assert_eq!(found[0]["protocol"]["average"], "class");
    // What was encoded is kept beside the data: the second time needs no weights.
    assert_eq!(
        json(eval(&run, &asked)).as_array().map(|all| all[1]["scores"].clone()),
        Some(found[1]["scores"].clone())
    );

    let unknown = refused(eval(&run, &["--bench", "coco"]));
    assert!(unknown.contains("no benchmark `coco`; there are coco-mask, lvis-mask"), "{unknown}");
    let lacks = refused(eval(&run, &["--bench", "flickr30k"]));
    assert!(lacks.contains("pictures with `captions`") && lacks.contains("pixfleet shards ingest jsonl"), "{lacks}");
    let idle = refused(eval(&run, &["--average", "micro"]));
    assert!(idle.contains("--bench NAME"), "{idle}");
}

#[test]
fn a_run_file_asks_for_evaluations_while_it_trains() {
    let run = TestRun::of("evaluating", System::Fgclip);
    let mut train = run.train(1);
    let data = format!("eval.data=\"{}\"", dataset());
    let asked = ["schedule.steps=4", "schedule.warmup=0", "checkpoint.every_steps=2", "eval.every_steps=2", &data];
    for set in asked.into_iter().chain(["eval.bench=[\"coco-box\"]", "eval.options=[\"--split\",\"test\"]"]) {
        train.args(["--set", set]);
    }
    let log = pixfleet_tests::Log::parse(&succeed(train).stdout);
    let told: Vec<&Value> = log.lines.iter().filter(|line| line["event"] == "evaluation").collect();
    let last = told.last().expect("the last checkpoint is evaluated when the run is done");
    assert_eq!(
        (&last["results"][0]["benchmark"], &last["results"][0]["steps"]),
        (&"coco-box".into(), &4.into()),
        "{told:?}"
    );
    assert!(number(&last["results"][0]["scores"], "top1") >= 0.0);

    // An unknown benchmark costs the evaluation and not the run.
    let run = TestRun::of("evaluating-in-vain", System::Fgclip);
    let mut train = run.train(1);
    for set in [
        "schedule.steps=2",
        "schedule.warmup=0",
        "checkpoint.every_steps=2",
        "eval.every_steps=2",
        "eval.bench=[\"koko\"]",
    ] {
        train.args(["--set", set]);
    }
    let log = pixfleet_tests::Log::parse(&succeed(train).stdout);
    let failed = log.lines.iter().find(|line| line["event"] == "evaluation").expect("it is told");
    assert!(failed["failed"].as_str().is_some_and(|cause| cause.contains("koko")), "{failed}");
    assert_eq!(log.losses().len(), 2);
}
