//! `presets`: every loss preset trains 20 steps with 1, 2 and 3 workers, fast and exact, and the results are compared:
//! losses to 1e-5, and with `train.reduce = "exact"` weights bit for bit. `make presets`; with names, only the rows that begin
//! with one of them.

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use pixfleet_tests::system::FGCLIP_TOWERS;
use pixfleet_tests::{Log, TestRun, pixfleet, succeed};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

/// Preset, further overrides, and what the row is called.
const RUNS: [(&str, &[&str], &str); 8] = [
    ("default", &[], "default"),
    ("2cl", &[], "2cl"),
    ("fineclip", &[], "fineclip"),
    ("direct", &[], "direct"),
    ("alphaclip", &[], "alphaclip"),
    ("fgclip1-stage1", &FGCLIP_TOWERS, "fgclip1-stage1"),
    ("fgclip1-stage2", &FGCLIP_TOWERS, "fgclip1-stage2"),
    ("fgclip1-stage2", &FGCLIP_TOWERS, "fgclip1-stage2, regions by lane"),
];
const WORKERS: [u32; 3] = [1, 2, 3];
const LOSS_TOLERANCE: f64 = 1e-5;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["preset", "fast: losses apart", "exact: losses apart", "exact: weights"]);
    let mut held = true;
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.starts_with(w.as_str()));
    ensure!(RUNS.iter().any(|(.., name)| is_wanted(name)), "no row begins with any of {wanted:?}");
    for (i, (preset, towers, name)) in RUNS.iter().enumerate().filter(|(_, (.., name))| is_wanted(name)) {
        let mut set = vec![format!("loss.preset={preset}")];
        set.extend(towers.iter().map(|s| (*s).to_owned()));
        if name.ends_with("lane") {
            set.push("loss.region=lane".into());
        }
        let fast = apart(&trained(i, &set, "fast")?);
        let exact = trained(i, &set, "exact")?;
        let same = exact.iter().all(|r| r.weights == exact[0].weights);
        held &= fast <= LOSS_TOLERANCE && apart(&exact) == 0.0 && same;
        table.add_row([
            (*name).to_owned(),
            format!("{fast:.1e}"),
            format!("{:.1e}", apart(&exact)),
            if same { "the same bits".into() } else { "DIFFER".into() },
        ]);
        writeln!(std::io::stderr(), "{name}: done").context("standard error")?;
    }
    writeln!(std::io::stdout(), "{table}\n{}", if held { "all hold" } else { "NOT all hold" })?;
    Ok(held)
}

struct Trained {
    losses: BTreeMap<u64, f64>,
    weights: Vec<u8>,
}

fn trained(number: usize, set: &[String], reduce: &str) -> Result<Vec<Trained>> {
    let mut all = Vec::new();
    for workers in WORKERS {
        let run = TestRun::new(&format!("preset-{number}-{reduce}-{workers}"));
        let mut train = run.train(workers);
        for value in set.iter().cloned().chain([format!("train.reduce={reduce}")]) {
            train.args(["--set", &value]);
        }
        let losses = Log::parse(&succeed(train).stdout).losses();
        ensure!(losses.len() == 20, "{} of 20 steps", losses.len());
        let out = run.dir.join("weights.safetensors");
        let mut export = pixfleet(["export", &run.url(), "--out"]);
        export.arg(&out);
        succeed(export);
        all.push(Trained { losses, weights: std::fs::read(out)? });
    }
    Ok(all)
}

/// The largest relative difference of a step's loss.
fn apart(runs: &[Trained]) -> f64 {
    let first = &runs[0].losses;
    let others = runs.iter().flat_map(|r| &r.losses);
    others.map(|(step, loss)| ((loss - first[step]) / first[step]).abs()).fold(0.0, f64::max)
}
