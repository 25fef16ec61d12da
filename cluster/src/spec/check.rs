//! What must hold between the values of a run file.

use super::ladder::{Ladder, PATIENCE_MS};
use super::parse::Problem;
use super::{
    AlphaInit, CheckpointSpec, DataSpec, EvalSpec, GlobalLoss, LossSpec, ModelSpec, OptimizerSpec, RunSection, RunSpec,
    ScheduleSpec, SpotSpec, TrainSpec,
};

/// Questions at a shorter interval tell nothing sooner.
const SPOT_POLL_MS_MIN: u64 = 100;
/// Regions of an image beyond this are a mistake: each slot is exchanged whether it holds a region or not.
const REGIONS_MAX: u32 = 64;

/// Notes a problem of `key` unless something holds.
pub(super) trait Bad: FnMut(bool, &str, String) {}
impl<F: FnMut(bool, &str, String)> Bad for F {}

pub(super) fn check(spec: &RunSpec, problems: &mut Vec<Problem>) {
    let mut bad = |ok: bool, key: &str, message: String| {
        if !ok {
            problems.push(Problem::new(key, message));
        }
    };
    check_run(&spec.run, &mut bad);
    check_data(&spec.data, &mut bad);
    check_model(&spec.model, &mut bad);
    spec.loss.check(&mut bad);
    check_system(&spec.loss, &spec.model, &mut bad);
    check_optimizer(&spec.optimizer, &mut bad);
    check_schedule(&spec.schedule, &mut bad);
    check_train(&spec.train, &mut bad);
    check_checkpoint(&spec.checkpoint, &mut bad);
    check_spot(&spec.spot, &mut bad);
    check_eval(&spec.eval, &spec.checkpoint, &mut bad);
    check_timeouts(&spec.run, &spec.train, problems);
}

fn named(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

fn check_name(key: &str, name: &str, bad: &mut impl Bad) {
    bad(named(name), key, format!("`{name}` must be lower-case letters, digits, `-` or `_`"));
}

fn check_url(key: &str, at: &str, bad: &mut impl Bad) {
    bad(url::Url::parse(at).is_ok(), key, format!("`{at}` is not a URL; expected file:///... or s3://bucket/..."));
}

pub(super) fn check_share(key: &str, p: f64, bad: &mut impl Bad) {
    bad((0.0..=1.0).contains(&p), key, format!("{p} lies outside 0..1"));
}

fn check_count(key: &str, n: u32, bad: &mut impl Bad) {
    bad(n >= 1, key, "must be at least 1".into());
}

pub(super) fn check_weight(key: &str, x: f64, bad: &mut impl Bad) {
    bad(x.is_finite() && x >= 0.0, key, format!("{x} must be finite and not negative"));
}

fn check_run(run: &RunSection, bad: &mut impl Bad) {
    check_name("run.name", &run.name, bad);
    check_url("run.store", &run.store, bad);
}

fn check_data(data: &DataSpec, bad: &mut impl Bad) {
    check_url("data.url", &data.url, bad);
    check_name("data.split", &data.split, bad);
    check_share("data.long_probability", data.long_probability, bad);
    check_share("data.common_pair", data.common_pair, bad);
    check_share("data.crop_skip_area", data.crop_skip_area, bad);
    check_share("data.mask_box", data.mask_box, bad);
    bad((1.0..=10.0).contains(&data.crop_scale), "data.crop_scale", format!("{} lies outside 1..10", data.crop_scale));
    check_count("data.window_row_groups", data.window_row_groups, bad);
    bad(
        (1..=REGIONS_MAX).contains(&data.regions),
        "data.regions",
        format!("{} lies outside 1..{REGIONS_MAX}", data.regions),
    );
    for (key, tokens) in [("data.long_tokens", data.long_tokens), ("data.short_tokens", data.short_tokens)] {
        bad(tokens >= 3, key, format!("{tokens} tokens are start and end and no text; expected at least 3"));
    }
}

fn check_model(model: &ModelSpec, bad: &mut impl Bad) {
    check_count("model.text_proj.width", model.text_proj.width, bad);
    check_count("model.text_proj.hidden", model.text_proj.hidden, bad);
    if let Some(embed) = model.text.embed() {
        bad(
            embed == model.vision.embed(),
            "model.text",
            format!("its embeddings have {embed} numbers, those of model.vision {}", model.vision.embed()),
        );
    }
}

/// Towers that can feed the terms.
fn check_system(loss: &LossSpec, model: &ModelSpec, bad: &mut impl Bad) {
    let has_alpha = model.alpha_init != AlphaInit::None;
    match loss.global {
        GlobalLoss::MaskText => {
            let cure = "this loss shows a region by its mask, and a tower without an alpha convolution takes none; \
                        expected `zero` or `random`";
            bad(has_alpha, "model.alpha_init", cure.into());
        }
        GlobalLoss::Captions => {
            let cure = "this loss shows no mask, so an alpha convolution would learn nothing; expected `none`";
            bad(!has_alpha, "model.alpha_init", cure.into());
            let cure = "image captions and hard negatives are read as tokens; expected `clip-b16`, `clip-l14` or \
                        `tiny-clip`";
            bad(model.text.reads_tokens(), "model.text", cure.into());
        }
    }
}

fn check_optimizer(opt: &OptimizerSpec, bad: &mut impl Bad) {
    for (key, x) in [
        ("optimizer.lr", opt.lr),
        ("optimizer.alpha_lr", opt.alpha_lr),
        ("optimizer.text_lr", opt.text_lr),
        ("optimizer.weight_decay", opt.weight_decay),
        ("optimizer.clip_norm", opt.clip_norm),
    ] {
        check_weight(key, x, bad);
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
}

fn check_schedule(schedule: &ScheduleSpec, bad: &mut impl Bad) {
    check_share("schedule.final_fraction", schedule.final_fraction, bad);
    bad(schedule.steps >= 1, "schedule.steps", "must be at least 1".into());
    bad(
        schedule.warmup < schedule.steps.max(1) || schedule.warmup == 0,
        "schedule.warmup",
        format!("{} steps of warm-up in a run of {} steps", schedule.warmup, schedule.steps),
    );
}

fn check_train(train: &TrainSpec, bad: &mut impl Bad) {
    check_count("train.global_batch", train.global_batch, bad);
    check_count("train.lanes", train.lanes, bad);
    check_count("train.prefetch_steps", train.prefetch_steps, bad);
    check_count("train.prefetch_mib", train.prefetch_mib, bad);
    check_count("train.min_workers", train.min_workers, bad);
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
}

fn check_checkpoint(checkpoint: &CheckpointSpec, bad: &mut impl Bad) {
    check_count("checkpoint.keep", checkpoint.keep, bad);
    bad(checkpoint.every_steps >= 1, "checkpoint.every_steps", "must be at least 1".into());
}

/// Each timeout beside those that it must outlast. A silence that is too short to be one makes no ladder.
fn check_timeouts(run: &RunSection, train: &TrainSpec, problems: &mut Vec<Problem>) {
    let (least, most) = (*PATIENCE_MS.start(), *PATIENCE_MS.end());
    let known = problems.len();
    if !PATIENCE_MS.contains(&train.patience_ms) {
        let message = format!("{} lies outside {least}..{most}", train.patience_ms);
        problems.push(Problem::new("train.patience_ms", message));
    }
    if let Some(silence) = train.heartbeat_timeout_ms.filter(|&silence| silence < least) {
        let message =
            format!("{silence} is less than {least}, after which a process that is merely busy counts as dead");
        problems.push(Problem::new("train.heartbeat_timeout_ms", message));
    }
    if problems.len() == known {
        problems.extend(Ladder::of(run, train).problems());
    }
}

fn check_eval(eval: &EvalSpec, checkpoint: &CheckpointSpec, bad: &mut impl Bad) {
    let every = checkpoint.every_steps;
    bad(
        eval.every_steps == 0 || (every > 0 && eval.every_steps.is_multiple_of(every)),
        "eval.every_steps",
        format!("{} is no multiple of checkpoint.every_steps = {every}: checkpoints are evaluated", eval.every_steps),
    );
    bad(
        (eval.every_steps == 0) == eval.bench.is_empty(),
        "eval.bench",
        "expected benchmarks with eval.every_steps, and none without (docs/benchmarks.md has them all)".into(),
    );
    if !eval.data.is_empty() {
        check_url("eval.data", &eval.data, bad);
    }
}

/// Metadata services speak plain HTTP, and answer too many questions with errors.
fn check_spot(spot: &SpotSpec, bad: &mut impl Bad) {
    let answers = |s: &str| url::Url::parse(s).is_ok_and(|u| u.scheme() == "http" && u.has_host());
    bad(
        spot.url.is_empty() || answers(&spot.url),
        "spot.url",
        format!("`{}` is no address of a metadata service; expected http://host[:port], or empty", spot.url),
    );
    bad(spot.poll_ms >= SPOT_POLL_MS_MIN, "spot.poll_ms", format!("must be at least {SPOT_POLL_MS_MIN}"));
}
