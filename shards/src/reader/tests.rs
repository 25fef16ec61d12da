//! A feed that makes mistakes: three ranks read and make samples as a run does, one of them goes wrong in one step. The evidence
//! tells which step it was; a replay of the plan does not.

use super::*;
use crate::batch::assemble;
use crate::cache::FoundImage;
use crate::index;
use crate::row::ImageSource;
use crate::sample::{Drawable, Sample, SampleConfig, SampleKey, TextSource, make_sample};
use crate::tokens::Tokenizer;
use crate::writer::{PartWriter, WriterOptions};
use object_store::memory::InMemory;
use object_store::path::Path;
use pixfleet_cluster::audit::{Audit, AuditPlan, Finding, Trail, prove};
use pixfleet_cluster::evidence::{Evidence, FedRow};
use pixfleet_cluster::ledger::{Losses, Record, StepRecord};
use pixfleet_cluster::spec::{DataSpec, LossPreset, LossSpec, Needs};
use pixfleet_cluster::{Generation, Lane, LaneMap, Rank, SampleId, SampleOrder, Step};

const SEED: u64 = 5;
const GROUPS: u32 = 4;
const ROWS_PER_GROUP: u32 = 6;
const STEPS: u64 = 4;
/// Where a mistake is made: the lanes of the second of three ranks.
const WRONG: (Step, Rank) = (Step(2), Rank(1));

fn row(number: u32) -> ImageRow {
    let colour = image::Rgb([(number * 6) as u8, 200 - (number * 3) as u8, 90]);
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(24, 16, colour).write_to(&mut png, image::ImageFormat::Png).expect("encodes");
    let region = |n: u32| Region {
        bbox: [0.1, 0.1, 0.4 + 0.1 * n as f32, 0.6],
        caption_object: Some(format!("thing {n}")),
        caption_merged: Some(format!("thing {n}, at length")),
        ..Region::default()
    };
    ImageRow {
        image_id: format!("row-{number}"),
        image: ImageSource { bytes: Some(png.into_inner().into()), ..ImageSource::default() },
        width: 24,
        height: 16,
        // One, two or three, so that draws differ.
        regions: (0..1 + number % 3).map(region).collect(),
        ..ImageRow::default()
    }
}

/// Two files of the same shape.
async fn dataset() -> (Location, DatasetIndex) {
    let location = Location::with_store("memory:///set", Arc::new(InMemory::new()), Path::from("set"));
    for file in 0..2 {
        let path = format!("train/part-{file:05}.parquet");
        let options = WriterOptions { rows_per_group: ROWS_PER_GROUP, ..WriterOptions::default() };
        let mut part = PartWriter::new(&path, options).expect("a writer");
        let rows = ROWS_PER_GROUP * GROUPS / 2;
        for number in file * rows..(file + 1) * rows {
            part.push(row(number)).expect("a good row");
        }
        location.put(&path, part.finish().expect("bytes")).await.expect("put");
    }
    let index = index::build(&location, &mut |_, _| {}).await.expect("indexed");
    (location, index)
}

/// What ranks feed with.
struct Feed {
    reader: RowGroupReader,
    config: SampleConfig,
    order: SampleOrder,
    map: LaneMap,
    index: DatasetIndex,
}

impl Feed {
    async fn new() -> Self {
        let (location, index) = dataset().await;
        let reader = RowGroupReader::new(location, &index, "train", None).expect("a split");
        let order = SampleOrder::new(SEED, reader.split().shape(), 2).expect("rows");
        let data = DataSpec { common_pair: 0.0, ..DataSpec::default() };
        let needs = Needs::of(&LossSpec::preset(LossPreset::Default), &data);
        let texts = TextSource::Tokens(Tokenizer::open("clip").expect("built in"));
        let config = SampleConfig { data, size: 8, needs, texts };
        let map = LaneMap::new(6, 2, 3).expect("more lanes than ranks");
        Self { reader, config, order, map, index }
    }

    /// `row` of a row group as a sample, with the draws of `keyed`.
    async fn sample(&self, (row_group, row): (u32, u32), keyed: SampleId) -> Sample {
        let read = self.reader.read(row_group, &[row], self.config.columns()).await.expect("a good row");
        let key = SampleKey { seed: SEED, epoch: keyed.epoch, row_number: self.order.row_number(keyed) };
        make_sample(&read[0], key, &self.config).expect("a sample")
    }

    /// What is dealt to a lane.
    fn dealt(&self, step: Step, lane: u32) -> Vec<SampleId> {
        let mut order = self.order.clone();
        self.map.positions(step, Lane(lane)).map(|position| order.locate(position)).collect()
    }

    /// The batch of a lane, as far as evidence goes.
    async fn lane(&self, step: Step, lane: u32) -> Vec<FedRow> {
        let mut samples = Vec::new();
        for id in self.dealt(step, lane) {
            samples.push((id, self.sample((id.row_group, id.row), id).await));
        }
        assemble(&samples, &self.config.needs, Vec::new()).expect("alike").fed
    }

    /// What a rank feeds of a step, by lane.
    async fn rank(&self, step: Step, rank: Rank) -> Vec<Vec<FedRow>> {
        let mut lanes = Vec::new();
        for lane in self.map.lanes_of(rank) {
            lanes.push(self.lane(step, lane).await);
        }
        lanes
    }

    /// The ledger of a run whose ranks feed as they should, but for `wrong` of [`WRONG`].
    async fn ledger(&self, wrong: Option<Vec<Vec<FedRow>>>) -> Vec<Record> {
        let mut records = Vec::new();
        for step in (0..STEPS).map(Step) {
            let mut sum = Evidence::default();
            for rank in (0..3).map(Rank) {
                let lanes = match &wrong {
                    Some(wrong) if (step, rank) == WRONG => wrong.clone(),
                    _ => self.rank(step, rank).await,
                };
                for (lane, rows) in self.map.lanes_of(rank).zip(lanes) {
                    assert_eq!(rows.len(), 2, "a lane of step {step}");
                    let positions = self.map.positions(step, Lane(lane));
                    sum += positions.zip(rows).map(|(position, fed)| fed.at(position)).sum();
                }
            }
            records.push(Record::Step(StepRecord {
                step,
                generation: Generation(1),
                world: 3,
                first_position: self.map.first_position(step).0,
                samples: self.map.global_batch().into(),
                losses: Losses::default(),
                lr: 0.0,
                seconds: 0.0,
                substitutions: vec![],
                unreported: vec![],
                evidence: Some(sum),
            }));
        }
        records
    }

    /// The audit of `records`; with what the data say is drawn.
    async fn audit(&self, records: &[Record]) -> Audit {
        let mut choices = Vec::new();
        for group in 0..GROUPS {
            let all: Vec<u32> = (0..ROWS_PER_GROUP).collect();
            let columns = Columns { geometry: true, ..Columns::CAPTIONS };
            let rows = self.reader.read(group, &all, columns).await.expect("good rows");
            choices.extend(rows.iter().map(|row| Drawable::of(row, row.image_text().is_some())));
        }
        let mut drawn = |epoch, row_number: u64| {
            let key = SampleKey { seed: SEED, epoch, row_number };
            choices[row_number as usize].drawn_word(key, &self.config.data, &self.config.needs).expect("has regions")
        };
        let plan = AuditPlan {
            order: self.order.clone(),
            steps: STEPS,
            global_batch: self.map.global_batch(),
            seed: SEED,
            dataset_digest: self.index.digest.clone(),
            origins: self.reader.split().origins(),
        };
        let mut trail = Trail::default();
        records.iter().for_each(|record| trail.apply(record));
        prove(&trail, plan, Some(&mut drawn), &mut |_, _| {})
    }

    /// Demands that the mistake is found, and that a replay of the plan alone finds nothing.
    async fn found(&self, what: &str, wrong: Vec<Vec<FedRow>>, expected: Finding) {
        let mut records = self.ledger(Some(wrong)).await;
        assert_eq!(self.audit(&records).await.findings, [expected], "{what}");
        for record in &mut records {
            if let Record::Step(step) = record {
                step.evidence = None;
            }
        }
        assert!(self.audit(&records).await.is_clean(), "{what}: the plan, held against the plan");
    }
}

fn fed_otherwise() -> Finding {
    Finding::FedOtherwise { step: WRONG.0, unreported: false }
}

#[tokio::test]
async fn what_a_feed_reads_is_what_the_plan_says() {
    let feed = Feed::new().await;
    let audit = feed.audit(&feed.ledger(None).await).await;
    assert!(audit.is_clean(), "{:?}", audit.findings);
    assert_eq!((audit.evidence.as_planned, audit.evidence.drawn), (STEPS, Some(STEPS)));
    assert_eq!(audit.epochs.len(), 2, "each row twice");
}

#[tokio::test]
async fn lanes_and_batches_in_the_wrong_place_are_found() {
    let feed = Feed::new().await;
    let (step, rank) = WRONG;
    let mut swapped = feed.rank(step, rank).await;
    swapped.swap(0, 1);
    feed.found("a lane swapped with its neighbour's", swapped, fed_otherwise()).await;
    let again = feed.rank(Step(step.0 - 1), rank).await;
    feed.found("a batch fed twice", again, fed_otherwise()).await;
}

#[tokio::test]
async fn rows_of_elsewhere_are_found() {
    let feed = Feed::new().await;
    let (step, rank) = WRONG;
    let lane = feed.map.lanes_of(rank).start;
    let id = feed.dealt(step, lane)[0];
    let right = feed.rank(step, rank).await;
    let with = |sample: Sample| {
        let mut lanes = right.clone();
        lanes[0][0] = sample.fed.expect("a row that was read");
        lanes
    };

    // The same row group of the same shape, of the other file.
    let mut index = feed.index.clone();
    index.splits.get_mut("train").expect("there").files.reverse();
    let location = feed.reader.access.location.clone();
    let other = RowGroupReader::new(location, &index, "train", None).expect("a split");
    let exchanged = Feed { reader: other, ..Feed::new().await };
    let elsewhere = exchanged.sample((id.row_group, id.row), id).await;
    feed.found("a row group of another file", with(elsewhere), fed_otherwise()).await;

    let beside = feed.sample((id.row_group, (id.row + 1) % ROWS_PER_GROUP), id).await;
    feed.found("one row off by one", with(beside), fed_otherwise()).await;

    let used = feed.order.substitute(id, 1);
    let stand_in = feed.sample((used.row_group, used.row), used).await;
    feed.found("a stand-in that is not recorded", with(stand_in), fed_otherwise()).await;
}

#[tokio::test]
async fn a_stale_entry_of_the_cache_is_found() {
    let feed = Feed::new().await;
    let (step, rank) = WRONG;
    let id = feed.dealt(step, feed.map.lanes_of(rank).start)[0];
    // Of one row its own picture, kept under the number of another.
    let other = (id.row + 1) % ROWS_PER_GROUP;
    feed.reader.read(id.row_group, &[other], feed.config.columns()).await.expect("a good row");
    let kept = |row: u32| feed.reader.cache.find(id.row_group, |kept| kept.images.get(&row).cloned());
    let (own, stale): (Option<FoundImage>, FoundImage) = (kept(id.row), kept(other).expect("just read"));
    feed.reader.cache.keep(id.row_group, 0, |kept| drop(kept.images.insert(id.row, stale)));
    let wrong = feed.rank(step, rank).await;
    feed.reader.cache.keep(id.row_group, 0, |kept| match own {
        Some(own) => drop(kept.images.insert(id.row, own)),
        None => drop(kept.images.remove(&id.row)),
    });
    feed.found("a stale entry of the cache", wrong, fed_otherwise()).await;
}

#[tokio::test]
async fn regions_and_texts_drawn_for_another_row_are_found() {
    let feed = Feed::new().await;
    let (step, rank) = WRONG;
    let lane = feed.map.lanes_of(rank).start;
    let ids = feed.dealt(step, lane);
    let mut keyed = feed.rank(step, rank).await;
    let by_neighbour = feed.sample((ids[0].row_group, ids[0].row), ids[1]).await;
    keyed[0][0] = by_neighbour.fed.expect("a row that was read");
    feed.found("draws keyed by another row", keyed, fed_otherwise()).await;

    let mut drawn = feed.rank(step, rank).await;
    let all: Vec<FedRow> = drawn.iter().flatten().copied().collect();
    let other = all.iter().find(|fed| fed.drawn != all[0].drawn).expect("not all draw the same");
    drawn[0][0].drawn = other.drawn;
    feed.found("another row's region", drawn, Finding::DrawnOtherwise(step)).await;
}

#[tokio::test]
async fn rows_are_numbered_as_the_file_numbers_them() {
    let feed = Feed::new().await;
    let origins = feed.reader.split().origins();
    for group in 0..GROUPS {
        // Out of order and twice: single pages of pictures, all narrow columns.
        let rows = feed.reader.read(group, &[4, 0, 4, 1], feed.config.columns()).await.expect("good rows");
        for (row, number) in rows.iter().zip([4, 0, 4, 1]) {
            let first = origins[group as usize];
            let origins = row.whence.0.expect("was read");
            assert_eq!((origins.narrow.file, origins.narrow.row), (first.file, first.row + number));
            assert_eq!((origins.picture, origins.vectors), (Some(origins.narrow), None));
        }
    }
}
