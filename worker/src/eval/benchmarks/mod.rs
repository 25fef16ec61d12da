//! `pixfleet eval --bench`: the papers' benchmarks over datasets in our format (docs/benchmarks.md). What is asked and how is a
//! table of descriptions; a split goes through the towers once and becomes features; metrics are functions of those.

mod pictures;
mod protocol;
mod published;
mod questions;
mod record;
pub(crate) mod result;
mod score;
mod share;
mod table;
mod texts;

use super::subject::Subject;
use super::{Args, Opened, Shown, facts};
use crate::eval::templates::Templates;
use crate::report::{EvalReport, Findings, LossCurve};
use anyhow::{Context, Result, bail, ensure};
use pictures::{Look, Seen};
use protocol::{Chosen, Names, ProtocolArgs};
use result::{BenchmarkResult, Counts, ModelFacts, differences};
use score::Score;
pub(crate) use share::Part;
use share::Parts;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use table::{Benchmark, Task, find};
use texts::TextEncoder;

/// What can be typed for benchmarks.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BenchmarkArgs {
    /// Benchmarks of the papers instead, by comma: coco-mask, coco-box, fgovd-hard, refcoco, coco-retrieval, flickr30k, imagenet
    /// and others (docs/benchmarks.md); each on its own split unless --split is told.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    bench: Vec<String>,
    /// Weights of the text encoder that made the vectors that the run was trained on (a folder, as for `shards embed`).
    #[arg(long, value_name = "FOLDER", requires = "bench")]
    encoder_weights: Option<PathBuf>,
    /// Category names to choose among, one a line; those that occur in the split unless told.
    #[arg(long, value_name = "FILE", requires = "bench")]
    categories: Option<PathBuf>,
    /// Evaluate the run's checkpoints as it commits them, from the newest on one for each EVERY steps, until its last step.
    #[arg(long, value_name = "EVERY", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(requires = "bench", conflicts_with = "weights")]
    follow: Option<u64>,
    /// Processes that look at the pictures, each at its part of the split; on GPUs one for each. The result is the same.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(conflicts_with = "limit")]
    workers: u64,
    /// The part that this process looks at, of those that go to the folder `--parts`.
    #[arg(long, hide = true, requires = "parts")]
    part: Option<Part>,
    /// See `--part`.
    #[arg(long, hide = true)]
    parts: Option<PathBuf>,
    #[command(flatten)]
    protocol: ProtocolArgs,
}

impl BenchmarkArgs {
    /// Steps between two checkpoints of a run that is followed.
    pub(super) fn follow(&self) -> Option<u64> {
        self.follow
    }

    /// Whether this process looks at a part for another one.
    pub(super) fn is_part(&self) -> bool {
        self.part.is_some()
    }

    /// The first benchmark's split; `None` where none was asked for.
    ///
    /// # Errors
    /// An unknown name, with all that are known; options of a benchmark without one.
    pub(super) fn split(&self) -> Result<Option<&'static str>> {
        let idle = self.bench.is_empty() && self.protocol != ProtocolArgs::default();
        ensure!(
            !idle,
            "options of benchmarks were given and no benchmark: --bench NAME (docs/benchmarks.md has them all)"
        );
        let found = self.bench.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
        Ok(found.first().map(|b| b.split))
    }
}

/// Runs the benchmarks that were asked for.
///
/// # Errors
/// An unknown benchmark, a split that lacks what it asks, an encoder that is not there.
pub(super) fn evaluate(opened: Opened<'_>, subject: &Subject) -> Result<Shown> {
    let Opened { args, runtime, stages, started } = opened;
    let own = &args.benchmarks;
    ensure!(!args.captions.compares(), "--beside does not go with --bench; evaluate each run by itself");
    let encoder = TextEncoder::new(subject, runtime, own.encoder_weights.clone())?;
    let folder = (own.workers > 1).then(tempfile::tempdir).transpose().context("cannot make a temporary folder")?;
    if let Some(folder) = &folder {
        // The run may commit another checkpoint meanwhile.
        let step = args.subject.has_checkpoints().then_some(subject.steps);
        share::look_apart(own.workers, folder.path(), step)?;
    }
    let mut results = Vec::with_capacity(own.bench.len());
    for name in &own.bench {
        let benchmark = find(name)?;
        let chosen = choose(args, benchmark, subject)?;
        let typed = args.subject.on_split(benchmark.split);
        let seen = match &folder {
            Some(folder) => Parts { folder: folder.path(), steps: subject.steps }.join(name, own.workers)?,
            None => see((args, runtime), subject, (benchmark, &chosen), Part::WHOLE)?,
        };
        ensure!(!seen.questions.is_empty(), lacks(benchmark, &chosen, (subject, typed.split()), seen.bad));
        let mut result = measured(benchmark, (chosen, &seen), (subject, typed.split()), (&encoder, own))?;
        if let Some(url) = args.subject.run() {
            match runtime.block_on(record::keep(url, subject.steps, &result)) {
                Ok(history) => result.history = history,
                // A folder that may only be read is no reason to lose the result.
                Err(error) => tracing::warn!("the result has no history: {error:#}"),
            }
        }
        results.push(result);
    }
    let facts = facts::facts(subject, &stages, started.elapsed().as_secs_f64());
    let curve = |plot| LossCurve { run: subject.name.clone(), plot };
    let bad = results.iter().map(|r| r.counts.rows_left_out).sum();
    let table = result::table(&results, &subject.name);
    let report = EvalReport {
        title: format!("Benchmarks of the papers: {}", subject.name),
        lead: lead(subject, results.len()),
        findings: Findings::Benchmarks(results),
        losses: subject.training.loss_plot().map(curve).into_iter().collect(),
        speed: subject.training.speed_plot(),
        facts,
    };
    Ok(Shown { report, table, bad })
}

/// Looks at a part of each benchmark's split for the process that started this one.
///
/// # Errors
/// As [`evaluate`].
pub(super) fn look_at_part(args: &Args, runtime: &tokio::runtime::Runtime, subject: &Subject) -> Result<()> {
    let own = &args.benchmarks;
    let (part, folder) = own.part.zip(own.parts.as_deref()).context("expected --part and --parts")?;
    for name in &own.bench {
        let benchmark = find(name)?;
        let seen = see((args, runtime), subject, (benchmark, &choose(args, benchmark, subject)?), part)?;
        Parts { folder, steps: subject.steps }.keep(name, part, seen)?;
    }
    Ok(())
}

fn choose(args: &Args, benchmark: &'static Benchmark, subject: &Subject) -> Result<Chosen> {
    args.benchmarks.protocol.choose(benchmark, subject.model.vision().takes_mask(), &args.captions.templates)
}

/// A part of a benchmark's split, as the model sees it.
fn see(
    (args, runtime): (&Args, &tokio::runtime::Runtime),
    subject: &Subject,
    (benchmark, chosen): (&Benchmark, &Chosen),
    part: Part,
) -> Result<Seen> {
    let typed = args.subject.on_split(benchmark.split);
    let reader = runtime.block_on(subject.reader_of(typed.split()))?;
    let (task, protocol, limit) = (benchmark.task, &chosen.protocol, args.subject.limit);
    Look { subject, reader: &reader, task, protocol, limit, part }.see()
}

/// One benchmark's features become its result.
fn measured(
    benchmark: &'static Benchmark,
    (chosen, seen): (Chosen, &Seen),
    (subject, split): (&Subject, &str),
    (encoder, args): (&TextEncoder<'_>, &BenchmarkArgs),
) -> Result<BenchmarkResult> {
    let names = match benchmark.task {
        Task::Name | Task::NamePicture => categories(seen, args.categories.as_deref())?,
        Task::Choose | Task::Refer | Task::Retrieve => Vec::new(),
    };
    let scores = scores(benchmark.task, seen, (&chosen, &names), encoder)?;
    let counts = Counts::of(&seen.questions, benchmark.task, names.len(), seen.bad);
    let trained = |spec: &pixfleet_cluster::spec::RunSpec| {
        (subject.steps, subject.training.samples(), format!("{} ({})", spec.data.url, spec.data.split))
    };
    let model = ModelFacts {
        parameters: subject.model.params.elements(),
        side: subject.model.vision().image(),
        trained: subject.spec.as_ref().map(trained),
    };
    let differs = differences(benchmark, split, (&chosen, counts), args.categories.is_some(), &model);
    let published = published::rows(benchmark.name, split);
    let (data, split) = (subject.data.url.clone(), split.to_owned());
    Ok(BenchmarkResult { benchmark, data, split, chosen, scores, counts, published, differs, history: Vec::new() })
}

/// The numbers of a task.
fn scores(
    task: Task,
    seen: &Seen,
    (chosen, names): (&Chosen, &[String]),
    encoder: &TextEncoder<'_>,
) -> Result<Vec<Score>> {
    let (questions, features, protocol) = (&seen.questions, &seen.features, &chosen.protocol);
    let encode = |texts: &[String], templates: &Templates| encoder.encode(texts, templates, protocol);
    Ok(match task {
        Task::Name | Task::NamePicture => {
            let own = questions.categories.iter().map(|c| names.binary_search(c).ok()).collect::<Option<Vec<_>>>();
            let own = own.context("every category was held against the names")?;
            let read: Vec<String> = names.iter().map(|name| read_name(name, protocol)).collect();
            let classes = encode(&read, &chosen.templates)?;
            score::classify(features, &classes, &own, (protocol.average, protocol.ties))?.to_vec()
        }
        Task::Choose => {
            let texts = encode(&questions.texts, &chosen.templates)?;
            score::choose(features, &texts, &questions.owners, protocol.ties)?.to_vec()
        }
        Task::Refer => {
            let texts = encode(&questions.texts, &chosen.templates)?;
            score::refer((features, &questions.picture), (&texts, &questions.owners), protocol.ties)?.to_vec()
        }
        Task::Retrieve => {
            let texts = encode(&questions.texts, &chosen.templates)?;
            score::retrieve(features, &texts, &questions.owners, protocol.ties)?.to_vec()
        }
    })
}

fn read_name(name: &str, protocol: &protocol::Protocol) -> String {
    let name = match protocol.names {
        Names::Words => name.replace('_', " "),
        Names::Raw => name.to_owned(),
    };
    if protocol.lower { name.to_lowercase() } else { name }
}

/// The names to choose among, ascending: of `file`, or all that occur.
fn categories(seen: &Seen, file: Option<&Path>) -> Result<Vec<String>> {
    let occur: BTreeSet<&String> = seen.questions.categories.iter().collect();
    let Some(file) = file else {
        return Ok(occur.into_iter().cloned().collect());
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let names: BTreeSet<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    if let Some(unknown) = occur.into_iter().find(|name| !names.contains(*name)) {
        bail!(
            "{}: no line `{unknown}`, which is a category of the split; expected every name, one a line",
            file.display()
        );
    }
    Ok(names.into_iter().collect())
}

/// What a split lacks, and what to do about it.
fn lacks(benchmark: &Benchmark, chosen: &Chosen, (subject, split): (&Subject, &str), bad: u64) -> String {
    let bad = if bad > 0 { format!(" ({bad} bad rows were left out)") } else { String::new() };
    format!(
        "`{}` asks {}, and the split `{split}` of {} has none{bad}; ingest data that have them: `pixfleet shards ingest {} --split \
         {} --out URL` (docs/benchmarks.md), or tell another dataset or split: --data URL --split NAME",
        benchmark.name,
        benchmark.task.needs(&chosen.protocol),
        subject.data.url,
        benchmark.ingest,
        benchmark.split,
    )
}

/// One or two sentences for a reader who never heard of the run.
fn lead(subject: &Subject, benchmarks: usize) -> String {
    format!(
        "What papers report of models like this one ({:.1} million parameters, pictures at {side} x {side}), asked here by their own \
         protocols: {benchmarks} benchmark{}. Beside each number stand those that were published, and what differs.",
        subject.model.params.elements() as f64 / 1e6,
        if benchmarks == 1 { "" } else { "s" },
        side = subject.model.vision().image(),
    )
}
