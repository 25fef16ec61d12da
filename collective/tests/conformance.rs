use std::sync::Arc;
use std::time::Duration;
use pixfleet_collective::*;
#[test]
fn probe() {
    let store = Arc::new(HashStore::new());
    std::thread::scope(|s| {
        for r in 0..3 {
            let store = store.clone();
            s.spawn(move || {
                let g = Group::new(Backend::Gloo, store, GroupConfig{timeout: Duration::from_secs(5), ..GroupConfig::loopback(r,3,1)}).unwrap();
                println!("{:?}", Vec::<f32>::try_from(g.all_gather(&tch::Tensor::from_slice(&[r as f32])).unwrap().view(-1)));
                println!("{:?}", g.reduce_scatter_sum(&tch::Tensor::from_slice(&[r as f32,2.,3.]).view([3,1])).unwrap());
                g.barrier().unwrap();
                let t = std::time::Instant::now();
                if r == 2 { let h = g.abort_handle(); std::thread::spawn(move || { std::thread::sleep(Duration::from_millis(300)); h.abort() });  println!("{r} {:?} {:?}", g.broadcast(&mut tch::Tensor::from_slice(&[0f32]), 0), t.elapsed()); return; }
                if r == 1 { println!("{r} {:?} {:?}", g.barrier(), t.elapsed()); }
                if r == 0 { std::thread::sleep(Duration::from_millis(1000));println!("{r} {:?} {:?}", g.barrier(), t.elapsed()); }
            });
        }
    });
}
