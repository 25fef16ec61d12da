//! Ranks as threads, towers of a few thousand parameters: the result must not depend on the number of ranks.

use super::*;
use crate::train::inputs::Stager;
use crate::train::snapshot::Snapshot;
use crate::train::state;
use pixfleet_checkpoint::{HostTensor, PartKey};
use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{AlphaInit, LastBlock, Reduce};
use pixfleet_cluster::{Generation, Rank, SampleId};
use pixfleet_collective::{Backend, GroupConfig, HashStore, RendezvousStore};
use pixfleet_model::VisionSizes;
use pixfleet_model::clip::ClipVisionConfig;
use pixfleet_model::vision::VisionConfig;
use pixfleet_shards::batch::{Batch, BatchTexts};
use std::sync::Arc;
use tch::Tensor;

const SIDE: i64 = 24;
const TEXT: usize = 12;
const LANES: u32 = 6;
const LANE_SIZE: u32 = 2;

const RUN: &str = r#"
[run]
name = "t"
seed = 3
store = "file:///t"
[data]
url = "file:///t"
[model]
vision = "tiny"
alpha_init = "random"
text_proj = { width = 12, hidden = 16, layers = 1 }
[optimizer]
lr = 1e-3
alpha_lr = 1e-3
text_lr = 1e-3
layer_decay = 1.0
[schedule]
steps = 10
warmup = 2
[train]
global_batch = 12
lanes = 6
precision = "fp32"
"#;

/// Towers of a few thousand parameters.
fn sizes(spec: &RunSpec) -> VisionSizes {
    if let Some(clip) = ClipVisionConfig::of(&spec.model) {
        // As wide in the joint space as the text tower, whose vocabulary is CLIP's own.
        let small = ClipVisionConfig { image: SIDE, patch: 8, width: 32, depth: 2, heads: 2, hidden: 48, ..clip };
        return VisionSizes::Clip(small);
    }
    VisionSizes::Eva(VisionConfig {
        image: SIDE,
        patch: 8,
        width: 32,
        depth: 2,
        heads: 2,
        hidden: 48,
        embed: 16,
        rope_grid: 16,
        head_std: 0.05,
        alpha_init: AlphaInit::Random,
        last_block: LastBlock::Normal,
    })
}

/// FG-CLIP's second stage over regions of one scope.
fn fgclip(region: &'static str) -> [&'static str; 6] {
    [
        "loss.preset=\"fgclip1-stage2\"",
        "model.vision=tiny-clip",
        "model.text=tiny-clip",
        "model.alpha_init=none",
        "data.regions=2",
        region,
    ]
}

fn core(overrides: &[&str]) -> Core {
    // Of the calling thread, which is a rank's; several spinning threads a rank would starve each other.
    tch::set_num_threads(1);
    let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_string()).collect();
    let spec = RunSpec::parse(RUN, &overrides).expect("valid");
    let needs = spec.needs();
    let sizes = sizes(&spec);
    let mut model = Model::with_sizes(&spec.model, &needs, &sizes, spec.run.seed, Device::Cpu);
    model.start_teacher(&needs);
    let optimizer = AdamW::new(&spec.optimizer, &model.params).expect("an optimizer");
    Core {
        objective: Objective::new(&needs, &spec.loss).with_gathered(Compute::from(spec.train.gather).dtype),
        scales: None,
        needs,
        spec,
        model,
        optimizer,
        weights: None,
        device: Device::Cpu,
        name: "w0".into(),
        faults: Faults::default(),
        clock_waits: false,
        dump_gradients: None,
    }
}

/// A made-up lane; every third crop does not count.
fn batch(step: u64, lane: u32) -> Batch {
    let n = LANE_SIZE as usize;
    let area = (SIDE * SIDE) as usize;
    let valid = |set: Set| {
        let crop = matches!(set, Set::Crop | Set::Teacher);
        let counts = |row: &u32| !crop || !(lane * LANE_SIZE + row).is_multiple_of(3);
        (0..LANE_SIZE).filter(counts).collect::<Vec<u32>>()
    };
    let start = f64::from(lane) * 1.7 + step as f64 * 0.9;
    let wave = |count: usize, pace: f64| (0..count).map(|i| (start + i as f64 * pace).sin() as f32).collect::<Vec<_>>();
    let bytes = |count, pace| wave(count, pace).into_iter().map(|v| (127.5 + 127.0 * v) as u8).collect();
    Batch {
        n,
        size: SIDE as usize,
        pixels: bytes(n * 3 * area, 0.013),
        mask: bytes(n * area, 0.051),
        crop_pixels: bytes(n * 3 * area, 0.029),
        crop_mask: bytes(n * area, 0.047),
        slots: [Set::Crop, Set::Teacher, Set::Region, Set::RegionText].map(|set| (set, valid(set))).into(),
        boxes: vec![[0.1, 0.2, 0.7, 0.9]; n],
        texts: [(Set::RegionText, BatchTexts::Vectors { width: TEXT, values: wave(n * TEXT, 0.37) })].into(),
        samples: vec![SampleId { epoch: 0, row_group: 0, row: 0 }; n],
        ..Batch::default()
    }
}

/// A made-up lane with captions; only the last two lanes have regions, the first row of each two, with negatives in one.
fn captioned(step: u64, lane: u32) -> Batch {
    let regions: Vec<u32> = if lane + 2 >= LANES { vec![0, 1, 2] } else { Vec::new() };
    let text = |salt: u32| -> Vec<u32> {
        let mut ids = vec![pixfleet_shards::tokens::START];
        ids.extend((0..3 + (salt + lane) % 5).map(|i| 400 + (salt * 37 + lane * 11 + i * 5 + step as u32) % 900));
        ids.push(pixfleet_shards::tokens::END);
        ids
    };
    let texts = |count: u32, salt: u32| BatchTexts::Tokens((0..count).map(|i| text(salt + i)).collect());
    let (rows, count) = (vec![0, 1], regions.len() as u32);
    let hard: Vec<u32> = regions.iter().copied().filter(|slot| *slot == 1).collect();
    let choices = hard.len() as u32 * 11;
    Batch {
        slots: [
            (Set::LongText, rows.clone()),
            (Set::ShortText, rows),
            (Set::Region, regions.clone()),
            (Set::RegionText, regions.clone()),
            (Set::HardText, hard),
        ]
        .into(),
        boxes: (0..count).map(|i| [0.1, 0.1 * i as f32, 0.7, 0.9]).collect(),
        texts: [
            (Set::LongText, texts(2, 1)),
            (Set::ShortText, texts(2, 5)),
            (Set::RegionText, texts(count, 9)),
            (Set::HardText, texts(choices, 20)),
        ]
        .into(),
        regions: regions.iter().map(|slot| Some(slot % 2)).collect(),
        mask: Vec::new(),
        crop_pixels: Vec::new(),
        crop_mask: Vec::new(),
        ..batch(step, lane)
    }
}

fn batch_of(core: &Core, step: u64, lane: u32) -> Batch {
    if core.needs.draws_region() { batch(step, lane) } else { captioned(step, lane) }
}

/// One step, staged as the trainer stages it.
fn one_step(core: &mut Core, peering: &mut Peering<'_>, mut own: Vec<Batch>, step: u64) -> Stepped {
    let staged =
        Stager::new(&core.needs, core.device).and_then(|stager| stager.stage(&mut own)).expect("a staged step");
    let mut called = 0;
    let stepped = core.step(peering, &staged, (Step(step), Wish::default()), || called += 1).expect("a step");
    assert_eq!(called, 1, "the next step is staged while this one runs");
    stepped
}

type Losses = Vec<f64>;

/// Five steps on `world` ranks: losses by step, and the state's values at the end, of every rank.
fn trained(world: u32, overrides: &[&str]) -> Vec<(Losses, Vec<Vec<f32>>)> {
    let store: Arc<dyn RendezvousStore> = Arc::new(HashStore::new());
    let rank_steps = |rank: u32, store: Arc<dyn RendezvousStore>| {
        let group = Group::new(Backend::Gloo, store, GroupConfig::loopback(rank, world, 1)).expect("a group");
        let mut core = core(overrides);
        let lanes = LaneMap::new(LANES, LANE_SIZE, world).expect("fewer ranks than lanes");
        let reduction = Reduction::new(core.spec.train.reduce, &group, &core.model.params).expect("a reducer");
        let mut peering = Peering { group: &group, reduction, lanes };
        let losses = (0..5).map(|step| {
            let own: Vec<Batch> = lanes.lanes_of(Rank(rank)).map(|lane| batch_of(&core, step, lane)).collect();
            one_step(&mut core, &mut peering, own, step).losses.total
        });
        let losses: Losses = losses.collect();
        drop(peering);
        group.finish().expect("all came");
        let values = |t: Tensor| Vec::<f32>::try_from(t.reshape([-1])).expect("numbers");
        (losses, state::named(&mut core).into_iter().map(|(_, t)| values(t)).collect())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..world)
            .map(|rank| (rank, Arc::clone(&store)))
            .map(|(r, s)| scope.spawn(move || rank_steps(r, s)))
            .collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    })
}

fn assert_close(a: &[f64], b: &[f64], relative: f64, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (step, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= relative * x.abs(), "{what}, step {step}: {x} against {y}");
    }
}

#[test]
fn losses_and_state_do_not_depend_on_the_world_size() {
    for overrides in [&["loss.preset=\"default\""][..], &["loss.preset=\"fineclip\""], &["loss.teacher=\"ema\""]] {
        let alone = &trained(1, overrides)[0];
        assert!(alone.0[4] < alone.0[0], "five steps learn something: {:?}", alone.0);
        for world in [2, 3, 4] {
            let ranks = trained(world, overrides);
            for rank in &ranks {
                assert_close(&alone.0, &rank.0, 1e-5, &format!("{overrides:?}, world {world}"));
                assert_eq!(rank.0, ranks[0].0, "every rank reports the same bits");
                assert_eq!(rank.1, ranks[0].1, "every rank holds the same bits");
            }
        }
    }
}

/// FG-CLIP, also where two of three ranks have no region at all.
#[test]
fn fgclip_does_not_depend_on_the_world_size() {
    for region in ["loss.region=global", "loss.region=lane"] {
        let overrides = fgclip(region);
        let alone = &trained(1, &overrides)[0];
        assert!(alone.0[4] < alone.0[0], "five steps learn something: {:?}", alone.0);
        for world in [2, 3] {
            let ranks = trained(world, &overrides);
            for rank in &ranks {
                assert_close(&alone.0, &rank.0, 1e-5, &format!("{region}, world {world}"));
                assert_eq!(rank.0, ranks[0].0, "every rank reports the same bits");
            }
        }
    }
}

/// Lanes that run twice cost time and change no bit.
#[test]
fn features_and_graphs_are_the_same_bits() {
    for reduce in ["train.reduce=fast", "train.reduce=exact"] {
        for preset in [&["loss.preset=\"default\""][..], &fgclip("loss.region=global")] {
            let of = |cache: &'static str| trained(2, &[preset, &[reduce, cache]].concat());
            assert!(of("train.cache=features") == of("train.cache=graphs"), "{preset:?} {reduce}");
        }
    }
}

/// Blocks that run twice likewise, in both towers and both arithmetics.
#[test]
fn recomputed_and_kept_blocks_are_the_same_bits() {
    for precision in ["train.precision=fp32", "train.precision=bf16"] {
        for preset in [&["loss.preset=\"default\""][..], &fgclip("loss.region=global")] {
            let of = |recompute: &'static str| trained(2, &[preset, &[precision, recompute]].concat());
            let kept = of("train.recompute=none");
            assert!(kept[0].0[4] != kept[0].0[0], "five steps change something: {:?}", kept[0].0);
            assert!(of("train.recompute=blocks") == kept, "{preset:?} {precision}");
        }
    }
}

/// Which slots hold an item, and what the step came to. The first step also reads the temperatures.
#[test]
fn a_step_reads_the_device_twice() {
    for overrides in [vec!["loss.teacher=\"ema\""], fgclip("loss.region=global").to_vec()] {
        let mut core = core(&overrides);
        stepped(&mut core, 0..1);
        let before = pixfleet_model::host::reads();
        stepped(&mut core, 1..4);
        assert_eq!(pixfleet_model::host::reads() - before, 3 * 2);
    }
}

#[test]
fn an_exact_reduction_gives_the_same_bits_whatever_the_world_size() {
    let presets = ["default", "2cl", "fineclip", "direct", "alphaclip"].map(|p| format!("loss.preset=\"{p}\""));
    let presets = presets.iter().map(|preset| vec![preset.as_str()]);
    for preset in presets.chain(["loss.region=global", "loss.region=lane"].map(|region| fgclip(region).to_vec())) {
        let overrides: Vec<&str> = preset.iter().copied().chain(["train.reduce=\"exact\""]).collect();
        let alone = &trained(1, &overrides)[0];
        for world in [2, 3, 4] {
            for rank in trained(world, &overrides) {
                assert!(rank == *alone, "{preset:?}, world {world}: {:?} and {:?}", rank.0, alone.0);
            }
        }
        let fast = &trained(1, &preset)[0];
        assert_close(&alone.0, &fast.0, 1e-5, "the same sums in another order");
    }
}

/// `fast` sends what a ring all-reduce does, and `exact` the same where a rank has one partial sum.
#[test]
fn a_step_tells_the_bytes_that_it_sent_for_gradients() {
    const WORLD: u32 = 3;
    let store: Arc<dyn RendezvousStore> = Arc::new(HashStore::new());
    let of_rank = |rank: u32| {
        [Reduce::Fast, Reduce::Exact].map(|reduce| {
            let config = GroupConfig::loopback(rank, WORLD, reduce as u64);
            let group = Group::new(Backend::Gloo, Arc::clone(&store), config).expect("a group");
            let mut core = core(&[]);
            let lanes = LaneMap::new(LANES, LANE_SIZE, WORLD).expect("fewer ranks than lanes");
            let reduction = Reduction::new(reduce, &group, &core.model.params).expect("gradients");
            let mut peering = Peering { group: &group, reduction, lanes };
            let own: Vec<Batch> = lanes.lanes_of(Rank(rank)).map(|lane| batch_of(&core, 0, lane)).collect();
            let stepped = one_step(&mut core, &mut peering, own, 0);
            drop(peering);
            group.finish().expect("all came");
            let numbers: usize = core.model.params.trainable().map(|param| param.tensor().numel()).sum();
            stepped.metrics["reduce_bytes"] / numbers as f64
        })
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..WORLD).map(|rank| scope.spawn(move || of_rank(rank))).collect();
        for told in ranks.into_iter().map(|thread| thread.join().expect("no panic")) {
            assert!(told.iter().all(|bytes| (bytes - 4.0 * 4.0 / 3.0).abs() < 0.01), "{told:?} a number");
        }
    });
}

fn values(core: &mut Core) -> Vec<(String, Vec<f32>)> {
    let all = state::named(core).into_iter();
    all.map(|(name, t)| (name, Vec::<f32>::try_from(t.reshape([-1])).expect("numbers"))).collect()
}

/// A few steps alone, on a state of its own.
fn stepped(core: &mut Core, steps: std::ops::Range<u64>) -> Losses {
    let store: Arc<dyn RendezvousStore> = Arc::new(HashStore::new());
    let group = Group::new(Backend::Gloo, store, GroupConfig::loopback(0, 1, 1)).expect("a group");
    let lanes = LaneMap::new(LANES, LANE_SIZE, 1).expect("one rank");
    let reduction = Reduction::new(core.spec.train.reduce, &group, &core.model.params).expect("a reducer");
    let mut peering = Peering { group: &group, reduction, lanes };
    let run = |step| {
        let own: Vec<Batch> = (0..LANES).map(|lane| batch_of(core, step, lane)).collect();
        one_step(core, &mut peering, own, step).losses.total
    };
    steps.map(run).collect()
}

#[test]
fn a_run_goes_on_from_a_snapshot_as_if_nothing_had_happened() {
    let overrides = ["loss.teacher=\"ema\""];
    let mut whole = core(&overrides);
    stepped(&mut whole, 0..3);
    let state = state::named(&mut whole);
    // Written by three ranks.
    let shares = (0..3).map(Rank).map(|rank| {
        let key = PartKey { step: Step(3), generation: Generation(1), rank, world: 3 };
        Snapshot::take(key, &state).expect("copied").tensors
    });
    let saved: Vec<HostTensor> = shares.flatten().collect();
    assert_eq!(saved.len(), state.len());

    let mut resumed = core(&overrides);
    state::restore(&mut resumed, &saved, Step(3)).expect("the same model");
    assert_eq!(values(&mut resumed), values(&mut whole));
    assert_eq!(stepped(&mut resumed, 3..6), stepped(&mut whole, 3..6));
    assert_eq!(values(&mut resumed), values(&mut whole));

    let error = state::restore(&mut resumed, &saved[1..], Step(3)).expect_err("a tensor is missing");
    assert!(error.sentence().contains(&saved[0].name), "{}", error.sentence());
}

#[test]
fn a_joiner_takes_over_the_state_of_the_source() {
    let store: Arc<dyn RendezvousStore> = Arc::new(HashStore::new());
    let rank_values = |rank: u32, store: Arc<dyn RendezvousStore>| {
        let group = Group::new(Backend::Gloo, store, GroupConfig::loopback(rank, 2, 1)).expect("a group");
        // The source is rank 1 and two steps ahead.
        let mut core = core(&[]);
        if rank == 1 {
            stepped(&mut core, 0..2);
        }
        state::broadcast(&mut core, &group, 1, Step(2)).expect("both came");
        group.finish().expect("both came");
        (core.optimizer.steps(), values(&mut core))
    };
    let ranks: Vec<_> = std::thread::scope(|scope| {
        let stores = [(0, Arc::clone(&store)), (1, Arc::clone(&store))];
        let threads = stores.map(|(rank, store)| scope.spawn(move || rank_values(rank, store)));
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    assert_eq!(ranks[0], ranks[1]);
    assert_eq!(ranks[0].0, 2);
    assert_ne!(ranks[0].1, values(&mut core(&[])), "two steps change the state");
}
