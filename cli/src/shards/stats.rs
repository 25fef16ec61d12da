//! `pixfleet shards stats`.

mod page;

use super::inspect::first;
use super::verify::tokens;
use super::{bytes, right, say, table};
use crate::progress;
use anyhow::{Context, Result};
use indicatif::HumanCount;
use pixfleet_shards::stats::{BITS, Bins, DatasetStats, Duplicates, Head, Share, StatsOptions, stats, thumbnail};
use pixfleet_shards::{Columns, Location, RowGroupReader, Tokenizer, index, tokens as clip};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Streams the split once: which fields are there, how long the texts are, how large regions and pictures are, the most
frequent categories, and pictures that are there twice. These are found by difference hashes of 64 bits of the decoded
pictures: equal ones, and groups in which one leads to the next by at most three bits.

Examples:
  pixfleet shards stats file:///tmp/mini
  pixfleet shards stats s3://photos/longgrit --split test --out stats
  pixfleet shards stats s3://photos/longgrit --no-pictures --json | jq .regions")]
pub(crate) struct Args {
    /// URL of the dataset.
    url: String,
    /// Split to count (default: `train`, or the first one).
    #[arg(long)]
    split: Option<String>,
    /// Also write a page with histograms and pictures of duplicates, `stats.html`, and `stats.json`, into this folder.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Whose tokens: `clip`, which is built in, or a tokenizer.json with CLIP's vocabulary.
    #[arg(long, value_name = "NAME|FILE", default_value = clip::CLIP)]
    tokens: String,
    /// Leave pictures alone: no duplicates, and a fraction of the bytes.
    #[arg(long)]
    no_pictures: bool,
}

/// Groups of duplicates whose pictures the page shows, of each kind.
const GROUPS_SHOWN: usize = 24;
/// Pictures that it shows of a group.
const PICTURES_SHOWN: usize = 4;
/// Their longer side, pixels.
const SIDE: u32 = 192;
/// Names that the terminal shows.
const NAMES_SHOWN: usize = 10;

/// What is shown, and of what.
struct Counted {
    url: String,
    split: String,
    digest: String,
    stats: DatasetStats,
}

pub(crate) async fn main(args: Args) -> Result<ExitCode> {
    let location = Location::parse(&args.url)?;
    let index = index::open(&location).await?;
    let split = args.split.unwrap_or_else(|| first(&index));
    let reader = RowGroupReader::new(location, &index, &split, None)?;
    let options = StatsOptions { tokenizer: Some(Tokenizer::open(&args.tokens)?), pictures: !args.no_pictures };
    let bar = progress::bar("stats", "row groups");
    let stats = stats(&reader, &options, &mut |done, total| progress::set(&bar, done, total)).await?;
    bar.finish_and_clear();
    let counted = Counted { url: args.url, split, digest: index.digest, stats };
    if args.json {
        say(serde_json::to_string_pretty(&counted.json())?)?;
    } else {
        counted.show()?;
    }
    if let Some(folder) = args.out {
        let shown = pictures(&reader, counted.stats.duplicates.as_ref()).await?;
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        for (name, text) in [
            ("stats.html", page::page(&counted, &shown)),
            ("stats.json", serde_json::to_string_pretty(&counted.json())? + "\n"),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if !args.json {
            say(format_args!("written: {}", folder.join("stats.html").display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Groups of duplicates with their pictures as JPEG.
pub(super) struct Shown {
    equal: Vec<(u64, Vec<(String, Vec<u8>)>)>,
    near: Vec<(u64, Vec<(String, Vec<u8>)>)>,
}

async fn pictures(reader: &RowGroupReader, duplicates: Option<&Duplicates>) -> Result<Shown> {
    let mut shown = Shown { equal: Vec::new(), near: Vec::new() };
    let Some(duplicates) = duplicates else { return Ok(shown) };
    for (groups, out) in [(&duplicates.equal, &mut shown.equal), (&duplicates.near, &mut shown.near)] {
        for group in groups.iter().take(GROUPS_SHOWN) {
            let mut pictures = Vec::new();
            for &(row_group, row) in group.first.iter().take(PICTURES_SHOWN) {
                let found = reader.read(row_group, &[row], Columns::PICTURE).await?.pop();
                let jpeg = found.as_ref().and_then(|row| thumbnail(row.image.bytes.as_deref()?, SIDE));
                let name = found.map(|row| row.image_id).unwrap_or_default();
                pictures.extend(jpeg.map(|jpeg| (format!("{name} ({row_group}:{row})"), jpeg)));
            }
            out.push((group.pictures, pictures));
        }
    }
    Ok(shown)
}

impl Counted {
    fn json(&self) -> Value {
        let stats = &self.stats;
        let tokens: serde_json::Map<String, Value> = stats
            .tokens
            .fields()
            .map(|(field, lengths)| {
                let [p50, p95, p99, longest] = [0.5, 0.95, 0.99, 1.0].map(|q| lengths.quantile(q));
                let cuts = json!({"77": lengths.cut_at(clip::SHORT_TOKENS), "248": lengths.cut_at(clip::LONG_TOKENS)});
                let lengths = json!({"texts": lengths.texts(), "p50": p50, "p95": p95, "p99": p99, "longest": longest, "cut_at": cuts});
                (field.name().to_owned(), lengths)
            })
            .collect();
        let shares =
            |shares: &[Share]| -> Value { shares.iter().map(|s| (s.field.to_owned(), Value::from(s.count))).collect() };
        json!({
            "url": self.url,
            "split": self.split,
            "digest": self.digest,
            "rows": stats.rows,
            "regions": stats.regions,
            "bad_rows": stats.bad,
            "rows_with": shares(&stats.row_fields),
            "regions_with": shares(&stats.region_fields),
            "tokens": tokens,
            "regions_per_row": stats.regions_per_row,
            "areas": stats.areas,
            "sides": stats.sides,
            "aspects": stats.aspects,
            "picture_bytes": stats.picture_bytes,
            "categories": stats.categories,
            "sources": stats.sources,
            "languages": stats.languages,
            "duplicates": stats.duplicates,
        })
    }

    fn show(&self) -> Result<()> {
        let stats = &self.stats;
        say(format_args!(
            "{}: {} rows, {} regions, {} bad rows",
            self.split,
            HumanCount(stats.rows),
            HumanCount(stats.regions),
            HumanCount(stats.bad)
        ))?;
        for bad in &stats.bad_rows {
            say(bad)?;
        }
        say(fields(stats))?;
        tokens::show(&stats.tokens)?;
        for (title, bins, number) in self.histograms() {
            if bins.total() > 0 {
                say(histogram(title, bins, number))?;
            }
        }
        for (title, head) in self.heads() {
            if !head.names.is_empty() {
                say(names(title, head))?;
            }
        }
        stats.duplicates.as_ref().map_or(Ok(()), |found| say(told(found)))
    }

    /// Title, counts and how a number is written.
    fn histograms(&self) -> [(&'static str, &Bins, fn(f64) -> String); 5] {
        let plain: fn(f64) -> String = |n| n.to_string();
        let stats = &self.stats;
        [
            ("regions of a row", &stats.regions_per_row, plain),
            ("area of a region, of the picture", &stats.areas, |n| format!("{} %", (n * 1e6).round() / 1e4)),
            ("longer side, pixels", &stats.sides, plain),
            ("width by height", &stats.aspects, plain),
            ("bytes of a picture", &stats.picture_bytes, |n| bytes(n as u64)),
        ]
    }

    fn heads(&self) -> [(&'static str, &Head); 3] {
        let stats = &self.stats;
        [("category", &stats.categories), ("source", &stats.sources), ("language", &stats.languages)]
    }
}

fn percent(part: u64, of: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / of.max(1) as f64)
}

fn fields(stats: &DatasetStats) -> comfy_table::Table {
    let mut table = table(&["field", "of", "have it", "share"]);
    for (of, all, fields) in [("rows", stats.rows, &stats.row_fields), ("regions", stats.regions, &stats.region_fields)]
    {
        for share in fields.iter().filter(|share| share.count > 0) {
            let count = HumanCount(share.count).to_string();
            table.add_row([share.field.to_owned(), of.to_owned(), count, percent(share.count, all)]);
        }
    }
    right(&mut table, 2..4);
    table
}

/// What bin `at` holds, in words.
fn range(bins: &Bins, at: usize, number: fn(f64) -> String) -> String {
    match (at.checked_sub(1).map(|from| bins.edges[from]), bins.edges.get(at)) {
        (None, Some(to)) => format!("below {}", number(*to)),
        (Some(from), Some(to)) => format!("{} to {}", number(from), number(*to)),
        (Some(from), None) => format!("{} and more", number(from)),
        (None, None) => "all".into(),
    }
}

fn histogram(title: &str, bins: &Bins, number: fn(f64) -> String) -> comfy_table::Table {
    let mut table = table(&[title, "count", "share"]);
    let used = |n: &u64| *n > 0;
    let (top, bottom) = (bins.counts.iter().position(used), bins.counts.iter().rposition(used));
    for at in top.unwrap_or(0)..bottom.map_or(0, |last| last + 1) {
        let count = bins.counts[at];
        table.add_row([range(bins, at, number), HumanCount(count).to_string(), percent(count, bins.total())]);
    }
    right(&mut table, 0..3);
    table
}

fn names(title: &str, head: &Head) -> comfy_table::Table {
    let mut table = table(&[title, "count"]);
    for (name, count) in head.names.iter().take(NAMES_SHOWN) {
        table.add_row([name.clone(), HumanCount(*count).to_string()]);
    }
    if head.known > NAMES_SHOWN {
        let about = if head.at_least { ", and rare ones that were not kept" } else { "" };
        table.add_row([format!("and {} more{about}", HumanCount((head.known - NAMES_SHOWN) as u64)), String::new()]);
    }
    right(&mut table, 1..2);
    table
}

/// Duplicates in a sentence or two.
fn told(found: &Duplicates) -> String {
    let cut = if found.cut { "; some were not compared with all others" } else { "" };
    format!(
        "{} pictures compared{cut}: {} repeat an earlier one ({} groups); {} are within {BITS} bits of others ({} groups); {} too flat, {} undecodable, {} absent",
        HumanCount(found.compared),
        HumanCount(found.equal_pictures),
        HumanCount(found.equal_groups),
        HumanCount(found.near_pictures),
        HumanCount(found.near_groups),
        HumanCount(found.flat),
        HumanCount(found.undecoded),
        HumanCount(found.absent)
    )
}
