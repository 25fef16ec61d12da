//! Ingesting with the real program: from a pipe, killed halfway, and gone on with.

use pixfleet_tests::{pixfleet, scratch, succeed, url};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const RECORDS: u32 = 120;
/// Records whose JSON is none.
const BAD_EVERY: u32 = 13;

/// A file of a tar stream (ustar).
fn entry(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    block[156] = b'0';
    block[257..263].copy_from_slice(b"ustar\0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(bytes);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// Pictures of noise, 90 kB each, that nobody can compress.
fn stream() -> Vec<u8> {
    let mut tar = Vec::new();
    for i in 0..RECORDS {
        let noise = |n: u32| blake3::hash(&[i.to_le_bytes(), n.to_le_bytes()].concat()).as_bytes().to_vec();
        // A JPEG ends at its end marker: readers let be what follows.
        let mut jpeg = JPEG.to_vec();
        jpeg.extend((0..2800).flat_map(noise));
        let json = if i % BAD_EVERY == 5 { "{no json}".to_owned() } else { format!(r#"{{"caption": "picture {i}"}}"#) };
        tar.extend(entry(&format!("{i:04}.json"), json.as_bytes()));
        tar.extend(entry(&format!("{i:04}.jpg"), &jpeg));
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// A JPEG of 8 x 8 grey pixels.
const JPEG: &[u8] = &[
    0xff, 0xd8, 0xff, 0xdb, 0x00, 0x43, 0x00, 8, 6, 6, 7, 6, 5, 8, 7, 7, 7, 9, 9, 8, 10, 12, 20, 13, 12, 11, 11, 12,
    25, 18, 19, 15, 20, 29, 26, 31, 30, 29, 26, 28, 28, 32, 36, 46, 39, 32, 34, 44, 35, 28, 28, 40, 55, 41, 44, 48, 49,
    52, 52, 52, 31, 39, 57, 61, 56, 50, 60, 46, 51, 52, 50, 0xff, 0xc0, 0x00, 0x0b, 8, 0, 8, 0, 8, 1, 1, 0x11, 0, 0xff,
    0xc4, 0x00, 0x14, 0x00, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xc4, 0x00, 0x14, 0x10, 1, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xda, 0x00, 0x08, 1, 1, 0, 0, 0x3f, 0, 0x3f, 0xff, 0xd9,
];

fn start(out: &Path) -> Child {
    let sizes = ["--part-mb", "1", "--rows-per-group", "8"];
    let mut command = pixfleet(["shards", "ingest", "webdataset", "-", "--json", "--out", &url(out)]);
    command.args(sizes);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().expect("it starts")
}

/// Gives it the whole stream and waits for its end.
fn feed(mut child: Child, tar: &[u8]) -> serde_json::Value {
    let mut input = child.stdin.take().expect("piped");
    input.write_all(tar).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn files(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["train", "ingest/train"] {
        for file in std::fs::read_dir(out.join(folder)).expect("there").flatten() {
            found.insert(Path::new(folder).join(file.file_name()), std::fs::read(file.path()).expect("readable"));
        }
    }
    found
}

#[test]
fn an_ingest_killed_halfway_goes_on_and_writes_the_same_bytes() {
    let (whole, killed) = (scratch().join("ingest/whole"), scratch().join("ingest/killed"));
    let tar = stream();
    let counts = feed(start(&whole), &tar)["counts"].clone();
    let bad = (0..RECORDS).filter(|i| i % BAD_EVERY == 5).count() as u64;
    assert_eq!(
        (counts["rejects"]["syntax"].as_u64(), counts["rows"].as_u64()),
        (Some(bad), Some(u64::from(RECORDS) - bad))
    );

    let mut child = start(&killed);
    let mut input = child.stdin.take().expect("piped");
    input.write_all(&tar[..tar.len() * 2 / 3]).expect("it reads");
    let began = Instant::now();
    let first = killed.join("ingest/train/part-00000.json");
    while !first.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "no part is written");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("it was running");
    child.wait().expect("it ends");
    assert!(!killed.join("ingest/train/done.json").exists(), "it was not done");

    let resumed = feed(start(&killed), &tar);
    assert!(resumed["rows_before"].as_u64() > Some(0), "it began again: {resumed}");
    assert_eq!(resumed["counts"], counts);
    assert!(files(&whole) == files(&killed), "other bytes than those of an undisturbed ingest");
    let verify = succeed(pixfleet(["shards", "verify", &url(&killed)]));
    assert!(String::from_utf8_lossy(&verify.stdout).contains("no faults in"));
}
