//! Where samples come from: the dataset, its order, and how rows become samples. Outlives generations, and with it the
//! reader's cache.

use std::time::Duration;

use pixfleet_checkpoint::Attempts;
use pixfleet_cluster::SampleOrder;
use pixfleet_cluster::spec::{RunSpec, Rung};
use pixfleet_model::VisionSizes;
use pixfleet_shards::index;
use pixfleet_shards::reader::RowGroupReader;
use pixfleet_shards::sample::{SampleConfig, TextSource};
use pixfleet_shards::store::Location;
use pixfleet_shards::tokens::Tokenizer;

use super::FeedError;
use crate::train::cut_log::CutLog;
use crate::train::error::TrainError;

/// See the module.
pub(crate) struct FeedSource {
    /// Rows by row group.
    pub(crate) reader: RowGroupReader,
    /// The run's order of samples.
    pub(crate) order: SampleOrder,
    /// How rows become samples.
    pub(crate) config: SampleConfig,
    /// The run's seed.
    pub(crate) seed: u64,
    /// How long a store that fails is asked for a row group.
    pub(crate) patience: Duration,
    /// Threads that decode.
    pub(crate) pool: rayon::ThreadPool,
    /// Texts that were cut.
    pub(crate) cuts: CutLog,
}

impl FeedSource {
    /// Opens the dataset of a run file; with `digest` it must be that version of it. `threads` decode; 0: half the cores.
    ///
    /// # Errors
    /// A dataset that cannot be opened, is another version or has no rows; a tokenizer that is not there.
    pub(crate) async fn open(spec: &RunSpec, digest: Option<&str>, threads: usize) -> Result<Self, TrainError> {
        let location = Location::parse(&spec.data.url).map_err(FeedError::from)?;
        let patience = spec.ladder()[Rung::StorePatience];
        let mut attempts = Attempts::lasting(patience);
        let index = loop {
            match index::open(&location).await {
                Err(error) if attempts.outlasts(&error, error.class()).await => {}
                answer => break answer.map_err(FeedError::from)?,
            }
        };
        if let Some(expected) = digest.filter(|expected| index.digest != **expected) {
            return Err(TrainError::Dataset { expected: expected.into(), found: index.digest });
        }
        let reader = RowGroupReader::new(location, &index, &spec.data.split, Some(&spec.data.vectors));
        let reader = reader.map_err(FeedError::from)?;
        let shape = reader.split().shape();
        let order = SampleOrder::new(spec.run.seed, shape, spec.data.window_row_groups)
            .ok_or_else(|| TrainError::NoRows { split: spec.data.split.clone() })?;
        let texts = if spec.model.text.reads_tokens() {
            TextSource::Tokens(Tokenizer::open(&spec.data.tokenizer).map_err(TrainError::Tokenizer)?)
        } else {
            TextSource::Vectors(spec.model.text_proj.width as usize)
        };
        let size = VisionSizes::of(&spec.model).image() as u32;
        let config = SampleConfig { data: spec.data.clone(), size, needs: spec.needs(), texts };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores.div_ceil(2) } else { threads };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("decode-{i}"));
        let pool = pool.build().map_err(TrainError::Threads)?;
        Ok(Self { reader, order, config, seed: spec.run.seed, patience, pool, cuts: CutLog::default() })
    }
}
