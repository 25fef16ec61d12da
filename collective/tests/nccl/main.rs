//! What groups of one process must do on a GPU. Compiled with the `nccl` feature alone and run by `make gpu-check`: where
//! there is no GPU every test fails, since a check that passes without what it checks would say nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail where they unwrap")]

#[path = "../conformance/counting.rs"]
mod counting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use counting::counting;
use pixfleet_collective::{
    AbortHandle, Backend, CollectiveError, Group, GroupConfig, HashStore, Reducer, RendezvousStore,
};
use tch::{Device, Kind, Tensor};

const GPU: Device = Device::Cuda(0);
/// Longer than any step of a test may take; reached only by a failing one.
const PATIENCE: Duration = Duration::from_secs(60);
/// A host that waits for nothing takes less.
const AT_ONCE: Duration = Duration::from_millis(100);

fn config(rank: u32, world: u32, generation: u64) -> GroupConfig {
    GroupConfig { device: GPU, timeout: PATIENCE, ..GroupConfig::loopback(rank, world, generation) }
}

fn alone(store: Arc<dyn RendezvousStore>, generation: u64) -> Group {
    Group::new(Backend::Nccl, store, config(0, 1, generation)).unwrap()
}

/// Enough for a GPU to be busy with for some tens of milliseconds.
fn busy() -> Tensor {
    let square = Tensor::randn([8192, 8192], (Kind::Float, GPU));
    (0..20).fold(square.copy(), |product, _| product.matmul(&square).clamp(-1.0, 1.0))
}

#[test]
fn a_group_of_one_agrees_with_the_definitions() {
    let group = alone(Arc::new(HashStore::new()), 1);
    let own = Tensor::arange(6, (Kind::Float, GPU)).view([2, 3]);
    assert!(group.all_gather(&own).unwrap().equal(&own.unsqueeze(0)));
    let mut sum = own.copy();
    group.all_reduce_sum(&mut sum).unwrap();
    assert!(sum.equal(&own));
    group.barrier().unwrap();
    group.finish().unwrap();
}

#[test]
fn an_abort_reaches_a_group_that_forms_and_the_next_one_forms() {
    let abort = AbortHandle::new();
    let aborting = abort.clone();
    let started = Instant::now();
    let thread = std::thread::spawn(move || {
        // By now its communicator waits for a rank that never comes.
        std::thread::sleep(Duration::from_secs(5));
        let began = Instant::now();
        aborting.abort();
        (began, began.elapsed())
    });
    let error = Group::form(Backend::Nccl, Arc::new(HashStore::new()), config(0, 2, 1), &abort).unwrap_err();
    let ended = Instant::now();
    let (aborted, took) = thread.join().unwrap();
    assert!(matches!(error, CollectiveError::Aborted { .. }), "{error:?}");
    assert!(took < AT_ONCE, "the abort itself took {took:?}");
    assert!(ended - aborted < Duration::from_secs(1), "the forming ended {:?} after it", ended - aborted);
    assert!(started.elapsed() < PATIENCE / 2);
    alone(Arc::new(HashStore::new()), 2).finish().unwrap();
    assert!(started.elapsed() < PATIENCE / 2, "the communicator that was aborted holds up the next one");
}

#[test]
fn after_an_abort_every_operation_says_so_and_counts_for_nothing() {
    let group = alone(Arc::new(HashStore::new()), 1);
    let ahead = busy();
    let handle = group.abort_handle();
    let thread = std::thread::spawn(move || handle.abort());
    let outcome = group.all_gather(&ahead);
    thread.join().unwrap();
    // It was done before the abort, or it is nobody's result.
    assert!(matches!(outcome, Ok(_) | Err(CollectiveError::Aborted { .. })), "{outcome:?}");
    let error = group.all_gather(&ahead).unwrap_err();
    assert!(matches!(error, CollectiveError::Aborted { operation: "all_gather" }), "{error:?}");
    let began = Instant::now();
    drop(group);
    assert!(began.elapsed() < Duration::from_secs(2), "dropping it took {:?}", began.elapsed());
}

#[test]
fn healthy_steps_ask_the_store_for_nothing() {
    let store = counting();
    let group = alone(Arc::<counting::CountingStore>::clone(&store), 1);
    let formed = store.asked();
    assert!(formed > 0, "ranks meet in the store");
    let mut sum = Tensor::ones([1000], (Kind::Float, GPU));
    // Longer than the second after which c10d's monitor would ask.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        group.all_reduce_sum(&mut sum).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(store.asked(), formed);
    group.finish().unwrap();
}

#[test]
fn own_work_ahead_of_an_operation_is_no_wait() {
    let group = alone(Arc::new(HashStore::new()), 1);
    let mut sum = Tensor::ones([1000], (Kind::Float, GPU));
    group.all_reduce_sum(&mut sum).unwrap();
    let (before, began) = (group.waited_s(), Instant::now());
    let ahead = busy();
    group.all_reduce_sum(&mut sum).unwrap();
    let (host, waited) = (began.elapsed().as_secs_f64(), group.waited_s() - before);
    drop(ahead);
    assert!(host > 0.01, "the GPU was not busy: {host} s");
    assert!(waited > 0.0 && waited < host / 4.0, "{waited} s of {host} s were told as waiting");
    group.finish().unwrap();
}

#[test]
fn the_reducer_tells_its_wait_apart_from_backward() {
    let group = alone(Arc::new(HashStore::new()), 1);
    let square = || Tensor::randn([4096, 4096], (Kind::Float, GPU)) * 0.01;
    let params: Vec<Tensor> = (0..6).map(|_| square().set_requires_grad(true)).collect();
    let names: Vec<String> = (0..6).map(|i| format!("p{i}")).collect();
    let mut reducer = Reducer::new(&group, names.iter().map(String::as_str).zip(&params)).unwrap();
    let input = square();
    for step in 0..3 {
        let began = Instant::now();
        reducer.prepare_for_backward().unwrap();
        params.iter().fold(input.copy(), |x, p| x.matmul(p).tanh()).sum(Kind::Float).backward();
        reducer.finish().unwrap();
        let (host, waited) = (began.elapsed().as_secs_f64(), reducer.waited_s());
        // The first step makes what later ones use.
        if step > 0 {
            assert!(waited > 0.0 && waited < host / 2.0, "{waited} s of {host} s were told as waiting");
        }
    }
    drop(reducer);
    group.finish().unwrap();
}
