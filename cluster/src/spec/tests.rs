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
