//! What is looked at: the model of a run (or of a file of weights) and the split of a dataset.

use super::history::Training;
use crate::hub::{HubFolder, is_hidden, is_hub_folder};
use crate::load::{StoredRun, Weights};
use crate::weights::{self, Preset};
use anyhow::{Context, Result, bail, ensure};
use pixfleet_cluster::spec::{DataSpec, Fit, LossPreset, LossSpec, Needs, RunSpec, TextProjSpec};
use pixfleet_model::Model;
use pixfleet_shards::sample::{SampleConfig, TextSource};
use pixfleet_shards::tokens::Tokenizer;
use pixfleet_shards::{Location, RowGroupReader, index};
use std::path::PathBuf;
use tch::Device;

/// What was typed, the same for `eval` and `encode`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SubjectArgs {
    /// The run, `<store>/<name>`, whose newest good checkpoint is taken; or a folder of `pixfleet export hub`, by its path or
    /// as `hf://OWNER/NAME`.
    #[arg(required_unless_present = "weights")]
    run: Option<String>,
    /// Weights instead of a run, safetensors with the names of PixCLIP's checkpoints.
    #[arg(long, requires = "model", conflicts_with = "run")]
    weights: Option<PathBuf>,
    /// Vision tower of the weights.
    #[arg(long, value_enum)]
    model: Option<Preset>,
    /// Dataset; the run's own unless told.
    #[arg(long)]
    data: Option<String>,
    /// Key of the text vectors; the run's own unless told.
    #[arg(long)]
    vectors: Option<String>,
    /// Split; test unless told, a benchmark's own for a benchmark.
    #[arg(long)]
    split: Option<String>,
    /// Steps of the run's checkpoint that is taken; the newest unless told.
    #[arg(long, value_name = "STEPS", conflicts_with = "weights", overrides_with = "step")]
    step: Option<u64>,
    /// Stop after about this many regions.
    #[arg(long)]
    pub(crate) limit: Option<u64>,
}

impl SubjectArgs {
    /// The split that was typed, or `test`.
    pub(crate) fn split(&self) -> &str {
        self.split.as_deref().unwrap_or("test")
    }

    /// The URL of the run, where it is one.
    pub(crate) fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// Whether it is a run with checkpoints, not a folder of the Hub or a file of weights.
    pub(crate) fn has_checkpoints(&self) -> bool {
        self.run.as_deref().is_some_and(|run| !is_hub_folder(run))
    }

    /// On `split`, where none was typed.
    pub(crate) fn on_split(&self, split: &str) -> Self {
        Self { split: self.split.clone().or_else(|| Some(split.into())), ..self.clone() }
    }

    /// The run at `url` on the split of `subject`, which these arguments opened.
    pub(crate) fn beside(&self, url: &str, subject: &Subject) -> Self {
        let data = Some(subject.data.url.clone());
        Self { run: Some(url.into()), weights: None, model: None, step: None, data, ..self.clone() }
    }
}

/// A model and a split, open.
pub(crate) struct Subject {
    /// As messages and headings call it.
    pub(crate) name: String,
    /// The model.
    pub(crate) model: Model,
    /// Where it computes.
    pub(crate) device: Device,
    /// The run file; `None` for a file of weights.
    pub(crate) spec: Option<RunSpec>,
    /// What the run that trained it needs; it tells which system this is.
    pub(crate) needs: Needs,
    /// What the ledger tells of the run.
    pub(crate) training: Training,
    /// Optimizer steps that the weights have seen; 0 for a file of weights.
    pub(crate) steps: u64,
    /// The dataset.
    pub(crate) data: DataSpec,
    /// Reads the split.
    pub(crate) reader: RowGroupReader,
}

impl Subject {
    /// Opens everything.
    ///
    /// # Errors
    /// If the run, its checkpoint, the dataset or the split is not there, with what to do about it.
    pub(crate) async fn open(args: &SubjectArgs) -> Result<Self> {
        let device = Device::cuda_if_available();
        let (name, model, needs, spec, training, steps) = match (&args.run, &args.weights, args.model) {
            (Some(at), None, _) if is_hub_folder(at) => {
                ensure!(args.step.is_none(), "{at} holds one checkpoint; --step is for a run");
                let folder = HubFolder::open(at).await?;
                let (model, name, needs) = (folder.model(device)?, folder.spec.run.name.clone(), folder.spec.needs());
                (name, model, needs, Some(folder.spec), Training::default(), folder.step)
            }
            (Some(url), None, _) => {
                let run = StoredRun::open_at(url, args.step).await?;
                let model = run.model(Weights::Trained, device)?;
                let training = Training::read(url).await?;
                (run.spec.run.name.clone(), model, run.spec.needs(), Some(run.spec.clone()), training, run.step().0)
            }
            (None, Some(file), Some(preset)) => {
                let name = file.file_stem().map_or_else(|| "weights".into(), |s| s.to_string_lossy().into_owned());
                let model = weights::open(preset, file, device)?;
                (name, model, preset.model(TextProjSpec::default()).1, None, Training::default(), 0)
            }
            _ => bail!("expected the URL of a run, or --weights FILE with --model PRESET"),
        };
        let mut data = spec.as_ref().map(|s| s.data.clone()).unwrap_or_default();
        if spec.is_none() && !needs.draws_region() {
            // As FG-CLIP's pictures are trained on (method.md 4.3).
            data.fit = Fit::Squash;
        }
        data.url = args.data.clone().unwrap_or(data.url);
        data.vectors = args.vectors.clone().unwrap_or(data.vectors);
        if data.url.is_empty() || data.vectors.is_empty() {
            bail!("with --weights, tell the dataset and its text vectors: --data URL --vectors KEY");
        }
        if is_hidden(&data.url) {
            bail!("the published run file does not tell where its dataset is; tell one: --data URL");
        }
        let location = Location::parse(&data.url)?;
        let found = index::open(&location).await.with_context(|| format!("opening the dataset {}", data.url))?;
        let reader = RowGroupReader::new(location, &found, args.split(), Some(&data.vectors))?;
        Ok(Self { name, model, device, needs, spec, training, steps, data, reader })
    }

    /// Reads another split of the dataset, without the vectors beside its rows.
    ///
    /// # Errors
    /// A dataset that cannot be opened, a split that it does not have, with those that it has.
    pub(crate) async fn reader_of(&self, split: &str) -> Result<RowGroupReader> {
        let location = Location::parse(&self.data.url)?;
        let found = index::open(&location).await.with_context(|| format!("opening the dataset {}", self.data.url))?;
        Ok(RowGroupReader::new(location, &found, split, None)?)
    }

    /// How rows become samples for this model, as far as `needs` says. Texts become token ids where its
    /// tower reads them.
    ///
    /// # Errors
    /// A tokenizer that cannot be opened.
    pub(crate) fn config(&self, needs: Needs) -> Result<SampleConfig> {
        let size = u32::try_from(self.model.vision().image()).context("the model's image has no size")?;
        let name = &self.data.tokenizer;
        let texts = if self.model.spec().text.reads_tokens() {
            let failed = || format!("cannot open the tokenizer `{name}` (data.tokenizer)");
            TextSource::Tokens(Tokenizer::open(name).with_context(failed)?)
        } else {
            TextSource::None
        };
        Ok(SampleConfig { data: self.data.clone(), size, needs, texts })
    }

    /// As [`Subject::config`], for regions that are shown by their masks.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn mask_config(&self) -> Result<SampleConfig> {
        self.config(Needs::of(&LossSpec::preset(LossPreset::Alphaclip), &self.data))
    }
}
