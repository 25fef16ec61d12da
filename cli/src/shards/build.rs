//! `pixfleet shards build`.

use super::{bytes, right, say, table};
use crate::progress;
use anyhow::Result;
use pixfleet_shards::Location;
use pixfleet_shards::mini::{self, MiniConfig};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What to build.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// mini-LongGRIT: scenes composed from real drawings, with exact masks and short, context and long captions.
    Mini(Mini),
}

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Every scene is a pure function of (drawings, seed, split, number). Splits: train, test, heldout_pairs (a concept in a
style it was not seen in), heldout_concepts.

Examples:
  pixfleet shards build mini --scenes 4000 --seed 1 --out file:///tmp/mini
  pixfleet shards build mini --scenes 100000 --out s3://photos/mini --drawings ~/drawings --styles openmoji,twemoji")]
pub(crate) struct Mini {
    /// Scenes of the training split.
    #[arg(long)]
    scenes: u64,
    /// Seed of all scenes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// URL to write to; the splits of an earlier dataset there are replaced.
    #[arg(long)]
    out: String,
    /// The folder that holds one folder of drawings for each style.
    #[arg(long, default_value_os_t = MiniConfig::default().drawings)]
    drawings: PathBuf,
    /// Styles, by the folders of their drawings.
    #[arg(long, value_delimiter = ',', default_values_t = MiniConfig::default().styles)]
    styles: Vec<String>,
    /// Side of a scene in pixels, 64 to 1024.
    #[arg(long, default_value_t = MiniConfig::default().size)]
    size: u32,
    /// Scenes of the test split (default: a tenth of --scenes, at least 400).
    #[arg(long)]
    test_scenes: Option<u64>,
    /// Scenes of each held-out split (default: a quarter of the test split).
    #[arg(long)]
    heldout_scenes: Option<u64>,
    /// Concepts at most, held-out ones included.
    #[arg(long, default_value_t = MiniConfig::default().concepts)]
    concepts: usize,
    /// Rows of a row group at most.
    #[arg(long, default_value_t = MiniConfig::default().writer.rows_per_group)]
    rows_per_group: u32,
}

pub(crate) async fn main(command: Command) -> Result<ExitCode> {
    let Command::Mini(args) = command;
    let location = Location::parse(&args.out)?;
    let mut config = MiniConfig {
        scenes: args.scenes,
        seed: args.seed,
        size: args.size,
        test_scenes: args.test_scenes,
        heldout_scenes: args.heldout_scenes,
        concepts: args.concepts,
        styles: args.styles,
        drawings: args.drawings,
        ..MiniConfig::default()
    };
    config.writer.rows_per_group = args.rows_per_group;
    let bar = progress::bar("compose", "scenes");
    let start = Instant::now();
    let summary = mini::build(&config, &location, &mut |done, total| progress::set(&bar, done, total)).await?;
    bar.finish_and_clear();
    let mut table = table(&["split", "files", "scenes", "regions", "size"]);
    for (split, written) in &summary.splits {
        table.add_row([
            split.name().to_owned(),
            written.files.to_string(),
            written.rows.to_string(),
            written.regions.to_string(),
            bytes(written.bytes),
        ]);
    }
    right(&mut table, 1..5);
    say(table)?;
    say(format_args!(
        "{} concepts, {} drawings, {:.1} s; digest {}  {}",
        summary.concepts,
        summary.drawings,
        start.elapsed().as_secs_f64(),
        summary.digest,
        location.url()
    ))?;
    say(format_args!("ten hard negatives: {}", summary.hard_negatives))?;
    Ok(ExitCode::SUCCESS)
}
