//! The loss needs memory linear in the batch. A process of its own: memory is measured as the process's peak.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::fs;

use pixfleet_model::loss::{Columns, InfoNce, Tile};
use pixfleet_model::testing::hash_fill;
use tch::{Device, Kind, Tensor};

fn rows(name: &str, n: i64, d: i64) -> Tensor {
    let x = hash_fill(name, &[n, d], 1.0);
    let norm = (&x * &x).sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt();
    x / norm
}

fn peak_rss_mib() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() / 1024
}

/// The whole similarity matrix would be 1,024 MiB here; both halves together stay far below.
#[test]
fn memory_is_linear_in_the_batch() {
    let n = 16_384;
    let [a, b] = [rows("a", n, 8), rows("b", n, 8)].map(|side| Columns::of(&side).unwrap());
    let loss = InfoNce { scale: 10.0, smoothing: 0.0, tile: Tile::for_device(Device::Cpu) };
    let before = peak_rss_mib();
    let stats = loss.stats(&a, &b, &[0..n]).unwrap();
    let _ = loss.grad([&a, &b], [&stats.lse_ab, &stats.lse_ba], &[0..1024]).unwrap();
    let grown = peak_rss_mib() - before;
    assert!(grown < 200, "{grown} MiB");
}
