//! What a rank learns, and how fast, when a peer dies, never comes, stands still, or is told to stop.

use std::os::unix::process::ExitStatusExt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::counting::{CountingStore, counting};
use crate::fleet::{Fleet, PATIENCE, Rank};
use pixfleet_cluster::fault::Class;
use pixfleet_collective::{
    AbortHandle, Backend, CollectiveError, Group, GroupConfig, HashStore, Reducer, RendezvousStore, StoreError,
};
use tch::{Device, Kind, Tensor};

const SIGKILL: i32 = 9;

/// The goal for the loss to be known is 2 s; a healthy machine needs milliseconds.
const LOSS_KNOWN: Duration = Duration::from_secs(2);

#[test]
fn survivors_of_a_kill_in_all_reduce_go_on_in_a_new_generation() {
    match Rank::from_environment() {
        Some(rank) => run_until_lost(&rank, |group| {
            group.all_reduce_sum(&mut Tensor::ones([4 << 20], (Kind::Float, Device::Cpu)))
        }),
        None => kill_the_last_of_three("faults::survivors_of_a_kill_in_all_reduce_go_on_in_a_new_generation"),
    }
}

#[test]
fn survivors_of_a_kill_in_all_to_all_go_on_in_a_new_generation() {
    match Rank::from_environment() {
        Some(rank) => run_until_lost(&rank, |group| {
            let slices = Tensor::ones([3 << 20], (Kind::Float, Device::Cpu));
            group.all_to_all(&slices, &[1 << 20; 3], &[1 << 20; 3]).map(drop)
        }),
        None => kill_the_last_of_three("faults::survivors_of_a_kill_in_all_to_all_go_on_in_a_new_generation"),
    }
}

#[test]
fn survivors_of_a_kill_in_backward_go_on_in_a_new_generation() {
    match Rank::from_environment() {
        Some(rank) => backward_until_lost(&rank),
        None => kill_the_last_of_three("faults::survivors_of_a_kill_in_backward_go_on_in_a_new_generation"),
    }
}

/// Starts three ranks, kills the last at work, and times the survivors by what they tell.
fn kill_the_last_of_three(name: &str) {
    let mut fleet = Fleet::start(name, 3);
    (0..3).for_each(|rank| drop(fleet.hear(&format!("working/{rank}"))));
    let mut victim = fleet.children.pop().unwrap();
    let killed = Instant::now();
    victim.kill().unwrap();
    assert_eq!(victim.wait().unwrap().signal(), Some(SIGKILL), "the fault must have fired");
    let heard: Vec<String> = (0..2).map(|rank| fleet.hear(&format!("lost/{rank}"))).collect();
    let known = killed.elapsed();
    (0..2).for_each(|rank| drop(fleet.hear(&format!("healed/{rank}"))));
    println!("kill -9 to error on both {known:?}, to the first sum of the next generation {:?}", killed.elapsed());
    assert!(heard.iter().any(|rank| rank == "Some(2)"), "nobody named the dead rank: {heard:?}");
    assert!(known < LOSS_KNOWN, "the loss was known after {known:?}");
    fleet.all_pass();
}

fn run_until_lost(rank: &Rank, operation: impl Fn(&Group) -> Result<(), CollectiveError>) {
    let group = rank.join(1, rank.rank, 3);
    let mut rounds = 0;
    let error = loop {
        if let Err(error) = operation(&group) {
            break error;
        }
        rounds += 1;
        if rounds == 2 {
            rank.tell(&format!("working/{}", rank.rank), "");
        }
    };
    heal(rank, group, &error).finish().unwrap();
}

fn backward_until_lost(rank: &Rank) {
    let group = rank.join(1, rank.rank, 3);
    let weight = Tensor::ones([1000, 1000], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let bias = Tensor::ones([1000], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let mut reducer = Reducer::new(&group, [("weight", &weight), ("bias", &bias)]).unwrap();
    let mut rounds = 0;
    let error = loop {
        reducer.prepare_for_backward().unwrap();
        let loss = (weight.matmul(&bias) + &bias).sum(Kind::Float);
        if let Err(error) = loss.f_backward() {
            break group.classify(&error);
        }
        rounds += 1;
        if rounds == 2 {
            rank.tell(&format!("working/{}", rank.rank), "");
        }
    };
    drop(reducer);
    let group = heal(rank, group, &error);
    let mut reducer = Reducer::new(&group, [("weight", &weight), ("bias", &bias)]).unwrap();
    reducer.prepare_for_backward().unwrap();
    (weight.sum(Kind::Float) * f64::from(group.rank() + 1) + bias.sum(Kind::Float)).f_backward().unwrap();
    reducer.finish().unwrap();
    assert_eq!(weight.grad().double_value(&[999, 0]), 3.0, "the sum of 1 and 2");
    drop(reducer);
    group.finish().unwrap();
}

/// Tells the loss, forms the next generation of two, and proves that it works.
fn heal(rank: &Rank, group: Group, error: &CollectiveError) -> Group {
    assert_eq!(error.class(), Class::Reform);
    let CollectiveError::LostPeer { rank: lost, .. } = error else { panic!("{error}: {error:?}") };
    rank.tell(&format!("lost/{}", rank.rank), &format!("{lost:?}"));
    drop(group);
    let started = Instant::now();
    let group = rank.join(2, rank.rank, 2);
    let formed = started.elapsed();
    let mut one = Tensor::from_slice(&[1i64]);
    group.all_reduce_sum(&mut one).unwrap();
    assert_eq!(one.int64_value(&[0]), 2);
    println!("re-formed in {formed:?}");
    rank.tell(&format!("healed/{}", rank.rank), &format!("{formed:?}"));
    group
}

#[test]
fn a_peer_that_never_comes_is_a_timeout_that_names_its_key() {
    let config = GroupConfig { timeout: Duration::from_millis(200), ..GroupConfig::loopback(0, 2, 4) };
    let error = Group::new(Backend::Gloo, Arc::new(HashStore::new()), config).unwrap_err();
    assert_eq!(error.class(), Class::Reform);
    let CollectiveError::Store(StoreError::Timeout { keys, .. }) = &error else { panic!("{error:?}") };
    assert!(keys.starts_with("g4/"), "{keys}");
}

/// Two ranks as threads of this process, which suffices where nobody dies.
fn pair(generation: u64, timeout: Duration, body: impl Fn(Group) + Sync) {
    let store = Arc::new(HashStore::new());
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let (store, body) = (Arc::clone(&store), &body);
            scope.spawn(move || {
                let config = GroupConfig { timeout, ..GroupConfig::loopback(rank, 2, generation) };
                body(Group::new(Backend::Gloo, store, config).unwrap());
            });
        }
    });
}

#[test]
fn a_peer_that_stands_still_is_a_timeout() {
    let (done, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    pair(1, Duration::from_millis(300), |group| {
        if group.rank() == 1 {
            wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            return;
        }
        let error = group.barrier().unwrap_err();
        assert!(matches!(error, CollectiveError::Timeout { operation: "barrier", .. }), "{error:?}");
        assert_eq!(error.class(), Class::Reform);
        done.send(()).unwrap();
    });
}

/// By which a rank is late.
const LATE: Duration = Duration::from_millis(200);

#[test]
fn the_wait_for_a_slow_rank_is_told_by_the_others_and_not_by_itself() {
    pair(1, PATIENCE, |group| {
        let param = Tensor::ones([4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let mut reducer = Reducer::new(&group, [("param", &param)]).unwrap();
        group.barrier().unwrap();
        if group.rank() == 1 {
            std::thread::sleep(LATE);
        }
        reducer.prepare_for_backward().unwrap();
        param.sum(Kind::Float).backward();
        reducer.finish().unwrap();
        let waited = Duration::from_secs_f64(reducer.waited_s());
        assert_eq!(waited > LATE / 2, group.rank() == 0, "rank {} waited {waited:?}", group.rank());
        drop(reducer);
        group.finish().unwrap();
    });
}

#[test]
fn the_wait_in_a_gather_is_told_by_the_others_and_not_by_the_slow_rank() {
    pair(1, PATIENCE, |group| {
        group.barrier().unwrap();
        if group.rank() == 1 {
            std::thread::sleep(LATE);
        }
        let before = group.waited_s();
        drop(group.all_gather(&Tensor::from_slice(&[1f32])).unwrap());
        let waited = Duration::from_secs_f64(group.waited_s() - before);
        assert_eq!(waited > LATE / 2, group.rank() == 0, "rank {} waited {waited:?}", group.rank());
        group.finish().unwrap();
    });
}

#[test]
fn healthy_operations_ask_the_store_for_nothing() {
    let store = counting();
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let store = Arc::clone(&store);
            scope.spawn(move || {
                let config = GroupConfig::loopback(rank, 2, 1);
                let group = Group::new(Backend::Gloo, Arc::<CountingStore>::clone(&store), config).unwrap();
                // Both have formed, and nobody leaves yet.
                group.barrier().unwrap();
                let formed = store.asked();
                assert!(formed > 0, "ranks meet in the store");
                let mut sum = Tensor::from_slice(&[1f32]);
                for _ in 0..100 {
                    group.all_reduce_sum(&mut sum).unwrap();
                }
                assert_eq!(store.asked(), formed);
                group.finish().unwrap();
            });
        }
    });
}

/// Whoever aborts has others to answer to.
fn at_once(act: impl FnOnce()) {
    let began = Instant::now();
    act();
    assert!(began.elapsed() < Duration::from_millis(100), "it took {:?}", began.elapsed());
}

#[test]
fn an_abort_ends_a_blocked_operation_and_all_later_ones() {
    let (done, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let started = Instant::now();
    pair(1, PATIENCE, |group| {
        if group.rank() == 1 {
            wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            return;
        }
        let handle = group.abort_handle();
        let thread = std::thread::spawn(move || at_once(|| handle.abort()));
        let error = group.barrier().unwrap_err();
        assert!(matches!(error, CollectiveError::Aborted { operation: "barrier" }), "{error:?}");
        thread.join().unwrap();
        let error = group.all_gather(&Tensor::from_slice(&[1f32])).unwrap_err();
        assert!(matches!(error, CollectiveError::Aborted { operation: "all_gather" }), "{error:?}");
        let handle = group.abort_handle();
        drop(group);
        handle.abort();
        done.send(()).unwrap();
    });
    assert!(started.elapsed() < PATIENCE / 2, "an abort must not wait for the timeout");
}

#[test]
fn what_a_failed_generation_left_in_the_store_does_not_disturb_the_next() {
    let store = Arc::new(HashStore::new());
    let config = GroupConfig { timeout: Duration::from_millis(100), ..GroupConfig::loopback(0, 2, 1) };
    Group::new(Backend::Gloo, Arc::<HashStore>::clone(&store), config).unwrap_err();
    assert!(!store.keys("g1/").is_empty(), "the first attempt wrote its address");
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let store = Arc::clone(&store);
            scope.spawn(move || {
                let config = GroupConfig::loopback(rank, 2, 2);
                Group::new(Backend::Gloo, store, config).unwrap().finish().unwrap();
            });
        }
    });
    let all = store.keys("");
    assert_eq!(all.len(), store.keys("g1/").len() + store.keys("g2/").len(), "every key has its generation: {all:?}");
}

#[test]
fn nccl_refuses_in_a_build_without_it() {
    if cfg!(feature = "nccl") {
        return;
    }
    let error = Group::new(Backend::Nccl, Arc::new(HashStore::new()), GroupConfig::loopback(0, 1, 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an NCCL group: built without the `nccl` feature; rebuild with `--features nccl` (see scripts/setup-nccl.sh)"
    );
    assert_eq!(error.class(), Class::Fatal);
}

/// The absent rank's address is in the store, as it is when a process dies between coming and connecting.
#[test]
fn a_peer_that_came_and_died_while_forming_is_found_out() {
    for survivor in 0..2 {
        let store = Arc::new(HashStore::new());
        std::thread::scope(|scope| {
            for rank in 0..2 {
                let store = Arc::clone(&store);
                scope.spawn(move || Group::new(Backend::Gloo, store, GroupConfig::loopback(rank, 2, 1)).unwrap());
            }
        });
        let left = store.get(&format!("g1/0/{}", 1 - survivor), Duration::ZERO).unwrap();
        store.set(&format!("g2/0/{}", 1 - survivor), &left).unwrap();
        let timeout = Duration::from_millis(700);
        let config = GroupConfig { timeout, ..GroupConfig::loopback(survivor, 2, 2) };
        let started = Instant::now();
        let error = Group::new(Backend::Gloo, store, config).unwrap_err();
        let knew = matches!(error, CollectiveError::LostPeer { .. } | CollectiveError::Timeout { .. });
        assert!(knew, "{error:?}");
        assert_eq!(error.class(), Class::Reform, "{error:?}");
        assert!(started.elapsed() < timeout + Duration::from_secs(1), "gloo alone would take five timeouts");
    }
}

#[test]
fn an_abort_ends_the_forming_of_a_group() {
    let abort = AbortHandle::new();
    let store = Arc::new(HashStore::new());
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Once this rank's address is there, it waits for the other's, which never comes.
            store.get("g1/0/0", PATIENCE).unwrap();
            at_once(|| abort.abort());
        });
        let config = GroupConfig { timeout: Duration::from_secs(8), ..GroupConfig::loopback(0, 2, 1) };
        let store = Arc::<HashStore>::clone(&store);
        let error = Group::form(Backend::Gloo, store, config, &abort).unwrap_err();
        assert!(matches!(error, CollectiveError::Aborted { .. }), "{error:?}");
    });
    assert!(started.elapsed() < Duration::from_secs(6));
    let config = GroupConfig::loopback(0, 1, 2);
    let error = Group::form(Backend::Gloo, store, config, &abort).unwrap_err();
    assert!(matches!(error, CollectiveError::Aborted { .. }), "an abort is final: {error:?}");
}

/// Gloo forgets a send into a connection that closed an instant before: whatever the moment, both ends must know.
#[test]
fn a_connection_that_closes_at_any_moment_blocks_nobody() {
    let started = Instant::now();
    for generation in 0..60 {
        pair(generation, PATIENCE, |group| {
            let aborting = (group.rank() == 0).then(|| {
                let handle = group.abort_handle();
                std::thread::spawn(move || handle.abort())
            });
            let outcome = group.barrier();
            let expected = match &outcome {
                Ok(()) => true,
                Err(CollectiveError::Aborted { .. }) => group.rank() == 0,
                Err(CollectiveError::LostPeer { rank, .. }) => (group.rank(), *rank) == (1, Some(0)),
                Err(_) => false,
            };
            assert!(expected, "rank {} of generation {generation}: {outcome:?}", group.rank());
            if let Some(thread) = aborting {
                thread.join().unwrap();
            }
        });
    }
    assert!(started.elapsed() < PATIENCE, "one of them waited for its timeout");
}
