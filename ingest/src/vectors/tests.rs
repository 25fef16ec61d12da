//! Tar files with planted mistakes, joined to a small dataset and read back through the reader of runs.

use super::{VectorIngest, dry_run_vectors, ingest_vectors};
use crate::records::tar::tests::entry;
use crate::{IngestError, Ingested, LLM2CLIP_KEY, Reject, RejectKind, RejectLimit};
use half::f16;
use pixfleet_shards::verify::verify;
use pixfleet_shards::{
    Columns, ImageRow, ImageSource, Location, Region, RowGroupReader, ShardWriter, WriterOptions, index,
};
use std::path::{Path, PathBuf};

const WIDTH: usize = 8;

/// The vector of a key and caption: numbers that f16 rounds.
fn vector(key: &str, is_long: bool) -> Vec<f32> {
    let seed = key.bytes().map(f32::from).sum::<f32>() + f32::from(u8::from(is_long)) * 0.37;
    (0..WIDTH).map(|i| (seed * 0.731 + i as f32 * 1.917).sin() * 3.3).collect()
}

fn rounded(vector: &[f32]) -> Vec<f32> {
    vector.iter().map(|&x| f16::from_f32(x).to_f32()).collect()
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Both vectors of a key, as webdataset's writer puts them.
fn pair(key: &str) -> Vec<u8> {
    [("shortSV_captions", false), ("longSV_captions", true)]
        .into_iter()
        .flat_map(|(ending, is_long)| one(key, ending, &vector(key, is_long)))
        .collect()
}

fn one(key: &str, ending: &str, vector: &[f32]) -> Vec<u8> {
    entry(&format!("{key}.{ending}"), b'0', &bytes(vector))
}

fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = members.concat();
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn row(id: &str, has_long: bool) -> ImageRow {
    let region =
        Region { bbox: [0.0, 0.0, 1.0, 0.5], caption_object: Some(format!("part of {id}")), ..Region::default() };
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(4, 4).write_to(&mut png, image::ImageFormat::Png).expect("encodes");
    ImageRow {
        image_id: id.into(),
        image: ImageSource { bytes: Some(png.into_inner().into()), ..ImageSource::default() },
        width: 4,
        height: 4,
        caption_long: has_long.then(|| format!("a long caption of {id}")),
        caption_short: Some(format!("caption of {id}")),
        regions: vec![region],
        ..ImageRow::default()
    }
}

struct Scratch {
    folder: tempfile::TempDir,
    set: Location,
}

impl Scratch {
    /// A dataset of `rows` in files of four rows and row groups of two.
    async fn of(rows: Vec<ImageRow>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let set = Location::parse(folder.path().join("set").to_str().expect("a path")).expect("a place");
        for (i, rows) in rows.chunks(4).enumerate() {
            let options = WriterOptions { rows_per_group: 2, ..WriterOptions::default() };
            let written = pixfleet_shards::Written { files: i as u32, ..pixfleet_shards::Written::default() };
            let mut writer = ShardWriter::new(set.clone(), "train", options).after(written);
            for row in rows {
                writer.push(row.clone()).await.expect("a good row");
            }
            writer.finish().await.expect("writes");
        }
        index::build(&set, &mut |_, _| {}).await.expect("an index");
        Self { folder, set }
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(&path, bytes).expect("writable");
        path
    }

    async fn ingest(&self, job: &VectorIngest) -> Result<Ingested, IngestError> {
        ingest_vectors(job, &self.set, &mut |_| {}).await
    }

    /// The rows with their vectors, as a run that reads captions too has them.
    async fn rows(&self) -> Vec<ImageRow> {
        let index = index::open(&self.set).await.expect("an index");
        let reader = RowGroupReader::new(self.set.clone(), &index, "train", Some(LLM2CLIP_KEY)).expect("a split");
        let mut rows = Vec::new();
        for (group, &count) in reader.split().shape().rows.iter().enumerate() {
            let all: Vec<u32> = (0..count).collect();
            rows.extend(reader.read(group as u32, &all, Columns::ALL).await.expect("good rows"));
        }
        rows
    }

    fn rejects(&self) -> Vec<Reject> {
        let folder = self.folder.path().join(format!("set/ingest/vectors/{LLM2CLIP_KEY}/train"));
        let mut files: Vec<_> = std::fs::read_dir(folder).expect("there").flatten().map(|f| f.path()).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        files.sort();
        let text: String = files.iter().map(|path| std::fs::read_to_string(path).expect("rejects")).collect();
        text.lines().map(|line| serde_json::from_str(line).expect("a reject")).collect()
    }
}

fn job(source: &Path) -> VectorIngest {
    VectorIngest {
        source: source.to_str().expect("a path").into(),
        split: "train".into(),
        key: LLM2CLIP_KEY.into(),
        max_rejects: None,
        restart: false,
    }
}

#[tokio::test]
async fn vectors_are_joined_by_key_and_read_back_as_a_run_reads_them() {
    let ids = ["a", "b", "c", "d", "e", "f"];
    let scratch = Scratch::of(ids.iter().map(|&id| row(id, id != "c")).collect()).await;
    // Other order than the rows', two files, keys with folders, and a file that is none of them.
    scratch.put("tars/0_text_embeddings.tar", tar(&["00/f", "00/b", "00/c"].map(pair)));
    scratch.put("tars/1_text_embeddings.tar", tar(&["e", "d", "a"].map(pair)));
    let folder = scratch.put("tars/0.tar", b"pictures").parent().expect("a folder").to_owned();
    let mut told = Vec::new();
    let dry = dry_run_vectors(&job(&folder), &scratch.set, &mut |r| told.push(r.clone()), &mut |_| {}).await;
    assert_eq!((dry.expect("reads").counts.rows, told.len()), (6, 0));
    assert!(!scratch.folder.path().join("set/vectors").exists() && !scratch.folder.path().join("set/ingest").exists());

    let done = scratch.ingest(&job(&folder)).await.expect("joins");
    let counts = &done.counts;
    assert_eq!((counts.records, counts.rows, counts.passed_over, counts.refused(), counts.files), (12, 6, 6, 0, 2));
    let rows = scratch.rows().await;
    for (row, id) in rows.iter().zip(ids) {
        let key = if ["f", "b", "c"].contains(&id) { format!("00/{id}") } else { id.to_owned() };
        let expected = rounded(&vector(&key, id != "c"));
        assert_eq!((row.image_id.as_str(), row.image_vector.as_ref()), (id, Some(&expected)));
        assert_ne!(Some(vector(&key, id != "c")), row.image_vector, "the numbers were rounded");
        assert_eq!((&row.regions[0].short_vector, &row.regions[0].long_vector), (&None, &None));
    }
    let again = scratch.ingest(&job(&folder)).await.expect("is done");
    assert!(again.was_done && again.counts == done.counts);
    let report = verify(&scratch.set, &mut |_| {}).await.expect("verifies");
    assert_eq!((report.vectors_files, report.faults.len()), (2, 0), "{:?}", report.faults);
}

#[tokio::test]
async fn every_planted_mistake_is_named_and_leaves_its_neighbours_alone() {
    let mut rows: Vec<ImageRow> =
        ["good", "nan", "wide", "odd", "unspoken", "short", "twin", "twin", "mute"].map(|id| row(id, true)).into();
    rows[8].caption_long = None;
    rows[8].caption_short = None;
    let scratch = Scratch::of(rows).await;
    let mut nan = vector("nan", true);
    nan[5] = f32::NAN;
    let first = tar(&[
        one("good", "longSV_captions", &vector("good", true)),
        one("nan", "longSV_captions", &nan),
        one("wide", "longSV_captions", &[1.0; WIDTH + 1]),
        entry("odd.longSV_captions", b'0', &[1; 4 * WIDTH - 2]),
        one("good", "longSV_captions", &[9.0; WIDTH]),
        pair("stranger"),
        one("short", "shortSV_captions", &vector("short", false)),
        pair("twin"),
        pair("mute"),
        entry("good.json", b'0', b"{}"),
    ]);
    scratch.put("tars/0_text_embeddings.tar", first);
    let cut = tar(&[pair("good")[..1024].to_vec(), pair("short")]);
    // Within the bytes of the long vector of `short`.
    scratch.put("tars/1_text_embeddings.tar", &cut[..1024 + 1024 + 512 + 20]);
    let between = tar(&[one("stranger", "longSV_captions", &[0.5; WIDTH])]);
    let folder = scratch.put("tars/2_text_embeddings.tar", &between[..1024]);
    let done = scratch.ingest(&job(folder.parent().expect("a folder"))).await.expect("joins");
    let rejects = scratch.rejects();
    let told: Vec<_> =
        rejects.iter().map(|r| (r.kind, r.file.chars().next(), r.record, r.key.as_deref().unwrap_or(""))).collect();
    let (zero, one, two, data) = (Some('0'), Some('1'), Some('2'), Some('t'));
    assert_eq!(
        told,
        [
            (RejectKind::VectorValue, zero, 1, "nan"),
            (RejectKind::VectorWidth, zero, 2, "wide"),
            (RejectKind::VectorWidth, zero, 3, "odd"),
            (RejectKind::Duplicate, zero, 4, "good"),
            (RejectKind::Orphan, zero, 5, "stranger"),
            (RejectKind::Orphan, zero, 6, "stranger"),
            (RejectKind::Duplicate, one, 1, "short"),
            (RejectKind::Cut, one, 2, ""),
            (RejectKind::Orphan, two, 0, "stranger"),
            (RejectKind::Cut, two, 1, ""),
            (RejectKind::VectorMissing, data, 0, "unspoken"),
            (RejectKind::VectorMissing, data, 1, "short"),
            (RejectKind::Duplicate, data, 2, "twin"),
            (RejectKind::Duplicate, data, 3, "twin"),
            (RejectKind::Field, data, 0, "mute"),
        ]
    );
    assert_eq!(
        rejects[1].to_string(),
        "0_text_embeddings.tar, record 2 (wide), field longSV_captions: 9 numbers; expected 8 numbers of 4 bytes, as the \
         others have"
    );
    assert_eq!(
        rejects[10].to_string(),
        "train/part-00001.parquet, record 0 (unspoken), field caption_long: no vector of this caption; expected a member \
         <key>.longSV_captions whose key is the row's image_id"
    );
    let counts = &done.counts;
    assert_eq!(counts.records, counts.rows + counts.passed_over + counts.refused(), "{counts:?}");
    assert_eq!((counts.rows, counts.refused(), done.samples.len()), (1, 15, 15));
    let rows = scratch.rows().await;
    assert_eq!(rows[0].image_vector, Some(rounded(&vector("good", true))), "the first of the two stays");
    assert!(rows[1..].iter().all(|row| row.image_vector.is_none()));
}

/// All objects of the dataset that an ingest of vectors writes, with their hashes.
fn written(scratch: &Scratch) -> Vec<(PathBuf, blake3::Hash)> {
    let root = scratch.folder.path().join("set");
    let mut found = Vec::new();
    for folder in [format!("vectors/{LLM2CLIP_KEY}/train"), format!("ingest/vectors/{LLM2CLIP_KEY}/train")] {
        for file in std::fs::read_dir(root.join(&folder)).expect("there").flatten() {
            let hash = blake3::hash(&std::fs::read(file.path()).expect("readable"));
            found.push((Path::new(&folder).join(file.file_name()), hash));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[tokio::test]
async fn one_that_was_killed_goes_on_and_writes_what_an_undisturbed_one_does() {
    let ids: Vec<String> = (0..18).map(|i| format!("{i:03}")).collect();
    let scratch = Scratch::of(ids.iter().map(|id| row(id, true)).collect()).await;
    let spoken = ids.iter().filter(|id| *id != "005").map(|id| pair(id));
    let source = scratch.put("a.tar", tar(&spoken.chain([pair("stranger")]).collect::<Vec<_>>()));
    let done = scratch.ingest(&job(&source)).await.expect("joins");
    assert_eq!((done.counts.files, done.counts.rows, done.counts.refused()), (5, 17, 3));
    let whole = written(&scratch);
    let at = |path: String| scratch.folder.path().join("set").join(path);
    // As if it had been killed when its third file was there and not yet recorded.
    for gone in ["done.json", "part-00002.json", "part-00003.json", "part-00004.json"] {
        std::fs::remove_file(at(format!("ingest/vectors/{LLM2CLIP_KEY}/train/{gone}"))).expect("was there");
    }
    for number in 3..5 {
        let path = at(format!("vectors/{LLM2CLIP_KEY}/train/part-{number:05}.parquet"));
        std::fs::remove_file(path).expect("was there");
    }
    let resumed = scratch.ingest(&job(&source)).await.expect("goes on");
    assert_eq!((resumed.rows_before, &resumed.counts), (7, &done.counts));
    assert_eq!(written(&scratch), whole);

    // Vectors that are not of this ingest are not written over.
    std::fs::remove_dir_all(at(format!("ingest/vectors/{LLM2CLIP_KEY}"))).expect("was there");
    let shifted: Vec<Vec<u8>> = ids.iter().map(|id| one(id, "longSV_captions", &[2.0; WIDTH])).collect();
    let other = scratch.put("b.tar", tar(&shifted));
    assert!(matches!(scratch.ingest(&job(&other)).await, Err(IngestError::OtherVectors { .. })));
    for number in 1..5 {
        std::fs::remove_file(at(format!("vectors/{LLM2CLIP_KEY}/train/part-{number:05}.parquet"))).expect("was there");
    }
    let error = scratch.ingest(&job(&other)).await.expect_err("other bytes").to_string();
    assert!(error.contains("part-00000.parquet: other vectors of this key are there"), "{error}");
    let restart = VectorIngest { restart: true, ..job(&other) };
    assert_eq!(scratch.ingest(&restart).await.expect("begins again").counts.rows, 18);
    assert!(scratch.rows().await.iter().all(|row| row.image_vector == Some(vec![2.0; WIDTH])));
}

#[tokio::test]
async fn what_cannot_be_begun_says_what_to_do() {
    let scratch = Scratch::of(["a", "b", "c"].map(|id| row(id, true)).into()).await;
    let source = scratch.put("a.tar", tar(&[pair("a"), pair("x"), pair("y")]));
    let strict = VectorIngest { max_rejects: RejectLimit::parse("10%"), ..job(&source) };
    let error = scratch.ingest(&strict).await.expect_err("four of six").to_string();
    assert!(error.starts_with("4 of 6 records were refused, more than --max-rejects 10 %"), "{error}");
    assert_eq!(scratch.rejects().len(), 4);
    let told = async |job: VectorIngest| scratch.ingest(&job).await.expect_err("refused").to_string();
    let stdin = VectorIngest { source: "-".into(), ..job(&source) };
    assert!(told(stdin).await.contains("give a file, a folder or a URL"));
    let path = VectorIngest { key: "../x".into(), ..job(&source) };
    assert!(told(path).await.contains("`../x` is no key of vectors"));
    let split = VectorIngest { split: "val".into(), ..job(&source) };
    assert!(told(split).await.contains("val"));
    let bare = scratch.put("bare.tar", tar(&[entry("a.jpg", b'0', b"x")]));
    assert!(told(job(&bare)).await.contains("expected members named <key>.shortSV_captions"));
    let bad = scratch.put("bad.tar", [7u8; 2048]);
    assert!(told(job(&bad)).await.contains("bad.tar, byte 512: a header whose checksum is wrong"));
}
