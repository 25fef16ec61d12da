//! `pixfleet shards verify --tokens` on a dataset of a few rows.

use crate::{pixfleet, said};
use pixfleet_shards::{ImageRow, ImageSource, Location, Region, ShardWriter, WriterOptions};
use tempfile::TempDir;

/// Ten rows whose pictures are elsewhere; the long captions of two are beyond 77 tokens, one of them beyond 248.
fn dataset() -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("temporary");
    let url = format!("file://{}", folder.path().display());
    let location = Location::parse(&url).expect("a URL");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let mut writer = ShardWriter::new(location, "train", WriterOptions::default());
        for i in 0..10 {
            let long = match i {
                3 => "a very ".repeat(50) + "long queue",
                4 => "a very ".repeat(200) + "long queue",
                _ => "a queue of people before a shop".to_owned(),
            };
            let region = Region {
                bbox: [0.0, 0.0, 0.5, 0.5],
                short_expr: Some("the last one".into()),
                hard_negs: vec!["the first one".into(), "the tallest one".into()],
                ..Region::default()
            };
            let row = ImageRow {
                image_id: i.to_string(),
                image: ImageSource { path: Some(format!("{i}.jpg")), ..ImageSource::default() },
                width: 64,
                height: 48,
                caption_long: Some(long),
                regions: vec![region],
                ..ImageRow::default()
            };
            writer.push(row).await.expect("a good row");
        }
        writer.finish().await.expect("a writable folder");
    });
    (folder, url)
}

#[test]
fn tokens_are_shown_by_column_with_bars_and_the_longest_texts() {
    let (_folder, url) = dataset();
    let output = pixfleet(&["shards", "verify", &url, "--tokens"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let line = |start: &str| {
        let found = said.lines().find(|l| l.trim_start().starts_with(start));
        found.unwrap_or_else(|| panic!("no line `{start}` in\n{said}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("caption_long"), "caption_long 10 9 404 404 404 2 (20.00 %) 1 (10.00 %)");
    assert_eq!(line("hard_negs"), "hard_negs 20 5 5 5 5 0 0");
    assert_eq!(line("1 to 8"), "1 to 8 ████████ 100.0 % ████████ 100.0 %");
    assert_eq!(line("9 to 16"), "9 to 16 ████████ 80.0 %");
    assert_eq!(line("78 to 128"), "78 to 128 █ 10.0 %");
    assert_eq!(line("249 and more"), "249 and more █ 10.0 %");
    let longest = line("404");
    assert!(
        longest.starts_with("404 train/part-00000.parquet, row group 0, row 4, field caption_long a very"),
        "{said}"
    );
    assert!(longest.ends_with('…'), "{said}");
    assert!(said.contains("no faults in 1 files, 10 rows"), "{said}");
}

#[test]
fn an_unknown_tokenizer_is_refused_before_anything_is_read() {
    let output = pixfleet(&["shards", "verify", "file:///nowhere", "--tokens", "--tokenizer", "clipp"]);
    let said = said(&output);
    assert_ne!(output.status.code(), Some(0));
    assert!(said.contains("tokenizer `clipp`:") && said.contains("expected `clip`, which is built in"), "{said}");
    let output = pixfleet(&["shards", "verify", "file:///nowhere", "--tokenizer", "clip"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--tokens"), "{output:?}");
}
