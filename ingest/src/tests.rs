//! Whole ingests of small sources, read back as rows.

use crate::records::tar::tests::entry;
use crate::{
    BoxForm, FieldMap, Format, Ingest, IngestError, Ingested, LLM2CLIP_KEY, PictureCheck, PicturesFrom, Reject,
    RejectKind, RejectLimit, VectorIngest, ingest, ingest_vectors,
};
use arrow_array::builder::{BinaryBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use pixfleet_shards::{Columns, ImageRow, Location, RowGroupReader, WriterOptions, index};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// A picture that is told from others by `seed`.
fn png(width: u32, height: u32, seed: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let pixel = |x: u32, y: u32| image::Rgb([(x * 7) as u8 ^ seed, (y * 5) as u8, seed]);
    let picture = image::RgbImage::from_fn(width, height, pixel);
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encodes");
    bytes.into_inner()
}

fn job(format: Format, source: &Path) -> Ingest {
    Ingest {
        format,
        source: source.to_str().expect("a path").into(),
        beside: None,
        pictures: PicturesFrom::Beside,
        fetch: None,
        map: FieldMap::default(),
        boxes: BoxForm::Fractions,
        check: PictureCheck::Whole,
        split: "train".into(),
        limit: None,
        max_rejects: None,
        writer: WriterOptions { rows_per_group: 4, ..WriterOptions::default() },
        restart: false,
    }
}

struct Scratch {
    folder: tempfile::TempDir,
    out: Location,
}

impl Scratch {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let out = Location::parse(folder.path().join("out").to_str().expect("a path")).expect("a place");
        Self { folder, out }
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(&path, bytes).expect("writable");
        path
    }

    async fn ingest(&self, job: &Ingest) -> Result<Ingested, IngestError> {
        ingest(job, &self.out, true, &mut |_| {}).await
    }

    async fn rows(&self) -> Vec<ImageRow> {
        let index = index::open(&self.out).await.expect("an index");
        let reader = RowGroupReader::new(self.out.clone(), &index, "train", None).expect("a split");
        let mut rows = Vec::new();
        for (group, &count) in reader.split().shape().rows.iter().enumerate() {
            let all: Vec<u32> = (0..count).collect();
            rows.extend(reader.read(group as u32, &all, Columns::ROWS).await.expect("good rows"));
        }
        rows
    }

    fn rejects(&self) -> Vec<Reject> {
        let file = self.folder.path().join("out/ingest/train/rejects-00000.jsonl");
        let text = std::fs::read_to_string(file).expect("rejects");
        text.lines().map(|line| serde_json::from_str(line).expect("a reject")).collect()
    }
}

/// Ten images of which the fourth has no picture, two regions each, every seventh annotation bad; annotations stand the
/// other way round.
fn coco() -> (Value, Value) {
    let images: Vec<Value> =
        (0..10).map(|i| json!({"id": 100 + i, "file_name": format!("{i}.png"), "width": 40, "height": 20})).collect();
    let annotation = |n: i64| {
        let bad = n % 7 == 6;
        json!({"id": n, "image_id": 100 + n / 2, "category_id": 3, "iscrowd": 0,
               "bbox": if bad { json!([35, 5, 90, 10]) } else { json!([n % 2 * 10, 5, 12, 10]) },
               "segmentation": [[10, 5, 22, 5, 22, 15, 10, 15]]})
    };
    let annotations: Vec<Value> = (0..20).rev().map(annotation).chain([json!({"id": 99, "image_id": 7})]).collect();
    let captions = json!({"annotations": (0..20).map(|n| json!({"image_id": 100 + n / 2, "caption": format!("c{n}")})).collect::<Vec<_>>()});
    (
        json!({"info": {}, "annotations": annotations, "images": images, "categories": [{"id": 3, "name": "fox"}]}),
        captions,
    )
}

#[tokio::test]
async fn coco_s_lists_are_joined_by_image_and_what_is_bad_is_named() {
    let scratch = Scratch::new();
    let (instances, captions) = coco();
    let source = scratch.put("instances.json", instances.to_string());
    let captions = scratch.put("captions.json", captions.to_string());
    for i in (0..10).filter(|&i| i != 4) {
        scratch.put(&format!("pictures/{i}.png"), png(40, 20, i));
    }
    let beside = Some(captions.to_str().expect("a path").to_owned());
    let pictures = PicturesFrom::Folder(scratch.folder.path().join("pictures").to_str().expect("a path").into());
    let done = scratch.ingest(&Ingest { beside, pictures, ..job(Format::Coco, &source) }).await.expect("ingests");
    let rows = scratch.rows().await;
    let ids: Vec<_> = rows.iter().map(|r| r.image_id.as_str()).collect();
    assert_eq!(ids, ["100", "101", "102", "103", "105", "106", "107", "108", "109"], "in the order of the images");
    assert_eq!(rows[1].captions, ["c2", "c3"]);
    assert_eq!((rows[1].caption_short.as_deref(), rows[1].image.path.as_deref()), (Some("c2"), Some("1.png")));
    let regions = &rows[1].regions;
    assert_eq!(regions.iter().map(|r| r.bbox).collect::<Vec<_>>(), [[0.25, 0.25, 0.55, 0.75], [0.0, 0.25, 0.3, 0.75]]);
    assert_eq!(regions[0].mask.as_ref().expect("a mask").bbox(), Some([10, 5, 22, 15]));
    assert_eq!(regions[0].category.as_deref(), Some("fox"));
    assert_eq!(rows[1].image.bytes.as_deref(), Some(png(40, 20, 1).as_slice()));
    let rejects = scratch.rejects();
    let kinds: Vec<_> = rejects.iter().map(|r| (r.kind, r.record)).collect();
    assert_eq!(
        kinds,
        [(RejectKind::Box, 13), (RejectKind::PictureMissing, 4), (RejectKind::Box, 6), (RejectKind::Orphan, 20)]
    );
    assert_eq!(
        rejects[0].to_string(),
        "instances.json: annotations, record 13 (id 6), field bbox: [35, 5, 90, 10] in an image of 40 x 20; expected x, y, \
         width, height in pixels within the image, with width and height above 0"
    );
    assert_eq!((done.counts.refused(), done.counts.rows, done.samples.len()), (4, 9, 4));
}

/// A tar of `n` pictures with JSON, the fifth record of each ten bad.
fn shard(n: u64) -> Vec<u8> {
    let mut tar = Vec::new();
    for i in 0..n {
        let json =
            json!({"caption_long": format!("picture {i}"), "regions": [{"bbox": [0.0, 0.0, 0.5, 0.5]}]}).to_string();
        let json = if i % 10 == 5 { json.replace("0.5]", "NaN]") } else { json };
        tar.extend(entry(&format!("{i:04}.json"), b'0', json.as_bytes()));
        tar.extend(entry(&format!("{i:04}.png"), b'0', &png(24, 16, i as u8)));
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[tokio::test]
async fn an_ingest_that_was_killed_goes_on_and_writes_what_an_undisturbed_one_does() {
    let (whole, cut) = (Scratch::new(), Scratch::new());
    let sources = [&whole, &cut].map(|s| s.put("tars/a.tar", shard(70)));
    // The etag of a local file differs from copy to copy, so both read one folder.
    let folder = sources[0].parent().expect("a folder").to_owned();
    std::fs::write(folder.join("b.tar"), shard(33)).expect("writable");
    let writer = WriterOptions { rows_per_group: 4, image_bytes_per_group: 1 << 20, bytes_per_file: 6000 };
    let job = Ingest { writer, ..job(Format::Webdataset, &folder) };
    let done = whole.ingest(&job).await.expect("ingests");
    assert!(done.counts.files >= 6 && done.rows_before == 0, "{:?}", done.counts);
    assert_eq!((done.counts.rows, done.counts.refused()), (103 - 10, 10));

    cut.ingest(&job).await.expect("ingests");
    let at = |path: &str| cut.folder.path().join("out").join(path);
    // As if it had been killed while its fourth part was on its way.
    for gone in
        ["ingest/train/done.json", "index/latest.json", "ingest/train/part-00003.json", "ingest/train/part-00004.json"]
    {
        std::fs::remove_file(at(gone)).expect("was there");
    }
    for number in 5..done.counts.files {
        let _ = std::fs::remove_file(at(&format!("ingest/train/part-{number:05}.json")));
        std::fs::remove_file(at(&format!("train/part-{number:05}.parquet"))).expect("was there");
    }
    std::fs::write(at("train/part-00003.parquet"), b"half").expect("writable");
    let resumed = cut.ingest(&job).await.expect("goes on");
    assert!(resumed.rows_before > 0 && resumed.counts == done.counts, "{resumed:?}");
    let files = |scratch: &Scratch| {
        let mut found = Vec::new();
        for folder in ["train", "ingest/train"] {
            for file in std::fs::read_dir(scratch.folder.path().join("out").join(folder)).expect("there").flatten() {
                found.push((file.file_name(), blake3::hash(&std::fs::read(file.path()).expect("readable")).to_hex()));
            }
        }
        found.sort();
        found
    };
    assert_eq!(files(&whole), files(&cut));
    let again = cut.ingest(&job).await.expect("is done");
    assert!(again.was_done && again.counts == done.counts);
    let other = Ingest { limit: Some(5), ..job.clone() };
    assert!(matches!(cut.ingest(&other).await, Err(IngestError::OtherIngest { .. })));
    let restarted = cut.ingest(&Ingest { restart: true, ..other }).await.expect("begins again");
    assert_eq!((restarted.counts.rows, cut.rows().await.len()), (5, 5));
}

#[tokio::test]
async fn more_rejects_than_allowed_end_it_without_an_index() {
    let scratch = Scratch::new();
    let source = scratch.put("a.tar", shard(40));
    let strict = Ingest { max_rejects: RejectLimit::parse("1%"), ..job(Format::Webdataset, &source) };
    let error = scratch.ingest(&strict).await.expect_err("four of forty").to_string();
    assert!(error.starts_with("4 of 76 records were refused, more than --max-rejects 1 %"), "{error}");
    assert!(index::open(&scratch.out).await.is_err());
    assert_eq!(scratch.rejects().len(), 4);
}

#[tokio::test]
async fn other_writers_parquet_is_read_by_a_map() {
    let scratch = Scratch::new();
    let mut ids = Int64Builder::new();
    let mut pictures = BinaryBuilder::new();
    let mut texts = StringBuilder::new();
    let mut boxes = ListBuilder::new(ListBuilder::new(Float64Builder::new()));
    for i in 0..9i64 {
        ids.append_value(i);
        pictures.append_value(png(40, 20, i as u8));
        texts.append_value(format!("text {i}"));
        boxes.values().append_value([10.0, 5.0, if i == 3 { 90.0 } else { 20.0 }, 10.0].map(Some));
        boxes.append(true);
    }
    let objects: ArrayRef = Arc::new(boxes.finish());
    let objects = arrow_array::StructArray::from(vec![(
        Arc::new(arrow_schema::Field::new("box", objects.data_type().clone(), true)),
        objects,
    )]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(ids.finish())),
        ("jpg", Arc::new(pictures.finish())),
        ("text", Arc::new(texts.finish())),
        ("objects", Arc::new(objects)),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns");
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("writes");
    let source = scratch.put("0.parquet", writer.into_inner().expect("bytes"));
    let error = scratch.ingest(&job(Format::Parquet, &source)).await.expect_err("nothing of ours").to_string();
    assert!(error.contains("it has id, jpg, text, objects: name them with --map"), "{error}");
    let pairs = ["image_id=id", "image.bytes=jpg", "caption_long=text", "regions.bbox=objects.box"].map(String::from);
    let map = FieldMap::parse(&pairs).expect("pairs");
    let mapped = Ingest { map, boxes: BoxForm::SizedPixels, ..job(Format::Parquet, &source) };
    scratch.ingest(&mapped).await.expect("ingests");
    let rows = scratch.rows().await;
    assert_eq!((rows.len(), rows[8].caption_long.as_deref(), rows[8].width), (9, Some("text 8"), 40));
    assert_eq!((rows[8].regions[0].bbox, rows[3].regions.len()), ([0.25, 0.25, 0.75, 0.75], 0));
    assert_eq!(scratch.rejects()[0].field, "objects[0].box");
}

#[tokio::test]
async fn lines_finehard_and_folders_find_their_pictures() {
    let scratch = Scratch::new();
    scratch.put("a/x.png", png(24, 16, 1));
    let lines = "{\"image_id\": \"x\", \"image\": \"a/x.png\", \"captions\": [\"one\", \"two\"]}\nno line\n{\"image\": \"a/y.png\"}\n";
    let source = scratch.put("lines.jsonl", lines);
    scratch.ingest(&job(Format::Jsonl, &source)).await.expect("ingests");
    assert_eq!(scratch.rows().await[0].captions, ["one", "two"]);
    let kinds: Vec<_> = scratch.rejects().iter().map(|r| (r.kind, r.record)).collect();
    assert_eq!(kinds, [(RejectKind::Syntax, 1), (RejectKind::PictureMissing, 2)]);

    let scratch = Scratch::new();
    scratch.put("a/x.png", png(24, 16, 1));
    let items = json!([{"f_path": "grit-20m/data-12m/a/x.png", "caption": "long", "bbox_info": [
        {"bbox": [0.0, 0.0, 0.5, 1.0], "short_expr": "e", "flag_short_neg": 1, "short_expr_negs": {"1": "n"}}]}]);
    let source = scratch.put("items.json", items.to_string());
    scratch.ingest(&job(Format::Finehard, &source)).await.expect("ingests");
    let row = scratch.rows().await.remove(0);
    assert_eq!((row.image_id.as_str(), row.regions[0].hard_negs.as_slice()), ("a/x", &["n".to_owned()][..]));

    let scratch = Scratch::new();
    let record = json!({"key": "7", "caption": "a red fox", "ref_exps": [[2, 9, 0.0, 0.0, 0.5, 1.0, 0.9]],
        "seudo_masks": [{"size": [16, 24], "counts": [16, 100, 268]}]});
    scratch.put("set/7.json", record.to_string());
    scratch.put("set/7.png", png(24, 16, 7));
    scratch.ingest(&job(Format::AlphaclipGrit, &scratch.folder.path().join("set"))).await.expect("ingests");
    let row = scratch.rows().await.remove(0);
    assert_eq!(row.regions[0].caption_merged.as_deref(), Some("red fox"));
    assert_eq!(row.regions[0].mask.as_ref().map(|m| m.area()), Some(100));
}

#[tokio::test]
async fn lvis_refcoco_fg_ovd_and_grit_s_addresses_become_rows() {
    let scratch = Scratch::new();
    scratch.put("val/0.png", png(40, 20, 1));
    let annotation = json!({"id": 11, "image_id": 5, "bbox": [10, 5, 20, 10], "category_id": 1});
    let image = json!({"id": 5, "width": 40, "height": 20, "coco_url": "http://images.example.org/val/0.png"});
    let instances = json!({"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "fox"}]});
    let instances = scratch.put("instances.json", instances.to_string());
    scratch.ingest(&job(Format::Lvis, &instances)).await.expect("ingests");
    let row = scratch.rows().await.remove(0);
    assert_eq!((row.source.as_str(), row.image.path.as_deref()), ("lvis", Some("val/0.png")));

    let references = json!([{"ann_id": 11, "image_id": 5, "sentences": [{"sent": "left fox"}, {"sent": "it"}]},
                            {"ann_id": 12, "image_id": 5, "sentences": [{"sent": "nobody"}]}]);
    let references = scratch.put("refs.json", references.to_string());
    let bare = Ingest { restart: true, ..job(Format::Refcoco, &references) };
    let error = scratch.ingest(&bare).await.expect_err("no instances").to_string();
    assert!(error.contains("--instances FILE"), "{error}");
    let beside = Some(instances.to_str().expect("a path").to_owned());
    scratch.ingest(&Ingest { beside, ..bare }).await.expect("ingests");
    let row = scratch.rows().await.remove(0);
    assert_eq!((row.regions[0].bbox, row.regions.len()), ([0.25, 0.25, 0.75, 0.75], 1));
    assert_eq!(row.regions[0].expressions, ["left fox", "it"]);
    assert_eq!(scratch.rejects()[0].kind, RejectKind::Orphan);

    let line =
        json!({"img_path": "val/0.png", "bbox": [10, 5, 20, 10], "pos_expression": "a", "neg_expression": ["b"]});
    let lines = scratch.put("hard.jsonl", format!("{line}\n{line}\n"));
    scratch.ingest(&Ingest { restart: true, ..job(Format::FgOvd, &lines) }).await.expect("ingests");
    let row = scratch.rows().await.remove(0);
    assert_eq!((row.width, row.regions.len(), row.regions[1].bbox), (40, 2, [0.25, 0.25, 0.75, 0.75]));

    let columns: Vec<(&str, ArrayRef)> = vec![
        ("key", Arc::new(arrow_array::StringArray::from(vec!["7"]))),
        ("url", Arc::new(arrow_array::StringArray::from(vec!["http://example.org/7.jpg"]))),
        ("caption", Arc::new(arrow_array::StringArray::from(vec!["a fox"]))),
        ("width", Arc::new(arrow_array::Int64Array::from(vec![40]))),
        ("height", Arc::new(arrow_array::Int64Array::from(vec![20]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns");
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("writes");
    let source = scratch.put("grit/0.parquet", writer.into_inner().expect("bytes"));
    let addresses = Ingest { restart: true, pictures: PicturesFrom::Without, ..job(Format::Grit, &source) };
    scratch.ingest(&addresses).await.expect("ingests");
    let row = scratch.rows().await.remove(0);
    assert_eq!((row.image.bytes, row.image.url.as_deref(), row.width), (None, Some("http://example.org/7.jpg"), 40));
}

#[tokio::test]
async fn pictures_and_the_vectors_beside_them_come_from_one_folder() {
    let scratch = Scratch::new();
    let folder = scratch.put("cc3m/00000.tar", shard(10)).parent().expect("a folder").to_owned();
    let vector = |i: u8| [f32::from(i), 0.5, -0.1];
    let bytes = |i: u8| vector(i).into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let member = |i: u8| entry(&format!("{i:04}.longSV_captions"), b'0', &bytes(i));
    let mut tar: Vec<u8> = (0..10).rev().flat_map(member).collect();
    tar.resize(tar.len() + 1024, 0);
    scratch.put("cc3m/00000_text_embeddings.tar", tar);
    let done = scratch.ingest(&job(Format::Webdataset, &folder)).await.expect("ingests");
    assert_eq!((done.counts.rows, done.counts.refused()), (9, 1), "the vectors' tar is no source of rows");
    let vectors = VectorIngest {
        source: folder.to_str().expect("a path").into(),
        split: "train".into(),
        key: LLM2CLIP_KEY.into(),
        max_rejects: None,
        restart: false,
    };
    let done = ingest_vectors(&vectors, &scratch.out, &mut |_| {}).await.expect("joins");
    assert_eq!((done.counts.rows, &done.samples[0].kind), (9, &RejectKind::Orphan), "of the record that became no row");
    let index = index::open(&scratch.out).await.expect("an index");
    let reader = RowGroupReader::new(scratch.out.clone(), &index, "train", Some(LLM2CLIP_KEY)).expect("a split");
    let row = reader.read(0, &[3], Columns::TRAIN).await.expect("a good row").remove(0);
    let rounded = vector(3).map(|x| half::f16::from_f32(x).to_f32());
    assert_eq!((row.image_id.as_str(), row.image_vector.as_deref()), ("0003", Some(rounded.as_slice())));
}
