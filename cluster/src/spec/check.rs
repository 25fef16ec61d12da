//! What must hold between the values of a run file.

use super::parse::Problem;
use super::{RunSpec, SpotSpec};

/// Questions at a shorter interval tell nothing sooner.
const SPOT_POLL_MS_MIN: u64 = 100;

pub(super) fn check(spec: &RunSpec, problems: &mut Vec<Problem>) {
    let mut bad = |ok: bool, key: &str, message: String| {
        if !ok {
            problems.push(Problem::new(key, message));
        }
    };
    let named = |s: &str| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    let located = |s: &str| url::Url::parse(s).is_ok();
    let (run, data, model, loss) = (&spec.run, &spec.data, &spec.model, &spec.loss);
    let (opt, schedule, train) = (&spec.optimizer, &spec.schedule, &spec.train);

    bad(named(&run.name), "run.name", format!("`{}` must be lower-case letters, digits, `-` or `_`", run.name));
    bad(
        located(&run.store),
        "run.store",
        format!("`{}` is not a URL; expected file:///... or s3://bucket/...", run.store),
    );
    bad(
        located(&data.url),
        "data.url",
        format!("`{}` is not a URL; expected file:///... or s3://bucket/...", data.url),
    );
    bad(named(&data.split), "data.split", format!("`{}` must be lower-case letters, digits, `-` or `_`", data.split));
    for (key, p) in [
        ("data.long_probability", data.long_probability),
        ("data.common_pair", data.common_pair),
        ("data.crop_skip_area", data.crop_skip_area),
        ("data.mask_box", data.mask_box),
        ("loss.label_smoothing", loss.label_smoothing),
        ("loss.ema_decay", loss.ema_decay),
        ("schedule.final_fraction", schedule.final_fraction),
    ] {
        bad((0.0..=1.0).contains(&p), key, format!("{p} lies outside 0..1"));
    }
    bad((1.0..=10.0).contains(&data.crop_scale), "data.crop_scale", format!("{} lies outside 1..10", data.crop_scale));
    bad(data.window_row_groups >= 1, "data.window_row_groups", "must be at least 1".into());
    for (key, n) in [
        ("model.text_proj.width", model.text_proj.width),
        ("model.text_proj.hidden", model.text_proj.hidden),
        ("train.global_batch", train.global_batch),
        ("train.lanes", train.lanes),
        ("train.prefetch_steps", train.prefetch_steps),
        ("train.min_workers", train.min_workers),
        ("checkpoint.keep", spec.checkpoint.keep),
    ] {
        bad(n >= 1, key, "must be at least 1".into());
    }
    bad(
        train.max_workers == 0 || train.max_workers >= train.min_workers,
        "train.max_workers",
        format!(
            "{} is less than train.min_workers = {}; 0 means as many as lanes",
            train.max_workers, train.min_workers
        ),
    );
    bad(
        train.lanes >= 1 && train.global_batch.is_multiple_of(train.lanes.max(1)),
        "train.lanes",
        format!("{} does not divide train.global_batch = {}", train.lanes, train.global_batch),
    );
    bad(
        train.min_workers <= train.lanes,
        "train.min_workers",
        format!("{} is more than train.lanes = {}: a worker hosts at least one lane", train.min_workers, train.lanes),
    );
    for (key, x) in [
        ("optimizer.lr", opt.lr),
        ("optimizer.alpha_lr", opt.alpha_lr),
        ("optimizer.text_lr", opt.text_lr),
        ("optimizer.weight_decay", opt.weight_decay),
        ("optimizer.clip_norm", opt.clip_norm),
        ("loss.global_weight", loss.global_weight),
        ("loss.crop_weight", loss.crop_weight),
        ("loss.local_weight", loss.local_weight),
    ] {
        bad(x.is_finite() && x >= 0.0, key, format!("{x} must be finite and not negative"));
    }
    for (key, x) in [("optimizer.beta1", opt.beta1), ("optimizer.beta2", opt.beta2)] {
        bad((0.0..1.0).contains(&x), key, format!("{x} lies outside 0..1"));
    }
    bad(
        opt.layer_decay > 0.0 && opt.layer_decay <= 1.0,
        "optimizer.layer_decay",
        format!("{} lies outside (0, 1]", opt.layer_decay),
    );
    bad(opt.eps > 0.0, "optimizer.eps", "must be positive".into());
    bad(schedule.steps >= 1, "schedule.steps", "must be at least 1".into());
    bad(
        schedule.warmup < schedule.steps.max(1) || schedule.warmup == 0,
        "schedule.warmup",
        format!("{} steps of warm-up in a run of {} steps", schedule.warmup, schedule.steps),
    );
    bad(spec.checkpoint.every_steps >= 1, "checkpoint.every_steps", "must be at least 1".into());
    check_spot(&spec.spot, &mut bad);
}

/// Metadata services speak plain HTTP, and answer too many questions with errors.
fn check_spot(spot: &SpotSpec, bad: &mut impl FnMut(bool, &str, String)) {
    let answers = |s: &str| url::Url::parse(s).is_ok_and(|u| u.scheme() == "http" && u.has_host());
    bad(
        spot.url.is_empty() || answers(&spot.url),
        "spot.url",
        format!("`{}` is no address of a metadata service; expected http://host[:port], or empty", spot.url),
    );
    bad(spot.poll_ms >= SPOT_POLL_MS_MIN, "spot.poll_ms", format!("must be at least {SPOT_POLL_MS_MIN}"));
}
