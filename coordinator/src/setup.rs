//! What the machine and its shell are made from: the run file, what was typed, and what the store says.

use crate::driver::Parts;
use crate::fault::Faults;
use crate::open::{Glance, Opened};
use crate::serve::Config;
use crate::stage::StageSetter;
use crate::view::Frame;
use pixfleet_cluster::journal::{Journal, Nonces};
use pixfleet_cluster::lead::Opening;
use pixfleet_cluster::ledger::Record;
use pixfleet_cluster::run::{Run, RunConfig, Welcome};
use pixfleet_cluster::spec::Rung;
use pixfleet_cluster::{MemberId, RunId, RunSpec};
use pixfleet_proto::pb;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// Generations in a row without a step, after which the run is at fault.
const FRUITLESS_MAX: u32 = 20;
/// Members that may stand by beyond those that train.
const STANDBY_MAX: u32 = 64;

/// What lives longer than one attempt to take the lead.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) notices: broadcast::Sender<pb::Notice>,
    pub(crate) stage: Arc<StageSetter>,
    pub(crate) faults: Faults,
}

/// The machine's beginning.
pub(crate) fn opening(config: &Config, opened: &Opened, glance: &Glance) -> Opening {
    let spec = &config.spec;
    Opening {
        run: Run::new(run_config(config, glance)),
        journal: Journal::new(
            glance.next_segment,
            glance.last_digest.clone(),
            Nonces::new(seed()),
            spec.ladder()[Rung::LedgerPatience],
        ),
        opened: Record::Opened {
            run: spec.run.name.clone(),
            spec_digest: spec.digest(),
            dataset_digest: opened.dataset.digest.clone(),
            seed: spec.run.seed,
            global_batch: spec.train.global_batch,
            leader: glance.takeover.leader,
            address: config.advertise.clone(),
        },
        name: RunId(spec.run.name.clone()),
        spec_digest: spec.digest(),
        dataset_digest: opened.dataset.digest.clone(),
        nonces: Nonces::new(seed()),
    }
}

/// A seed that nobody else draws: `RandomState` has its own from the operating system.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The shell's beginning.
pub(crate) fn parts(config: &Config, opened: &Opened, glance: &Glance, shared: Shared) -> Parts {
    let (spec, leader) = (&config.spec, glance.takeover.leader);
    Parts {
        location: opened.location.clone(),
        keep: spec.checkpoint.keep as usize,
        frame: Frame {
            run: spec.run.name.clone(),
            steps: spec.schedule.steps,
            global_batch: spec.train.global_batch,
            members_max: members_max(spec),
            epoch_len: opened.dataset.shape.total(),
            leader,
        },
        welcome: Welcome {
            member: MemberId(0), // the driver fills it in
            leader,
            run: spec.run.name.clone(),
            spec_toml: spec.to_toml(),
            spec_digest: spec.digest(),
            dataset_digest: opened.dataset.digest.clone(),
            heartbeat_ms: u64::try_from(spec.ladder()[Rung::HeartbeatInterval].as_millis()).unwrap_or(u64::MAX),
        },
        first_member: glance.takeover.first_member,
        address: config.advertise.clone(),
        notices: shared.notices,
        stage: shared.stage,
        faults: shared.faults,
    }
}

fn run_config(config: &Config, glance: &Glance) -> RunConfig {
    let train = &config.spec.train;
    RunConfig {
        expect: config.expect,
        join_window: config.join_window,
        min_workers: train.min_workers,
        max_workers: if train.max_workers == 0 { train.lanes } else { train.max_workers },
        lanes: train.lanes,
        global_batch: train.global_batch,
        steps: config.spec.schedule.steps,
        join_batch: Duration::from_millis(train.join_window_ms),
        ladder: config.spec.ladder(),
        fruitless_max: FRUITLESS_MAX,
        members_max: members_max(&config.spec),
        first_generation: glance.takeover.first_generation,
        resume: glance.resume.clone(),
        recorded: glance.takeover.recorded,
        adopted: glance.takeover.adopted.clone(),
    }
}

fn members_max(spec: &RunSpec) -> u32 {
    spec.train.lanes.saturating_add(STANDBY_MAX)
}
