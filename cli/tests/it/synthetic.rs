//! A run that was never trained: run file, index of a dataset and ledger as a coordinator writes them, on disk.

use pixfleet_cluster::evidence::{Evidence, FedRow, FileId, Keyed, Origin, Origins};
use pixfleet_cluster::index::{DatasetIndex, FileIndex, RowGroupIndex, SplitIndex};
use pixfleet_cluster::ledger::{LEDGER_SCHEMA, Losses, Record, StateSource, StepRecord};
use pixfleet_cluster::{DatasetShape, Generation, MemberId, SampleOrder, Step};
use std::collections::BTreeMap;
use std::fs::{create_dir_all, write};
use std::path::Path;

/// The one file of the dataset, and its content.
const FILE: &str = "train/part-00000.parquet";
const CONTENT: &str = "c";

/// What is to be written.
pub(crate) struct Synthetic {
    /// Rows of each row group of the dataset.
    pub(crate) rows: Vec<u32>,
    /// Row groups shuffled together.
    pub(crate) window: u32,
    /// Samples of a step.
    pub(crate) batch: u32,
    /// Records of a segment.
    pub(crate) segment: usize,
}

impl Synthetic {
    /// Seed of the run.
    pub(crate) const SEED: u64 = 5;

    /// Writes the run into `folder` with a ledger of `records` behind its opening, and returns its URL.
    pub(crate) fn write(&self, folder: &Path, records: impl Iterator<Item = Record>) -> String {
        let url = |name: &str| format!("file://{}", folder.join(name).display());
        let digest = self.write_index(&folder.join("data"));
        let run = folder.join("store/r");
        create_dir_all(run.join("ledger")).expect("scratch is writable");
        let text = format!(
            "[run]\nname = \"r\"\nseed = {}\nstore = \"{}\"\n[data]\nurl = \"{}\"\nwindow_row_groups = {}\n[schedule]\n\
             steps = 1000000\n[train]\nglobal_batch = {}\nlanes = 1\n",
            Self::SEED,
            url("store"),
            url("data"),
            self.window,
            self.batch
        );
        write(run.join("run.toml"), text).expect("scratch is writable");
        self.write_ledger(&run, std::iter::once(self.opened(&digest)).chain(records));
        url("store/r")
    }

    /// Step `number` as it should be.
    pub(crate) fn step(&self, number: u64) -> StepRecord {
        let samples = u64::from(self.batch);
        StepRecord {
            step: Step(number),
            generation: Generation(1),
            world: 8,
            first_position: number * samples,
            samples,
            losses: Losses::new([("global", 4.918_327_1), ("crop", 4.866_2), ("local", 0.289_9)], 10.074_4),
            lr: 2.934e-4,
            seconds: 0.971_3,
            substitutions: vec![],
            unreported: vec![],
            evidence: None,
        }
    }

    /// The dataset's one file.
    pub(crate) fn file() -> FileId {
        FileId::of(FILE, CONTENT)
    }

    /// A row as it should be fed in `epoch`.
    pub(crate) fn fed_row(epoch: u64, row: u64) -> FedRow {
        let origins = Origins::of(Origin { file: Self::file(), row });
        FedRow { origins, keyed: Keyed::new(Self::SEED, epoch).word(row), drawn: 0 }
    }

    /// Puts the evidence into records that was kept of what they should have been fed.
    pub(crate) fn fed(&self) -> impl FnMut(StepRecord) -> StepRecord + use<> {
        let shape = DatasetShape { rows: self.rows.clone() };
        let mut order = SampleOrder::new(Self::SEED, shape, self.window).expect("has rows");
        let epoch_len = order.epoch_len();
        move |record| {
            let (mut position, mut sum) = (record.first_position, Evidence::default());
            order.walk(position..position + record.samples, |rows| {
                for row in rows {
                    sum += Self::fed_row(position / epoch_len, row.number).at(position);
                    position += 1;
                }
            });
            StepRecord { evidence: Some(sum), ..record }
        }
    }

    /// Generation `number`, which starts from `start_step`.
    pub(crate) fn formed(number: u64, start_step: u64) -> Record {
        let (generation, start_step) = (Generation(number), Step(start_step));
        Record::Formed { generation, start_step, members: vec![MemberId(1)], source: StateSource::Initial }
    }

    fn opened(&self, dataset_digest: &str) -> Record {
        let line = serde_json::json!({
            "record": "opened", "run": "r", "spec_digest": "", "dataset_digest": dataset_digest,
            "seed": Self::SEED, "global_batch": self.batch,
        });
        serde_json::from_value(line).expect("what an older coordinator wrote")
    }

    fn write_index(&self, data: &Path) -> String {
        let group = |&rows| RowGroupIndex { rows, regions: rows, start: 4, end: 40, image_bytes: 30 };
        let file = FileIndex {
            path: FILE.into(),
            size: 100,
            etag: None,
            content: Some(CONTENT.into()),
            row_groups: self.rows.iter().map(group).collect(),
        };
        let index = DatasetIndex::new("1", BTreeMap::from([("train".into(), SplitIndex { files: vec![file] })]));
        create_dir_all(data.join("index")).expect("scratch is writable");
        let json = serde_json::to_vec(&index).expect("an index is JSON");
        write(data.join(index.path()), json).expect("scratch is writable");
        index.digest
    }

    fn write_ledger(&self, run: &Path, records: impl Iterator<Item = Record>) {
        let mut records = records.peekable();
        let mut previous = String::new();
        for number in 0.. {
            if records.peek().is_none() {
                return;
            }
            let header = Record::Segment { schema: LEDGER_SCHEMA, number, previous, nonce: "n".into() };
            let text: String =
                std::iter::once(header).chain(records.by_ref().take(self.segment)).map(|r| r.to_line()).collect();
            previous = blake3::hash(text.as_bytes()).to_hex().to_string();
            write(run.join(Record::segment_key(number)), text).expect("scratch is writable");
        }
    }
}
