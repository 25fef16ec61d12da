use super::*;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use std::collections::BTreeMap;
use std::sync::Arc;

const LEASE: Duration = Duration::from_millis(400);

fn units(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("train/part {i:05} 100%.parquet")).collect()
}

fn memory() -> Location {
    Location::with_store("memory:///set", Arc::new(InMemory::new()), Path::from("set"))
}

/// Both kinds of store; the folder lives as long as the second value.
fn stores() -> Vec<(Location, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Location::parse(folder.path().to_str().expect("a name")).expect("a location");
    vec![(memory(), None), (disk, Some(folder))]
}

fn claims(location: &Location, who: &str) -> Claims {
    Claims::new(location, "job", who, LEASE)
}

async fn take(claims: &Claims, units: &[String]) -> Claim {
    match claims.try_next(units).await.expect("the store works") {
        Dealt::Unit(claim) => claim,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_race_do_each_unit_once() {
    for (location, _folder) in stores() {
        let mut racing = Vec::new();
        for who in 0..8 {
            let (claims, units) = (claims(&location, &who.to_string()), units(40));
            racing.push(tokio::spawn(async move {
                let mut did = Vec::new();
                while let Some(claim) = claims.next(&units).await.expect("the store works") {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    assert_eq!(claim.turn(), 1);
                    did.push(claim.unit().to_owned());
                    assert!(claim.finish().await.expect("the store works"));
                }
                did
            }));
        }
        let (mut all, mut workers) = (Vec::new(), 0);
        for did in racing {
            let did = did.await.expect("no panic");
            workers += usize::from(!did.is_empty());
            all.extend(did);
        }
        all.sort();
        assert_eq!(all, units(40), "{}", location.url());
        assert!(workers > 1, "nobody raced");
        let tally = claims(&location, "late").progress(&units(40)).await.expect("the store works");
        assert_eq!(tally, Tally { done: 40, held: 0, free: 0 });
    }
}

#[tokio::test]
async fn who_beats_is_left_alone_and_who_dies_is_taken_over() {
    for (location, _folder) in stores() {
        let (one, two, units) = (claims(&location, "one"), claims(&location, "two"), units(1));
        let held = take(&one, &units).await;
        assert_eq!(two.progress(&units).await.expect("the store works"), Tally { done: 0, held: 1, free: 0 });
        let waited = tokio::time::timeout(LEASE * 3, two.next(&units)).await;
        assert!(waited.is_err(), "one beats, and yet: {waited:?}");
        drop(held);
        let since = Instant::now();
        let claim = two.next(&units).await.expect("the store works").expect("one is gone");
        assert!(since.elapsed() >= LEASE / 2 && since.elapsed() < LEASE * 5, "{:?}", since.elapsed());
        assert_eq!(claim.turn(), 2);
        assert!(claim.finish().await.expect("the store works"));
        assert!(one.next(&units).await.expect("the store works").is_none());
    }
}

#[tokio::test]
async fn who_wakes_up_late_learns_that_it_was_overtaken() {
    for (location, _folder) in stores() {
        let (one, two, units) = (claims(&location, "one"), claims(&location, "two"), units(1));
        let asleep = take(&one, &units).await;
        // As if the whole process were stopped: not one beat.
        asleep.beats.abort();
        let claim = two.next(&units).await.expect("the store works").expect("one is silent");
        assert!(!asleep.still_held().await.expect("the store works"));
        assert!(!asleep.finish().await.expect("the store works"));
        assert!(claim.still_held().await.expect("the store works"));
        assert!(claim.finish().await.expect("the store works"));
    }
}

#[tokio::test]
async fn a_beat_notices_who_took_over() {
    let (location, units) = (memory(), units(1));
    let one = claims(&location, "one");
    let held = take(&one, &units).await;
    one.folder.create(&Mark::Turn(2).key(&units[0]), "a rival's").await.expect("the store works");
    let noticed = async {
        while !held.is_overtaken() {
            tokio::time::sleep(LEASE / 20).await;
        }
    };
    tokio::time::timeout(LEASE * 2, noticed).await.expect("within two leases");
}

#[tokio::test]
async fn what_was_given_back_or_opened_again_is_free_at_once() {
    for (location, _folder) in stores() {
        let (one, two, units) = (claims(&location, "one"), claims(&location, "two"), units(1));
        take(&one, &units).await.leave().await.expect("the store works");
        let claim = take(&two, &units).await;
        assert_eq!(claim.turn(), 2);
        assert!(claim.finish().await.expect("the store works"));
        assert!(matches!(one.try_next(&units).await, Ok(Dealt::Done)));
        one.reopen(&units[0]).await.expect("the store works");
        assert_eq!(take(&one, &units).await.turn(), 3);
        one.reopen("never seen").await.expect("the store works");
    }
}

#[tokio::test]
async fn a_put_whose_answer_got_lost_does_not_lose_against_itself() {
    let location = memory();
    let mine = Bytes::from_static(b"mine");
    location.create("k", mine.clone()).await.expect("the store works");
    assert!(create(&location, "k", mine).await.expect("the store works"));
    assert!(!create(&location, "k", Bytes::from_static(b"theirs")).await.expect("the store works"));
}

#[tokio::test]
async fn a_claim_says_who_made_it() {
    let (location, units) = (memory(), units(1));
    let claim = take(&claims(&location, "node-7/4711"), &units).await;
    let body = location.get(&format!("claims/job/{}/000001", claim.unit())).await.expect("it is there");
    let said: BTreeMap<String, String> = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(said["who"], "node-7/4711");
    let listed: Vec<_> = location.store().list(None).try_collect().await.expect("the store works");
    assert_eq!(listed.len(), 1);
    location.store().delete(&listed[0].location).await.expect("the store works");
    assert!(whoami().ends_with(&format!("/{}", std::process::id())));
}
