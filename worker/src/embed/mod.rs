//! `pixfleet shards embed`: captions of a dataset through a text encoder, vectors beside the rows.
//!
//! Any number of these processes, on any machines, share the work through the store (`pixfleet_shards::embed`); what is
//! there and current is skipped, a text is encoded once per key, and whoever is killed or stopped loses no more than the
//! data file it has in hand.

mod clip;
mod encoder;
mod known;
mod pool;
mod text_log;

use anyhow::{Context, Result, bail};
pub(crate) use known::KnownEncoder;

use encoder::{Chosen, EncoderError, EncoderKind, EncoderPrecision, PoolingKind, TemplateKind};
use indicatif::{ProgressBar, ProgressStyle};
use pixfleet_shards::embed::{EmbedError, EmbedJob, EmbedProgress, embed_splits};
use pixfleet_shards::{Location, index};
use pool::Pool;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use text_log::TextLog;
use tokio::signal::unix::{SignalKind, signal};

/// Stopped by Ctrl-C or SIGTERM, and wants to be started again.
const REQUEUE: u8 = 75;

/// Set when somebody wants this process to stop.
static STOP: AtomicBool = AtomicBool::new(false);

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Any number of these processes share one dataset, on one machine or many: start the same command again. Ctrl-C and kills
lose no more than the file in hand; the command goes on from there. Exit codes: 0 all texts have vectors, 75 stopped by
Ctrl-C or SIGTERM (start it again).

Examples:
  pixfleet shards embed s3://bucket/mini --weights .cache/minilm
  pixfleet shards embed file:///data/mini --split train,test --weights .cache/minilm --precision bf16
  pixfleet shards embed s3://bucket/grit --encoder llm2vec --weights LLM2CLIP-Llama-3-8B-Instruct-CC-Finetuned --precision bf16
  pixfleet shards embed s3://bucket/grit --encoder llm --weights gemma-3-270m --pooling last --length 256")]
pub(crate) struct Args {
    /// URL of the dataset.
    url: String,
    /// Splits, by comma; all of them unless told.
    #[arg(long, value_delimiter = ',')]
    split: Vec<String>,
    /// The text encoder.
    #[arg(long, value_enum, default_value = "minilm")]
    encoder: EncoderKind,
    /// Folder of its weights as Hugging Face has it: config.json, tokenizer.json, and model.safetensors or its shards with
    /// their index.
    #[arg(long)]
    weights: PathBuf,
    /// Arithmetic of the encoder; bf16 is faster, and its vectors have a key of their own.
    #[arg(long, value_enum, default_value = "fp32")]
    precision: EncoderPrecision,
    /// How hidden states become a vector; mean for Llama and Gemma 3, last for Qwen 3 unless told.
    #[arg(long, value_enum)]
    pooling: Option<PoolingKind>,
    /// What stands around a text; llama3 for Llama, plain for the others unless told.
    #[arg(long, value_enum)]
    template: Option<TemplateKind>,
    /// Tokens of a text at most, template included; 512 unless told.
    #[arg(long)]
    length: Option<usize>,
    /// Tokens of the text alone at most; a longer one loses whole words (LLM2Vec's doc_max_length). As --length unless told.
    #[arg(long)]
    text_length: Option<usize>,
    /// Whether a token sees only those before it; no for Llama, yes for the others unless told.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    causal: Option<bool>,
    /// The model's name in the key of the vectors; a fingerprint of its files unless told.
    #[arg(long)]
    name: Option<String>,
    /// Seconds after which a process that is not heard of any more loses its file to another one.
    #[arg(long, default_value_t = 60)]
    lease: u64,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    // The encoder blocks the thread that drives the work; claims beat on this one.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.spawn(stop_on_signals());
    let location = Location::parse(&args.url)?;
    let index =
        runtime.block_on(index::open(&location)).with_context(|| format!("opening the dataset {}", args.url))?;
    let splits = splits(&args, index.splits.keys())?;
    let chosen = Chosen::of(&args)?;
    let key = chosen.key();
    let (bar, log, started) = (Bar::new(&splits), TextLog::open()?, Instant::now());
    let mut pool = Pool::new(chosen);
    let mut encode = |texts: &[String]| {
        pool.encode(texts, &STOP, &|batch| {
            log.texts(batch);
            bar.in_hand(batch.len() as u64);
        })
    };
    let mut units = 0;
    let mut progress = |now: EmbedProgress| {
        bar.tell(now);
        if now.units > std::mem::replace(&mut units, now.units) {
            log.unit_done();
        }
    };
    let lease = Duration::from_secs(args.lease.max(1));
    let job = EmbedJob { lease, stop: &STOP, ..EmbedJob::new(&location, &index, &splits, &key) };
    let ended = runtime.block_on(embed_splits(job, &mut encode, &mut progress));
    bar.bar.finish_and_clear();
    match ended {
        Ok(done) => {
            eprintln!("{}: {}; key {key}", splits.join(", "), summary(done, started.elapsed()));
            Ok(ExitCode::SUCCESS)
        }
        Err(EmbedError::Stopped | EmbedError::Encode(EncoderError::Stopped)) => {
            eprintln!("stopped; files that are done stay so, and the same command goes on from there; key {key}");
            Ok(REQUEUE.into())
        }
        Err(error) => Err(error.into()),
    }
}

fn splits<'n>(args: &Args, known: impl Iterator<Item = &'n String> + Clone) -> Result<Vec<String>> {
    if args.split.is_empty() {
        return Ok(known.cloned().collect());
    }
    if let Some(unknown) = args.split.iter().find(|name| !known.clone().any(|k| k == *name)) {
        bail!("{} has no split `{unknown}`; it has {}", args.url, known.cloned().collect::<Vec<_>>().join(", "));
    }
    Ok(args.split.clone())
}

async fn stop_on_signals() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    STOP.store(true, Ordering::Relaxed);
}

fn summary(done: EmbedProgress, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let rate = done.encoded as f64 / seconds.max(1e-9);
    format!(
        "{} rows have vectors; {} texts encoded here in {seconds:.1} s ({rate:.0} texts/s), {} known before, {} files \
         skipped, {} taken over",
        done.rows, done.encoded, done.cached, done.files_skipped, done.taken_over
    )
}

/// Of all processes: texts whose vectors are on the store, and those that this process has in hand.
struct Bar {
    bar: ProgressBar,
    splits: String,
    stored: AtomicU64,
    in_hand: AtomicU64,
}

impl Bar {
    fn new(splits: &[String]) -> Self {
        let template = "embed {msg} {bar:32.cyan/dim} {pos}/{len} texts  {per_sec}  eta {eta}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style).with_message(splits.join(","));
        Self { bar, splits: splits.join(","), stored: AtomicU64::new(0), in_hand: AtomicU64::new(0) }
    }

    fn in_hand(&self, texts: u64) {
        let in_hand = self.in_hand.fetch_add(texts, Ordering::Relaxed) + texts;
        self.bar.set_position(self.stored.load(Ordering::Relaxed) + in_hand);
    }

    fn tell(&self, now: EmbedProgress) {
        self.bar.set_message(match now.waiting_for {
            0 => self.splits.clone(),
            units => format!("{}, waiting for {units} units that others have", self.splits),
        });
        self.bar.set_length(now.texts_total);
        // What was in hand is among what is stored once a unit is done.
        if self.stored.swap(now.texts, Ordering::Relaxed) != now.texts {
            self.in_hand.store(0, Ordering::Relaxed);
        }
        self.bar.set_position(now.texts + self.in_hand.load(Ordering::Relaxed));
    }
}
