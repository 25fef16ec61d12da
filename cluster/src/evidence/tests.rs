use super::*;
use std::collections::HashSet;

fn file(name: &str) -> FileId {
    FileId::of(name, "c")
}

fn fed(row: u64) -> FedRow {
    FedRow {
        origins: Origins::of(Origin { file: file("a"), row }),
        keyed: Keyed::new(3, 0).word(row),
        drawn: mix(row % 2),
    }
}

/// Rows `rows` from position `first` on.
fn sum(first: u64, rows: impl IntoIterator<Item = FedRow>) -> Evidence {
    (first..).zip(rows).map(|(position, fed)| fed.at(position)).sum()
}

#[test]
fn it_adds_up_over_lanes_in_any_order_and_can_be_taken_back() {
    let whole = sum(40, (0..12).map(fed));
    let mut parts = sum(48, (8..12).map(fed));
    parts += sum(40, (0..8).map(fed));
    assert_eq!(parts, whole);
    parts -= sum(48, (8..12).map(fed));
    assert_eq!(parts, sum(40, (0..8).map(fed)));
}

#[test]
fn every_mistake_with_a_row_changes_the_sum() {
    let good = sum(40, (0..8).map(fed));
    let with = |change: &dyn Fn(&mut Vec<FedRow>)| {
        let mut rows: Vec<FedRow> = (0..8).map(fed).collect();
        change(&mut rows);
        sum(40, rows)
    };
    let elsewhere = Origin { file: file("b"), row: 2 };
    let changed: Vec<Evidence> = vec![
        with(&|rows| rows.swap(2, 3)),
        with(&|rows| rows[2] = rows[1]),
        with(&|rows| rows[2] = fed(8)),
        with(&|rows| rows[2].origins.narrow = elsewhere),
        with(&|rows| rows[2].origins.picture = Some(elsewhere)),
        with(&|rows| rows[2].origins.vectors = Some(elsewhere)),
        with(&|rows| rows[2].keyed = fed(3).keyed),
        with(&|rows| rows.truncate(7)),
        sum(41, (0..8).map(fed)),
    ];
    let distinct: HashSet<u128> = changed.iter().chain([&good]).map(|e| e.rows).collect();
    assert_eq!(distinct.len(), changed.len() + 1, "each has a sum of its own");
    let otherwise = with(&|rows| rows[2].drawn = mix(7));
    assert!(otherwise.rows == good.rows && otherwise.drawn != good.drawn);
}

#[test]
fn a_row_is_the_same_whichever_of_its_parts_were_read() {
    let origin = Origin { file: file("a"), row: 5 };
    let whole = Origins { narrow: origin, picture: Some(origin), vectors: Some(origin) };
    assert_eq!(FedRow { origins: whole, ..fed(5) }.at(9), fed(5).at(9));
}

/// Of all pairs of many small records no two are alike in either half.
#[test]
fn neighbours_lie_far_apart() {
    let mut halves = [HashSet::new(), HashSet::new()];
    let mut count = 0;
    for position in 0..100 {
        for row in 0..100 {
            let rows = fed(row).at(position).rows;
            halves[0].insert(rows as u64);
            halves[1].insert((rows >> 64) as u64);
            count += 1;
        }
    }
    assert_eq!(halves.map(|half| half.len()), [count, count]);
}

/// Ledgers depend on it: whoever changes it makes every run look fed otherwise.
#[test]
fn it_stays_as_it_is() {
    let evidence = sum(1 << 40, (0..64).map(fed));
    assert_eq!(evidence.to_string(), "576b859fdad47d61b25a358b889c243f-5e6c312aca5d8091f035e5f9ce7b3283");
}

#[test]
fn it_reads_back_from_bytes_and_text() {
    let evidence = sum(7, (0..3).map(fed));
    assert_eq!(Evidence::from_bytes(evidence.to_bytes()), evidence);
    assert_eq!(evidence.to_string().parse(), Ok(evidence));
    let json = serde_json::to_string(&evidence).expect("JSON");
    assert_eq!(serde_json::from_str::<Evidence>(&json).expect("own words"), evidence);
    for bad in ["", "00", &"0".repeat(65), &format!("{}-{}", "0".repeat(32), "+".repeat(32))] {
        assert_eq!(bad.parse::<Evidence>(), Err(BadEvidence), "{bad}");
    }
    assert_eq!(file("a").to_string().parse(), Ok(file("a")));
}

#[test]
fn a_logged_lane_reads_back() {
    let mut torn = fed(4);
    torn.origins.picture = Some(Origin { file: file("b"), row: 9 });
    let rows: Vec<LoggedRow> = [fed(3), torn].iter().map(LoggedRow::from).collect();
    assert_eq!(rows[1].origins().collect::<Vec<_>>(), [Some(torn.origins.narrow), torn.origins.picture]);
    let lane = LoggedLane {
        step: crate::Step(3),
        generation: crate::Generation(2),
        rank: crate::Rank(1),
        lane: crate::Lane(4),
        rows,
    };
    assert_eq!(serde_json::from_str::<LoggedLane>(&lane.to_line()).expect("own line"), lane);
}
