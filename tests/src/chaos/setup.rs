//! What both runs need: the dataset, the store, the run file; and the undisturbed run itself.

use super::store::StoreProxy;
use super::{ChaosArgs, StoreKind};
use crate::fleet::Fleet;
use crate::hosts::Hosts;
use crate::s3::S3;
use crate::steps;
use crate::{compose, pixfleet, run_file, succeed, url};
use anyhow::{Context, Result, bail, ensure};
use object_store::ObjectStoreExt;
use pixfleet_checkpoint::Folder;
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::spec::Reduce;
use serde::Serialize;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Steps by which the machine's pace is taken; the first ones of a process are slow.
const PACE_STEPS: u64 = 16;
/// How much longer a step takes in the disturbed run, all told: measured on two cores.
const DISTURBED: f64 = 1.6;
/// A run that nobody hurts may take this long to its first step, and from step to step.
const HANGS: Duration = Duration::from_secs(120);
/// How often its processes are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Where runs lie in the S3 server.
const RUNS: &str = "s3://pixdata/runs";
/// Where the dataset lies there.
const DATA: &str = "s3://pixdata/mini";

/// See the module.
pub(super) struct ChaosSetting {
    /// Folder of this chaos.
    pub(super) dir: PathBuf,
    /// URL of the dataset.
    data: String,
    /// URL of the folder of both runs.
    store: String,
    /// Overrides of the run file.
    set: Vec<String>,
    s3: Option<S3>,
    /// Whether each process of the disturbed run has a host of its own.
    pub(super) hosts: bool,
}

/// How fast a run went.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StepPace {
    pub(super) workers: u32,
    pub(super) steps: u64,
    /// Median time from step to step.
    pub(super) step_s: f64,
    /// From the first process's start to the last one's end.
    pub(super) whole_s: f64,
}

impl ChaosSetting {
    /// Empties the folder, starts the store, puts the dataset there.
    ///
    /// # Errors
    /// If any of that fails.
    pub(super) fn prepare(args: &ChaosArgs, hosts: bool, runtime: &Handle) -> Result<Self> {
        let out = args.folder();
        let dir = out.join(args.seed.to_string());
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let composed = match &args.dataset {
            Some(folder) => folder.clone(),
            None => composed(&out)?,
        };
        let system = args.system.overrides().into_iter().map(str::to_owned);
        let set: Vec<String> = system.chain(args.set.iter().cloned()).collect();
        if args.store == StoreKind::File {
            let store = url(&dir.join("store"));
            return Ok(Self { data: url(&composed), store, set, s3: None, hosts, dir });
        }
        let s3 = S3::start_in(&dir.join("weed"));
        let setting = Self { data: DATA.into(), store: RUNS.into(), set, s3: Some(s3), hosts, dir };
        runtime.block_on(upload(&composed, &setting.location(DATA)?))?;
        // An index knows when its files were written.
        let mut index = pixfleet(["shards", "index", DATA]);
        index.envs(setting.envs(None));
        succeed(index);
        Ok(setting)
    }

    /// The run file of the run called `name`.
    ///
    /// # Errors
    /// If an override is not one.
    pub(super) fn spec(&self, name: &str, steps: u64) -> Result<RunSpec> {
        let text = run_file(name, &self.data, &self.store);
        let mut overrides: Vec<String> = [
            "train.global_batch=12",
            "train.reduce=exact",
            "train.heartbeat_timeout_ms=2000",
            "train.reconnect_grace_ms=1000",
            "train.collective_timeout_ms=10000",
            "train.stall_ms=5000",
            "train.join_window_ms=500",
            "train.digest_every_steps=10",
            "checkpoint.every_steps=50",
        ]
        .map(str::to_owned)
        .into();
        overrides.push(format!("schedule.steps={steps}"));
        overrides.extend(self.set.iter().cloned());
        RunSpec::parse(&text, &overrides).context("the run file")
    }

    /// How the runs add gradients: whether they are to come out the same, bit for bit.
    ///
    /// # Errors
    /// If an override is not one.
    pub(super) fn reduce(&self) -> Result<Reduce> {
        Ok(self.spec("any", PACE_STEPS)?.train.reduce)
    }

    /// URL of the run called `name`.
    pub(super) fn run_url(&self, name: &str) -> String {
        format!("{}/{name}", self.store)
    }

    /// A folder in the store, past any proxy.
    ///
    /// # Errors
    /// If it is no URL of a store.
    pub(super) fn location(&self, url: &str) -> Result<Folder> {
        Ok(Folder::parse_with(url, self.envs(None).into_iter())?)
    }

    /// What a process needs to reach the store: through `proxy`, or past any.
    pub(super) fn envs(&self, proxy: Option<&StoreProxy>) -> Vec<(String, String)> {
        let Some(s3) = &self.s3 else { return Vec::new() };
        let address = proxy.map_or(s3.address(), StoreProxy::address);
        S3::env_at(address).into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Where the proxies listen, so that all processes reach them.
    pub(super) fn door(&self) -> Ipv4Addr {
        if self.hosts { Hosts::gateway() } else { Ipv4Addr::LOCALHOST }
    }

    /// A proxy before the store, if that can have one.
    ///
    /// # Errors
    /// If no port is free.
    pub(super) fn proxy(&self, runtime: &Handle) -> Result<Option<StoreProxy>> {
        self.s3.as_ref().map(|s3| StoreProxy::open(runtime, self.door(), s3.address())).transpose()
    }

    /// A run that nobody hurts, from start to end: a worker a core, which is the fastest.
    ///
    /// # Errors
    /// If it does not end well.
    pub(super) fn undisturbed(&self, name: &str, steps: u64) -> Result<StepPace> {
        let spec = self.spec(name, steps)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = u32::try_from(cores).unwrap_or(u32::MAX).min(spec.train.lanes);
        let mut fleet = Fleet::new(&self.dir.join(name), &spec.to_toml())?;
        fleet.set_envs(self.envs(None));
        let begun = Instant::now();
        fleet.start_coordinator(workers)?;
        for i in 0..workers {
            fleet.start_worker(&format!("w{i}"), &[])?;
        }
        let mut logs = fleet.step_logs();
        let (mut committed, mut progress) = (0, Instant::now());
        while !fleet.is_empty() {
            if let Some(exit) = fleet.reap()?.iter().find(|exit| exit.code() != Some(0)) {
                bail!("nobody hurt it: {}", fleet.last_words(exit));
            }
            logs.refresh()?;
            if logs.commits().len() > committed {
                (committed, progress) = (logs.commits().len(), Instant::now());
            }
            ensure!(progress.elapsed() < HANGS, "run `{name}` hangs; see {}/logs", self.dir.join(name).display());
            std::thread::sleep(LOOK);
        }
        logs.refresh()?;
        let step_s = steps::step_median_s(logs.commits()).context("no step has been timed")?;
        Ok(StepPace { workers, steps, step_s, whole_s: begun.elapsed().as_secs_f64() })
    }

    /// Steps of a run that lasts about `minutes` while it is disturbed.
    ///
    /// # Errors
    /// If the machine's pace cannot be taken.
    pub(super) fn steps_for(&self, minutes: f64) -> Result<u64> {
        let pace = self.undisturbed("pace", PACE_STEPS)?;
        tracing::info!(step_s = pace.step_s, "the machine's pace, undisturbed");
        Ok((minutes * 60.0 / (pace.step_s * DISTURBED)).ceil() as u64)
    }
}

/// The dataset on disk, composed once.
fn composed(out: &Path) -> Result<PathBuf> {
    let (folder, whole) = (out.join("mini"), out.join("mini.complete"));
    if !whole.exists() {
        // What an interrupted composer left.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        compose(&url(&folder), &[]);
        std::fs::write(&whole, "").with_context(|| format!("cannot write {}", whole.display()))?;
    }
    Ok(folder)
}

/// Puts all files of `folder` at `location`.
async fn upload(folder: &Path, location: &Folder) -> Result<()> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))? {
            let path = entry.with_context(|| format!("cannot list {}", next.display()))?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let key = path.strip_prefix(folder).expect("listed below it").to_string_lossy();
            let put = location.store().put(&location.path(&key), bytes.into()).await;
            put.with_context(|| format!("cannot put {key} into {}", location.url()))?;
        }
    }
    Ok(())
}
