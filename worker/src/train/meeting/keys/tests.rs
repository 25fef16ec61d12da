use super::*;
use pixfleet_proto::pb;

fn request(generation: u64, op: Op) -> StoreRequest {
    StoreRequest { generation, secret: String::new(), op: Some(op) }
}

fn set(key: &str, value: &[u8]) -> Op {
    Op::Set(pb::KeyValue { key: key.into(), value: value.into() })
}

fn get(key: &str, timeout_ms: u64) -> Op {
    Op::Get(pb::KeyWait { key: key.into(), timeout_ms })
}

fn opened() -> KeyStore {
    let store = KeyStore::default();
    store.open(Generation(3));
    store
}

#[tokio::test]
async fn a_get_waits_for_its_key() {
    let store = opened();
    let (got, _) = tokio::join!(store.answer(request(3, get("k", 60_000))), async {
        tokio::task::yield_now().await;
        store.answer(request(3, set("k", b"v"))).await
    });
    assert_eq!(got.expect("set meanwhile").value, b"v");
}

#[tokio::test]
async fn a_get_gives_up_by_name() {
    let error = opened().answer(request(3, get("k", 5))).await.expect_err("nobody sets it");
    assert!(
        matches!(&error, FleetError::KeyTimeout { key, waited_ms, .. } if key == "k" && *waited_ms >= 5),
        "{error}"
    );
}

#[tokio::test]
async fn a_generation_that_is_over_is_refused_and_its_waiters_are_woken() {
    let store = opened();
    store.answer(request(3, set("k", b"old"))).await.expect("open");
    let stale = |got, current| FleetError::StaleGeneration { got: Generation(got), current: Generation(current) };
    store.open(Generation(4));
    let (waiter, ()) = tokio::join!(store.answer(request(3, get("never", 60_000))), async {
        tokio::task::yield_now().await;
        store.close(Generation(3));
    });
    assert_eq!(waiter, Err(stale(3, 4)));
    assert_eq!(store.answer(request(2, get("k", 0))).await, Err(stale(2, 4)));
    let flag = store.answer(request(4, Op::Check(pb::Keys { keys: vec!["k".into()] }))).await.expect("open").flag;
    assert!(!flag, "keys do not outlive their generation");
    store.open(Generation(3));
    assert_eq!(store.answer(request(3, get("k", 0))).await, Err(stale(3, 4)), "it stays over");
}

#[tokio::test]
async fn two_generations_do_not_see_each_others_keys() {
    let store = opened();
    store.open(Generation(4));
    store.answer(request(3, set("k", b"three"))).await.expect("open");
    store.answer(request(4, set("k", b"four"))).await.expect("open");
    assert_eq!(store.answer(request(3, get("k", 0))).await.expect("there").value, b"three");
}

#[tokio::test]
async fn whoever_comes_before_the_order_waits_for_it() {
    let store = KeyStore::default();
    let (early, ()) = tokio::join!(store.answer(request(3, set("k", b"v"))), async {
        tokio::task::yield_now().await;
        store.open(Generation(3));
    });
    early.expect("open by now");
    assert_eq!(store.answer(request(3, get("k", 0))).await.expect("there").value, b"v");
}

#[tokio::test]
async fn add_compare_set_and_delete_keep_c10ds_contract() {
    let store = opened();
    let ask = |op| store.answer(request(3, op));
    let add = |amount| Op::Add(pb::KeyAdd { key: "n".into(), amount });
    assert_eq!(ask(add(2)).await.expect("absent is 0").number, 2);
    assert_eq!(ask(add(-5)).await.expect("a number").number, -3);
    assert_eq!(ask(get("n", 0)).await.expect("there").value, b"-3");
    let cas = |expected: &[u8], desired: &[u8]| {
        Op::CompareSet(pb::CompareSet { key: "c".into(), expected: expected.into(), desired: desired.into() })
    };
    assert_eq!(ask(cas(b"x", b"1")).await.expect("absent").value, b"x");
    assert_eq!(ask(cas(b"", b"1")).await.expect("absent and empty").value, b"1");
    assert_eq!(ask(cas(b"2", b"3")).await.expect("other").value, b"1");
    assert_eq!(ask(cas(b"1", b"3")).await.expect("equal").value, b"3");
    assert!(ask(Op::Delete("c".into())).await.expect("there").flag);
    assert!(!ask(Op::Delete("c".into())).await.expect("gone").flag);
    ask(set("t", b"word")).await.expect("open");
    let error = ask(Op::Add(pb::KeyAdd { key: "t".into(), amount: 1 })).await.expect_err("a word");
    assert_eq!(error.to_string(), "malformed message: store_request.add: the key holds no decimal number");
}

#[tokio::test]
async fn keys_and_values_are_bounded() {
    let error = opened().answer(request(3, set(&"k".repeat(2000), b""))).await.expect_err("too long");
    assert_eq!(error.to_string(), "the rendezvous key has 2000 bytes; at most 1024 are allowed");
}
