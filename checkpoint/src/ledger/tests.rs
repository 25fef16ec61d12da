use super::*;
use pixfleet_cluster::ledger::LEDGER_SCHEMA;

const SEGMENTS: u64 = 100;

/// A ledger of [`SEGMENTS`] segments with one record each; `break_at` names another predecessor.
async fn ledger(break_at: Option<u64>) -> (tempfile::TempDir, Folder) {
    let folder = tempfile::tempdir().expect("temporary");
    let location = Folder::parse(&format!("file://{}", folder.path().display())).expect("a URL");
    let mut previous = String::new();
    for number in 0..SEGMENTS {
        if break_at == Some(number) {
            previous = "0".repeat(64);
        }
        let header = Record::Segment { schema: LEDGER_SCHEMA, number, previous, nonce: "n".into() };
        let text = header.to_line() + &closed(number).to_line();
        previous = blake3::hash(text.as_bytes()).to_hex().to_string();
        let path = location.path(&Record::segment_key(number));
        location.store().put(&path, text.into()).await.expect("written");
    }
    (folder, location)
}

fn closed(number: u64) -> Record {
    Record::Closed { outcome: "done".into(), message: number.to_string() }
}

#[tokio::test]
async fn segments_come_in_order_without_their_headers_and_make_the_whole() {
    let (_folder, location) = ledger(None).await;
    let mut seen = Vec::new();
    each_segment(&location, |segment| seen.push(segment)).await.expect("whole");
    let numbers: Vec<u64> = seen.iter().map(|s| s.number).collect();
    assert_eq!(numbers, (0..SEGMENTS).collect::<Vec<_>>());
    assert!(seen.iter().all(|s| s.of == SEGMENTS && s.records == [closed(s.number)]));

    let whole = read_ledger(&location).await.expect("whole");
    assert_eq!(whole.records, seen.iter().flat_map(|s| s.records.clone()).collect::<Vec<_>>());
    assert_eq!((whole.next_segment, &whole.last_digest), (SEGMENTS, &seen[SEGMENTS as usize - 1].digest));
}

#[tokio::test]
async fn a_broken_chain_ends_the_reading_there() {
    let (_folder, location) = ledger(Some(70)).await;
    let mut seen = 0;
    let error = each_segment(&location, |_| seen += 1).await.expect_err("broken");
    assert_eq!(
        error.to_string(),
        format!("ledger segment {} is not the successor of the segment before it", Record::segment_key(70))
    );
    assert_eq!(seen, 70);
}

#[tokio::test]
async fn a_ledger_that_was_never_begun_has_no_segments() {
    let folder = tempfile::tempdir().expect("temporary");
    let location = Folder::parse(&format!("file://{}", folder.path().display())).expect("a URL");
    assert_eq!(read_ledger(&location).await.expect("empty"), Ledger::default());
}
