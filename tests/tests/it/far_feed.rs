//! The feed alone, from an S3 server that is far away: the same rows, hardly a byte in vain, and many requests at a time.
//! How fast that is, `make bench-feed` measures on a quiet machine.

use pixfleet_tests::far::{FarProxy, feed};
use pixfleet_tests::s3::S3;
use pixfleet_tests::{SCENES, dataset, run_file, scratch};
use std::time::Duration;
use tokio::runtime::Runtime;

const DELAY: Duration = Duration::from_millis(40);

#[test]
fn a_far_store_feeds_the_same_rows_with_hardly_a_byte_in_vain() {
    let runtime = Runtime::new().expect("a runtime");
    let s3 = S3::start_in(&scratch().join("far-weed"));
    let near = dataset();
    let there = feed::upload(&runtime, &s3, &scratch().join("mini")).expect("a writable bucket");
    let proxy = FarProxy::open(runtime.handle(), s3.address(), DELAY).expect("loopback");
    let run = scratch().join("far-feed.toml");
    std::fs::write(&run, run_file("far-feed", near, near)).expect("scratch is writable");

    let from_disk = feed::fed(&run, near, &[], &[]).expect("figures");
    let from_far = feed::fed(&run, &there, &[], &S3::env_at(proxy.address())).expect("figures");
    for fed in [&from_disk, &from_far] {
        assert_eq!(fed.samples, u64::from(SCENES), "one epoch: {fed:?}");
        assert!(fed.fetched_per_used <= 1.02, "{fed:?}");
    }
    let requests = from_far.requests;
    assert!(proxy.delayed() >= requests && proxy.shortest() >= DELAY, "the proxy delayed each of {requests} answers");
    assert!(from_far.mean_latency_ms >= 40.0 && from_disk.mean_latency_ms < 40.0, "{from_disk:?} {from_far:?}");
    assert!(from_far.most_under_way >= 8, "it adapts to the latency: {from_far:?}");
}
