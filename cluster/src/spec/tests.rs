use super::*;

const SMALL: &str = r#"
[run]
name = "small"
store = "file:///tmp/runs"
[data]
url = "file:///tmp/mini"
[schedule]
steps = 10
warmup = 2
"#;

#[test]
fn a_small_file_parses_and_prints_back() {
    let spec = RunSpec::parse(SMALL, &[]).expect("valid");
    assert_eq!(spec.loss.crop, CropLoss::C1);
    assert_eq!(RunSpec::parse(&spec.to_toml(), &[]).expect("valid"), spec);
}

#[test]
fn a_preset_gives_values_and_single_keys_override_it() {
    let text = format!("{SMALL}\n[loss]\npreset = \"fineclip\"\nlocal_weight = 0.5\n");
    let spec = RunSpec::parse(&text, &["train.lanes=8".into()]).expect("valid");
    assert_eq!((spec.loss.local, spec.loss.teacher, spec.loss.local_weight), (LocalLoss::G1G2, Teacher::NoStop, 0.5));
    assert_eq!(spec.train.lanes, 8);
}

#[test]
fn every_neutral_key_is_a_key_of_its_section() {
    for (section, key) in RunSpec::neutral_keys() {
        // No key takes a list of lists: known ones are of another type, others unknown.
        let error = RunSpec::parse(SMALL, &[format!("{section}.{key}=[[0]]")]).expect_err("no key is such a list");
        assert!(!error.to_string().contains("unknown key"), "{section}.{key}: {error}");
    }
    assert!(RunSpec::is_neutral("train.cache") && !RunSpec::is_neutral("train.lanes") && !RunSpec::is_neutral("cache"));
}

#[test]
fn all_problems_come_at_once_with_their_keys() {
    let text =
        SMALL.replace("steps = 10", "steps = 0\nstepz = 3").replace("[data]", "[data]\nflip = true\ncommon_pair = 1.5");
    let error = RunSpec::parse(&text, &["train.lanes=3".into(), "rum.name=x".into()]).expect_err("invalid");
    let keys: Vec<&str> = error.problems.iter().map(|p| p.key.as_str()).collect();
    for key in ["rum", "data.flip", "schedule.stepz", "data.common_pair", "train.lanes", "schedule.steps"] {
        assert!(keys.contains(&key), "{key} is missing in {keys:?}");
    }
    assert!(error.to_string().contains("data.flip: unknown key; see `pixfleet train --print-plan` for all keys"));
}

#[test]
fn a_wrong_type_names_its_key() {
    let error = RunSpec::parse(SMALL, &["model.text_proj.width=\"wide\"".into()]).expect_err("invalid");
    assert_eq!(error.problems[0].key, "model.text_proj.width");
}

#[test]
fn what_is_evaluated_is_a_checkpoint_and_has_a_benchmark() {
    let keys = |set: &[&str]| -> Vec<String> {
        let set: Vec<String> = set.iter().map(|s| (*s).to_string()).collect();
        match RunSpec::parse(SMALL, &set) {
            Ok(_) => Vec::new(),
            Err(error) => error.problems.into_iter().map(|p| p.key).collect(),
        }
    };
    let every = "checkpoint.every_steps=50";
    assert!(keys(&[every, "eval.every_steps=100", "eval.bench=[\"coco-box\"]"]).is_empty());
    assert_eq!(keys(&[every, "eval.every_steps=75", "eval.bench=[\"coco-box\"]"]), ["eval.every_steps"]);
    assert_eq!(keys(&[every, "eval.every_steps=50"]), ["eval.bench"]);
    assert_eq!(keys(&[every, "eval.bench=[\"coco-box\"]"]), ["eval.bench"]);
    assert_eq!(keys(&[every, "eval.every_steps=50", "eval.bench=[\"coco-box\"]", "eval.data=coco"]), ["eval.data"]);
}

#[test]
fn a_spot_section_names_its_provider_and_what_is_wrong_with_it() {
    let spec = RunSpec::parse(SMALL, &[]).expect("valid");
    assert_eq!(spec.spot, SpotSpec { provider: SpotProvider::None, url: String::new(), poll_ms: 2_000 });
    let set = ["spot.provider=azure", "spot.url=http://127.0.0.1:9", "spot.poll_ms=100"].map(String::from);
    let spec = RunSpec::parse(SMALL, &set).expect("valid");
    assert_eq!(spec.spot, SpotSpec { provider: SpotProvider::Azure, url: "http://127.0.0.1:9".into(), poll_ms: 100 });

    let bad = ["spot.url=https://host", "spot.poll_ms=99", "spot.polls=3"].map(String::from);
    let error = RunSpec::parse(SMALL, &bad).expect_err("invalid");
    let mut keys: Vec<&str> = error.problems.iter().map(|p| p.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["spot.poll_ms", "spot.polls", "spot.url"]);
    let error = RunSpec::parse(SMALL, &["spot.provider=ibm".into()]).expect_err("invalid");
    assert_eq!(error.problems[0].key, "spot.provider");
    assert!(error.problems[0].message.contains("`aws`"), "{error}");
}

#[test]
fn terms_and_towers_of_two_systems_do_not_mix() {
    let keys = |set: &[&str]| {
        let set: Vec<String> = set.iter().map(|s| (*s).to_string()).collect();
        let error = RunSpec::parse(SMALL, &set).expect_err("invalid");
        error.problems.into_iter().map(|p| p.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(&["loss.hard=true", "loss.region=lane"]), ["loss.region", "loss.hard"]);
    assert_eq!(keys(&["loss.preset=fgclip1-stage2"]), ["model.alpha_init", "model.text"]);
    assert_eq!(keys(&["model.vision=clip-b16", "model.text=clip-l14"]), ["model.text"]);
    assert_eq!(keys(&["data.regions=0", "data.long_tokens=2"]), ["data.regions", "data.long_tokens"]);
    let good = ["loss.preset=fgclip1-stage2", "model.vision=clip-b16", "model.text=clip-b16", "model.alpha_init=none"];
    let spec = RunSpec::parse(SMALL, &good.map(String::from)).expect("valid");
    assert_eq!((spec.loss.region, spec.loss.hard, spec.needs().regions), (RegionLoss::Global, true, 4));
    assert_eq!(RunSpec::parse(&spec.to_toml(), &[]).expect("valid"), spec);
}
