//! `pixfleet shards ingest`.

use super::{bytes, right, say, table};
use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pixfleet_ingest::{
    BoxForm, FieldMap, Format, Ingest, IngestProgress, Ingested, LLM2CLIP_KEY, PictureCheck, PicturesFrom, Politeness,
    Reject, RejectLimit, SAMPLES_KEPT, VectorIngest,
};
use pixfleet_shards::{Location, WriterOptions};
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Formats, and what SOURCE is:
  coco            instances_*.json; --captions captions_*.json adds all captions of each picture
  lvis            lvis_v1_*.json
  refcoco         a JSON list of REFER's refs, with --instances instances.json; a split of REFER's own file:
                  python -c 'import json,pickle,sys; json.dump([r for r in pickle.load(open(sys.argv[1],\"rb\"))
                  if r[\"split\"] == sys.argv[2]], sys.stdout)' 'refs(unc).p' testA
  grit            GRIT's Parquet of addresses (pictures by --images, as img2dataset names them, or --no-images), or
                  img2dataset's output: tar files, or a folder of .jpg and .json
  alphaclip-grit  a folder or tar files of <id>.jpg and <id>.json, with the masks in `seudo_masks`
  finehard        FineHARD's jsonfiles, one or a folder; pictures by f_path
  fg-ovd          FG-OVD's lines as FG-CLIP evaluates on them
  webdataset      tar files, or one through `-`: picture, .json with our field names or img2dataset's, .txt
  jsonl           a JSON object a line with our field names, or --map
  parquet         other writers' Parquet with our column names, or --map
  llm2clip        *_text_embeddings.tar, whose vectors are joined to the rows of the dataset that --out is

A folder is read in the order of its files' names. What cannot become a row is refused, named by file, record and field in
ingest/<split>/rejects-*.jsonl beside the output, and counted by kind; a bad region is refused alone. An ingest that was
stopped goes on after its last part when the same command is run again, and writes what it would have written.

Our names: image_id, source, width, height, lang, caption_long, caption_short, captions, image (a path), image.path,
image.url, image.sha256, image.bytes, regions.bbox, .score, .mask (polygons or {size, counts}), .category, .short_expr,
.long_expr, .expressions, .hard_negs, .hard_neg_kinds, .caption_object, .caption_context, .caption_merged ...

Examples:
  pixfleet shards ingest coco annotations/instances_val2017.json --captions annotations/captions_val2017.json \\
      --images val2017 --split val --out s3://photos/coco
  pixfleet shards ingest lvis lvis_v1_val.json --images . --split val --out file:///data/lvis
  pixfleet shards ingest refcoco refs.json --instances instances.json --images train2014 --out file:///data/refcoco
  pixfleet shards ingest grit grit-20m/coyo_0_snappy.parquet --no-images --fetch --fetch-contact me@example.org \\
      --max-rejects 40% --out s3://photos/grit-0
  pixfleet shards ingest grit s3://crawl/grit/00000.tar --out s3://photos/grit
  pixfleet shards ingest alphaclip-grit grit_1m --max-rejects 5% --out s3://photos/alphaclip
  pixfleet shards ingest finehard FineHARD/jsonfiles --images data/grit-12m --out s3://photos/finehard
  pixfleet shards ingest fg-ovd hard_attributes_llava.jsonl --images val2017 --split hard --out file:///data/fg-ovd
  curl -s https://example.org/00000.tar | pixfleet shards ingest webdataset - --out file:///data/set
  pixfleet shards ingest jsonl captions.jsonl --images pictures --map caption_long=text --out file:///data/set
  pixfleet shards ingest parquet hf/data --map image.bytes=image.bytes,regions.bbox=objects.bbox --boxes xywh \\
      --out file:///data/set
  pixfleet shards ingest webdataset cc3m --map caption_short=shortSV_captions,caption_long=longSV_captions \\
      --out s3://photos/cc3m
  pixfleet shards ingest llm2clip cc3m --out s3://photos/cc3m")]
pub(crate) struct Args {
    /// Format of the source.
    format: Named<Kind>,
    /// A file or folder, by path or URL; `-` is standard input (webdataset, jsonl).
    source: String,
    /// URL to write to; for llm2clip, of the dataset whose rows get the vectors.
    #[arg(long, required_unless_present = "dry_run")]
    out: Option<String>,
    /// llm2clip: key of the vectors, for `data.vectors` of a run file.
    #[arg(long, value_name = "KEY", default_value = LLM2CLIP_KEY)]
    vectors: String,
    /// Split to write.
    #[arg(long, default_value = "train")]
    split: String,
    /// COCO: the file of captions.
    #[arg(long, value_name = "FILE")]
    captions: Option<String>,
    /// RefCOCO: COCO's instances.
    #[arg(long, value_name = "FILE", conflicts_with = "captions")]
    instances: Option<String>,
    /// Folder of the pictures that do not come with their records (default: the source's own).
    #[arg(long, value_name = "URL")]
    images: Option<String>,
    /// Keep paths and addresses, and no pictures.
    #[arg(long, conflicts_with = "images")]
    no_images: bool,
    /// Fetch pictures that are not there by their addresses, as robots.txt allows.
    #[arg(long)]
    fetch: bool,
    /// Requests a second to one host.
    #[arg(long, value_name = "N", default_value_t = 2.0, requires = "fetch")]
    fetch_rate: f64,
    /// Who a server's owner may write to, as a web or mail address; it is told with every request.
    #[arg(long, value_name = "ADDRESS", requires = "fetch")]
    fetch_contact: Option<String>,
    /// Fields of the source that are ours, `ours=theirs`; dotted names reach into objects and lists.
    #[arg(long, value_name = "OURS=THEIRS", value_delimiter = ',')]
    map: Vec<String>,
    /// Form of boxes, for webdataset, jsonl and parquet: `fractions` and `pixels` are x1, y1, x2, y2; `xywh` is pixels.
    #[arg(long, default_value = "fractions")]
    boxes: Named<BoxForm>,
    /// Look at the pictures' headers alone: faster, and `shards verify` finds what is damaged.
    #[arg(long)]
    headers_only: bool,
    /// Rows at most.
    #[arg(long)]
    limit: Option<u64>,
    /// End with an error if more records are refused, a number or a share (`5%`).
    #[arg(long, value_name = "N|SHARE", value_parser = |text: &str| RejectLimit::parse(text).ok_or("expected 100 or 5%"))]
    max_rejects: Option<RejectLimit>,
    /// Forget an earlier ingest of the split and begin again.
    #[arg(long)]
    restart: bool,
    /// Write no index.
    #[arg(long)]
    no_index: bool,
    /// Read, decode and count, and write nothing; each reject is a line of JSON on standard output.
    #[arg(long)]
    dry_run: bool,
    /// Print what was counted as JSON.
    #[arg(long)]
    json: bool,
    /// Rows of a row group at most.
    #[arg(long, default_value_t = WriterOptions::default().rows_per_group)]
    rows_per_group: u32,
    /// Megabytes of a file, about; it is held in memory until it is complete.
    #[arg(long, value_name = "MB", default_value_t = WriterOptions::default().bytes_per_file >> 20)]
    part_mb: u64,
}

/// What is ingested.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Records that become rows.
    Rows(Format),
    /// LLM2CLIP's vectors for rows that are there.
    Vectors,
}

impl Kind {
    const ALL: [Self; Format::ALL.len() + 1] = {
        let mut all = [Self::Vectors; Format::ALL.len() + 1];
        let mut i = 0;
        while i < Format::ALL.len() {
            all[i] = Self::Rows(Format::ALL[i]);
            i += 1;
        }
        all
    };
}

/// A choice by its name.
#[derive(Clone, Copy)]
struct Named<T: 'static>(T);

impl ValueEnum for Named<Kind> {
    fn value_variants<'a>() -> &'a [Self] {
        const { &named(Kind::ALL) }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self.0 {
            Kind::Rows(format) => format.name().into(),
            Kind::Vectors => "llm2clip".into(),
        })
    }
}

impl ValueEnum for Named<BoxForm> {
    fn value_variants<'a>() -> &'a [Self] {
        const { &named(BoxForm::ALL) }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(self.0.name().into())
    }
}

const fn named<T: Copy, const N: usize>(all: [T; N]) -> [Named<T>; N] {
    let mut out = [Named(all[0]); N];
    let mut i = 1;
    while i < N {
        out[i] = Named(all[i]);
        i += 1;
    }
    out
}

impl Args {
    fn vectors(&self) -> Result<VectorIngest> {
        ensure!(self.limit.is_none(), "llm2clip joins vectors to all rows of a split: leave --limit out");
        Ok(VectorIngest {
            source: self.source.clone(),
            split: self.split.clone(),
            key: self.vectors.clone(),
            max_rejects: self.max_rejects,
            restart: self.restart,
        })
    }

    fn job(&self, format: Format) -> Result<Ingest> {
        let defaults = WriterOptions::default();
        Ok(Ingest {
            format,
            source: self.source.clone(),
            beside: self.captions.clone().or_else(|| self.instances.clone()),
            pictures: match &self.images {
                _ if self.no_images => PicturesFrom::Without,
                Some(url) => PicturesFrom::Folder(url.clone()),
                None => PicturesFrom::Beside,
            },
            fetch: self.fetch.then(|| Politeness {
                per_second: self.fetch_rate,
                contact: self.fetch_contact.clone(),
                ..Politeness::default()
            }),
            map: FieldMap::parse(&self.map).map_err(|e| anyhow!("--map: {e}"))?,
            boxes: self.boxes.0,
            check: if self.headers_only { PictureCheck::Header } else { PictureCheck::Whole },
            split: self.split.clone(),
            limit: self.limit,
            max_rejects: self.max_rejects,
            writer: WriterOptions {
                rows_per_group: self.rows_per_group,
                bytes_per_file: self.part_mb.max(1) << 20,
                ..defaults
            },
            restart: self.restart,
        })
    }
}

pub(crate) async fn main(args: Args) -> Result<ExitCode> {
    let bar = bar();
    let start = Instant::now();
    let mut progress = |at| show(&bar, at, start);
    let done = match args.format.0 {
        Kind::Rows(format) => rows(&args, &args.job(format)?, &mut progress).await?,
        Kind::Vectors => vectors(&args, &args.vectors()?, &mut progress).await?,
    };
    bar.finish_and_clear();
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        say(summary(&done, seconds))?;
    } else if !args.dry_run {
        tell(&args, &done, seconds)?;
    }
    Ok(ExitCode::SUCCESS)
}

type Progress<'a> = &'a mut (dyn FnMut(IngestProgress) + Send);

async fn rows(args: &Args, job: &Ingest, progress: Progress<'_>) -> Result<Ingested> {
    match &args.out {
        Some(out) if !args.dry_run => {
            let location = Location::parse(out)?;
            Ok(pixfleet_ingest::ingest(job, &location, !args.no_index, progress).await?)
        }
        Some(_) | None => Ok(pixfleet_ingest::dry_run(job, &mut name, progress).await?),
    }
}

async fn vectors(args: &Args, job: &VectorIngest, progress: Progress<'_>) -> Result<Ingested> {
    let out = args.out.as_ref();
    let out = out.context("llm2clip needs --out, the dataset whose rows get the vectors, also with --dry-run")?;
    let location = Location::parse(out)?;
    if args.dry_run {
        return Ok(pixfleet_ingest::dry_run_vectors(job, &location, &mut name, progress).await?);
    }
    Ok(pixfleet_ingest::ingest_vectors(job, &location, progress).await?)
}

fn name(reject: &Reject) {
    // A reader that has seen enough ends with us at the next write of ours.
    let _ = say(json!(reject));
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("ingest {msg}").expect("the template is well-formed");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}

fn show(bar: &ProgressBar, at: IngestProgress, start: Instant) {
    let seconds = start.elapsed().as_secs_f64().max(1e-3);
    let share = match at.total {
        0 => String::new(),
        total => format!(" of {}", bytes(total)),
    };
    let per_second = bytes((at.read as f64 / seconds) as u64);
    bar.set_message(format!(
        "{} records, {} rows, {} refused, {}{share} read, {per_second}/s",
        at.records,
        at.rows,
        at.refused,
        bytes(at.read)
    ));
    bar.tick();
}

fn summary(done: &Ingested, seconds: f64) -> serde_json::Value {
    let Ingested { counts, rows_before, was_done, samples: _, rejects_at, digest, read } = done;
    json!({
        "counts": counts, "rows_before": rows_before, "was_done": was_done, "rejects_at": rejects_at, "digest": digest,
        "read": read, "seconds": seconds,
    })
}

fn tell(args: &Args, done: &Ingested, seconds: f64) -> Result<()> {
    let counts = &done.counts;
    if done.was_done {
        say("all of it was there before; --restart ingests it again")?;
    }
    for reject in &done.samples {
        say(reject)?;
    }
    let unsaid = counts.refused().saturating_sub(done.samples.len() as u64);
    if unsaid > 0 && done.samples.len() >= SAMPLES_KEPT {
        say(format_args!("and {unsaid} more"))?;
    }
    if counts.refused() > 0 {
        let mut rejects = table(&["refused", "records", "what to do"]);
        for (kind, records) in &counts.rejects {
            rejects.add_row([kind.to_string(), records.to_string(), kind.advice().to_owned()]);
        }
        right(&mut rejects, 1..2);
        say(rejects)?;
        say(format_args!("all are named in {}", done.rejects_at.as_deref().unwrap_or_default()))?;
    }
    let rows = match args.format.0 {
        Kind::Rows(_) => format!("{} rows with {} regions", counts.rows, counts.regions),
        Kind::Vectors => format!("{} rows have vectors; key {}", counts.rows, args.vectors),
    };
    say(format_args!(
        "{} records: {rows}, {} refused, {} passed over; {} files, {}",
        counts.records,
        counts.refused(),
        counts.passed_over,
        counts.files,
        bytes(counts.bytes)
    ))?;
    let per_second = bytes((done.read as f64 / seconds.max(1e-3)) as u64);
    let digest = done.digest.as_ref().map_or_else(String::new, |digest| format!("; digest {digest}"));
    say(format_args!(
        "{} read in {seconds:.1} s, {per_second}/s{digest}  {}",
        bytes(done.read),
        args.out.as_deref().unwrap_or_default()
    ))
}
