//! Parquet that pyarrow, DuckDB and polars write: docs/format.md's examples as they stand there, and then the whole way from
//! `shards index` to a trained run, and through the commands that copy datasets.

use pixfleet_shards::{Columns, Location, RowGroupReader, index};
use pixfleet_tests::{Log, TestRun, dataset, pixfleet, root, run_file, scratch, succeed, url};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Programs, by the examples in the document.
const PROGRAMS: [&str; 3] = ["pyarrow", "duckdb", "polars"];
/// Pictures that each of them writes: one step's samples.
const PICTURES: u32 = 24;

/// Python with those programs.
fn python() -> Command {
    let cache = root().join(".cache");
    let programs = cache.join("strangers");
    assert!(programs.exists(), "{} is missing: run `make setup-test`", programs.display());
    let mut command = Command::new(cache.join("venv/bin/python"));
    command.env("PYTHONPATH", programs);
    command
}

/// The example called `name`.
fn example(name: &str) -> String {
    let doc = std::fs::read_to_string(root().join("docs/format.md")).expect("the document is there");
    let after = doc.split_once(&format!("<!-- example: {name} -->\n```python\n")).expect("the example is there").1;
    after.split_once("\n```").expect("an example ends").0.to_owned()
}

/// Pictures of mini-LongGRIT as files, with their boxes in pixels, for each program its own: `<folder>/<program>`.
fn pictures(folder: &Path) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let location = Location::parse(dataset()).expect("a URL");
    let rows = runtime.block_on(async {
        let index = index::open(&location).await.expect("indexed");
        let reader = RowGroupReader::new(location, &index, "train", None).expect("a split");
        let mut rows = Vec::new();
        for (group, known) in (0..).zip(reader.split().row_groups()) {
            let numbers: Vec<u32> = (0..known.rows).collect();
            rows.extend(reader.read(group, &numbers, Columns::ROWS).await.expect("good rows"));
        }
        rows
    });
    let needed = PICTURES as usize * PROGRAMS.len();
    assert!(rows.len() >= needed, "{} pictures", rows.len());
    for (program, rows) in PROGRAMS.iter().zip(rows.chunks(PICTURES as usize)) {
        let folder = folder.join(program);
        std::fs::create_dir_all(folder.join("pictures")).expect("scratch is writable");
        let mut boxes = Vec::new();
        for row in rows {
            // Unlike its picture's bytes, a picture's name is this test's.
            let file = format!("{program}-{}.img", boxes.len());
            std::fs::write(folder.join("pictures").join(&file), row.image.bytes.as_ref().expect("a picture"))
                .expect("scratch is writable");
            let scale = [row.width, row.height, row.width, row.height].map(f64::from);
            let objects: Vec<Value> = row
                .regions
                .iter()
                .map(|region| {
                    let corners: Vec<f64> = region.bbox.iter().zip(scale).map(|(v, n)| f64::from(*v) * n).collect();
                    json!({"box": corners, "text": region.short_text(), "long": region.long_text()})
                })
                .collect();
            let caption = row.image_text();
            boxes.push(json!({
                "file": file, "width": row.width, "height": row.height, "caption": caption, "objects": objects
            }));
        }
        std::fs::write(folder.join("boxes.json"), Value::from(boxes).to_string()).expect("scratch is writable");
    }
}

/// A dataset of one file by each program, made once; its folder.
fn written() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = scratch().join("strangers");
        let sources = folder.join("sources");
        pictures(&sources);
        let data = folder.join("data");
        std::fs::create_dir_all(data.join("train")).expect("scratch is writable");
        for program in PROGRAMS {
            let mut command = python();
            command.arg("-c").arg(example(program)).arg(sources.join(program));
            command.arg(data.join(format!("train/{program}.parquet")));
            succeed(command);
        }
        succeed(pixfleet(["shards", "index", &url(&data)]));
        data
    })
}

fn index_of(data: &Path) -> Value {
    let read = |path: PathBuf| -> Value {
        serde_json::from_slice(&std::fs::read(path).expect("indexed")).expect("an index is JSON")
    };
    let latest = read(data.join("index/latest.json"));
    read(data.join(latest["path"].as_str().expect("a path")))
}

/// Rows and regions that `inspect` and the index agree on, and bytes as the programs wrote them.
#[test]
fn what_others_write_is_indexed_as_it_is_and_verified() {
    let data = written();
    let before: Vec<Vec<u8>> =
        PROGRAMS.map(|p| std::fs::read(data.join(format!("train/{p}.parquet"))).expect("written")).into();
    let index = index_of(data);
    let files = index["splits"]["train"]["files"].as_array().expect("files");
    assert_eq!(files.len(), PROGRAMS.len());
    for file in files {
        let groups = file["row_groups"].as_array().expect("row groups");
        let sum = |key: &str| groups.iter().filter_map(|g| g[key].as_u64()).sum::<u64>();
        let program = file["path"].as_str().expect("a path").trim_start_matches("train/").trim_end_matches(".parquet");
        let boxes = std::fs::read(data.with_file_name("sources").join(program).join("boxes.json")).expect("written");
        let boxes: Vec<Value> = serde_json::from_slice(&boxes).expect("JSON");
        let regions: usize = boxes.iter().map(|b| b["objects"].as_array().expect("a list").len()).sum();
        assert_eq!((sum("rows"), sum("regions")), (u64::from(PICTURES), regions as u64), "{program}");
        assert_eq!(file["content"].as_str().map(str::len), Some(32), "{program} has a hash");
    }
    let verified = String::from_utf8(succeed(pixfleet(["shards", "verify", &url(data)])).stdout).expect("text");
    assert!(verified.starts_with("no faults in 3 files, 72 rows, "), "{verified}");
    succeed(pixfleet(["shards", "inspect", &url(data), "--rows", "3"]));
    let after = PROGRAMS.map(|p| std::fs::read(data.join(format!("train/{p}.parquet"))).expect("written"));
    assert!(before.iter().eq(after.iter()), "not a byte is rewritten");
}

#[test]
fn what_others_write_is_embedded_and_trained_on() {
    let data = written();
    let mut embed = pixfleet(["shards", "embed", &url(data), "--split", "train", "--encoder", "minilm", "--weights"]);
    embed.arg(root().join(".cache/minilm"));
    succeed(embed);
    let run = TestRun::new("strange");
    let text = run_file(&run.name, &url(data), &url(&run.dir.join("store")));
    std::fs::write(run.dir.join("run.toml"), text).expect("scratch is writable");
    let mut train = run.train(2);
    // Three steps of 24 are the epoch: every row of every program, once.
    train.args(["--set", "schedule.steps=3", "--set", "schedule.warmup=1"]);
    let losses = Log::parse(&succeed(train).stdout).losses();
    assert_eq!(losses.len(), 3);
    assert!(losses.values().all(|loss| loss.is_finite()), "{losses:?}");
    let audit = succeed(pixfleet(["audit", &run.url()]));
    let said = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(said.contains("clean: every sample was used exactly once"), "none was replaced, none left out: {said}");
    let out = run.dir.join("report");
    let mut eval = pixfleet(["eval", &run.url(), "--data", &url(data), "--split", "train", "--text", "short", "--out"]);
    eval.arg(&out);
    succeed(eval);
    let report: Value =
        serde_json::from_slice(&std::fs::read(out.join("report.json")).expect("written")).expect("JSON");
    assert!(report["text_to_region_r10"].as_f64().is_some_and(f64::is_finite), "{report}");
}

#[test]
fn a_compression_that_is_not_read_is_named_with_its_column() {
    let data = scratch().join("gzip");
    std::fs::create_dir_all(data.join("train")).expect("scratch is writable");
    let source = written().join("train/pyarrow.parquet");
    let mut command = python();
    command.arg("-c").arg(
        "import sys, pyarrow.parquet as pq; pq.write_table(pq.read_table(sys.argv[1]), sys.argv[2], compression='gzip')",
    );
    command.arg(source).arg(data.join("train/a.parquet"));
    succeed(command);
    let output = pixfleet(["shards", "index", &url(&data)]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("train/a.parquet: column `image_id` is compressed with GZIP"), "{said}");
    assert!(said.contains("write the file again with zstd, snappy or none"), "{said}");
}

fn printed(args: &[&str]) -> Value {
    let mut all = vec!["shards"];
    all.extend(args);
    serde_json::from_slice(&succeed(pixfleet(all)).stdout).expect("--json prints JSON")
}

#[test]
fn what_others_write_is_counted_filtered_and_mixed() {
    let data = url(written());
    let stats = printed(&["stats", &data, "--json"]);
    assert_eq!((stats["rows"].as_u64(), stats["bad_rows"].as_u64()), (Some(72), Some(0)));
    assert_eq!(stats["duplicates"]["compared"].as_u64(), Some(72));

    // The statistics of each file say which images it holds: of two, no row is read.
    let (narrow, mixed) = (url(&scratch().join("filtered")), url(&scratch().join("mixed")));
    let only = "image_id >= 'polars' and image_id < 'polart' and area > 0.02";
    let filtered = &printed(&["filter", &data, "--where", only, "--out", &narrow, "--json"])["train"];
    let gone = filtered["gone"].as_array().expect("a list");
    assert_eq!(gone.iter().filter_map(|g| g["row_groups_not_read"].as_u64()).sum::<u64>(), 2, "{filtered}");
    let kept = filtered["rows_kept"].as_u64().expect("a number");
    assert_eq!(kept + filtered["rows_without_regions"].as_u64().expect("a number"), u64::from(PICTURES));
    let polars = written().join("train/polars.parquet").metadata().expect("written").len();
    let read = filtered["bytes_read"].as_u64().expect("a number");
    assert!(read < polars + polars / 2, "{read} bytes were read for a file of {polars}");

    let mixed_rows =
        printed(&["mix", &format!("{data}=3"), &format!("{narrow}=1"), "--until", "all", "--out", &mixed, "--json"]);
    assert_eq!(mixed_rows["rows"].as_u64(), Some(72 + kept));
    let sources = &printed(&["stats", &mixed, "--json"])["sources"]["names"];
    // What came through the filter had no source yet, either.
    assert_eq!(sources, &json!([["data", 72], ["filtered", kept]]));
    succeed(pixfleet(["shards", "verify", &mixed]));
    let again =
        pixfleet(["shards", "mix", &format!("{data}=1"), "--out", &mixed]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("has a split `train` already; write somewhere else, or say --replace"), "{said}");

    let folder = scratch().join("stats");
    let mut page = pixfleet(["shards", "stats", &mixed, "--out"]);
    page.arg(&folder);
    succeed(page);
    let html = std::fs::read_to_string(folder.join("stats.html")).expect("written");
    // Every row of the filter is there twice.
    assert!(html.contains("data:image/jpeg;base64,") && html.contains("Equal"), "duplicates are shown");
    let wrong = pixfleet(["shards", "filter", &data, "--where", "width > and", "--out", &narrow]).output();
    let said = String::from_utf8_lossy(&wrong.expect("the program starts").stderr).into_owned();
    assert!(said.contains("character 9:") && said.contains("        ^^^"), "{said}");
}
