//! The harness of the end-to-end tests: the real programs, a small real dataset, run files, and what a run printed.

pub mod annotate_soak;
pub mod chaos;
pub mod dice;
pub mod embed_soak;
pub mod far;
pub mod fleet;
pub mod healing;
pub mod hosts;
pub mod hub_standin;
pub mod leaderless;
pub mod poll;
pub mod s3;
mod sharing;
pub mod standin;
pub mod stats;
pub mod steps;
pub mod system;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use system::System;

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate").to_path_buf()
}

/// A program that `make test` has built: `target/<profile>/<name>`, beside the folder of the tests.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program has a path");
    let folder = own.parent().expect("a program lies in a folder");
    let folder =
        if folder.ends_with("deps") { folder.parent().expect("deps lies in target/<profile>") } else { folder };
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --bins --workspace` first (make test does)",
        path.display()
    );
    path
}

/// `pixfleet` with `args`, quiet and without this machine's store credentials.
pub fn pixfleet<I: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(program("pixfleet"));
    command.args(args).env("RUST_LOG", "warn").env_remove("PIXFLEET_FAULT").current_dir(root());
    command
}

/// Runs to the end and demands success.
pub fn succeed(mut command: Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A file:// URL of a path.
pub fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// A folder for this test process under target/, emptied once.
pub fn scratch() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = program("pixfleet").with_file_name("it-scratch");
        if dir.exists() {
            std::fs::remove_dir_all(&dir).expect("the scratch folder is ours");
        }
        std::fs::create_dir_all(&dir).expect("target/ is writable");
        dir
    })
}

/// Scenes of the small dataset's train split: 20 steps of 24 samples are four epochs.
pub const SCENES: u32 = 120;

/// Composes the small dataset at `to`, indexes it and embeds its captions: the real composer, the real encoder.
pub fn compose(to: &str, envs: &[(&str, &str)]) {
    let cache = root().join(".cache");
    let (drawings, minilm) = (cache.join("drawings"), cache.join("minilm"));
    let scenes = SCENES.to_string();
    let mut build =
        pixfleet(["shards", "build", "mini", "--scenes", &scenes, "--seed", "7", "--out", to, "--drawings"]);
    build.arg(drawings);
    let index = pixfleet(["shards", "index", to]);
    let mut embed = pixfleet(["shards", "embed", to, "--split", "train,test", "--encoder", "minilm", "--weights"]);
    embed.arg(minilm);
    for mut command in [build, index, embed] {
        command.envs(envs.iter().copied());
        succeed(command);
    }
}

/// The small dataset on disk, composed once per test process.
pub fn dataset() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let url = url(&scratch().join("mini"));
        compose(&url, &[]);
        url
    })
}

/// A small run on [`dataset`]: fp32, 24 samples a step in 6 lanes, checkpoints every 10 steps.
pub fn run_file(name: &str, data: &str, store: &str) -> String {
    format!(
        r#"
[run]
name = "{name}"
seed = 11
store = "{store}"
[data]
url = "{data}"
vectors = "minilm-plain-256"
window_row_groups = 4
[model]
vision = "tiny"
text_proj = {{ width = 384, hidden = 384, layers = 1 }}
[optimizer]
lr = 3e-4
alpha_lr = 3e-4
text_lr = 3e-4
[schedule]
steps = 20
warmup = 5
[train]
global_batch = 24
lanes = 6
precision = "fp32"
collective_timeout_ms = 30000
[checkpoint]
every_steps = 10
keep = 2
"#
    )
}

/// A run file in a folder of its own.
pub struct TestRun {
    /// The folder: `run.toml`, `store/`.
    pub dir: PathBuf,
    /// The run's name.
    pub name: String,
    /// What it trains.
    system: System,
}

impl TestRun {
    /// A small run of PixCLIP called `name` on the dataset.
    pub fn new(name: &str) -> Self {
        Self::of(name, System::Pixclip)
    }

    /// A small run of `system`.
    pub fn of(name: &str, system: System) -> Self {
        let dir = scratch().join(name);
        std::fs::create_dir_all(&dir).expect("scratch is writable");
        let text = run_file(name, dataset(), &url(&dir.join("store")));
        std::fs::write(dir.join("run.toml"), text).expect("scratch is writable");
        Self { dir, name: name.to_string(), system }
    }

    /// `pixfleet train` of this run with `workers`, logging JSON lines.
    pub fn train(&self, workers: u32) -> Command {
        let mut command = pixfleet(["train"]);
        command.arg(self.dir.join("run.toml")).args(["--workers", &workers.to_string(), "--log", "json"]);
        for set in self.system.overrides() {
            command.args(["--set", set]);
        }
        command
    }

    /// URL of the run's folder in its store.
    pub fn url(&self) -> String {
        format!("{}/{}", url(&self.dir.join("store")), self.name)
    }
}

/// What a run printed under `--log json`.
#[derive(Debug, Default)]
pub struct Log {
    /// Every line.
    pub lines: Vec<Value>,
}

impl Log {
    /// Parses standard output.
    pub fn parse(stdout: &[u8]) -> Self {
        let text = String::from_utf8_lossy(stdout);
        let lines = text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("not JSON ({e}): {l}")));
        Self { lines: lines.collect() }
    }

    /// Total loss by step; the last line of a step wins.
    pub fn losses(&self) -> BTreeMap<u64, f64> {
        let steps = self.lines.iter().filter_map(|l| Some((l["step"].as_u64()?, l["losses"]["total"].as_f64()?)));
        steps.collect()
    }

    /// The generation of each step.
    pub fn generations(&self) -> BTreeMap<u64, u64> {
        self.lines.iter().filter_map(|l| Some((l["step"].as_u64()?, l["generation"].as_u64()?))).collect()
    }
}

/// Asserts that two runs computed the same losses at every step that both have.
pub fn assert_same_losses(a: &BTreeMap<u64, f64>, b: &BTreeMap<u64, f64>, relative: f64, what: &str) {
    let common: Vec<u64> = a.keys().filter(|s| b.contains_key(s)).copied().collect();
    assert!(!common.is_empty(), "{what}: no common step in {a:?} and {b:?}");
    for step in common {
        let (x, y) = (a[&step], b[&step]);
        let off = (x - y).abs() / x.abs().max(y.abs());
        assert!(off <= relative, "{what}: step {step}: {x} against {y}, {off:.2e} relative, {relative:.0e} allowed");
    }
}
