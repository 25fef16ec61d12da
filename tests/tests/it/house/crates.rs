//! Who may know whom, and what stays out of which crate.

use pixfleet_tests::root;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON")
}

/// Package name -> names of its normal (not dev, not build) dependencies.
fn graph(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let text = |v: &Value| v.as_str().expect("cargo metadata has text here").to_string();
    let names: BTreeMap<String, String> =
        metadata["packages"].as_array().expect("packages").iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().expect("nodes") {
        let deps = node["deps"]
            .as_array()
            .expect("deps")
            .iter()
            .filter(|d| d["dep_kinds"].as_array().expect("kinds").iter().any(|k| k["kind"].is_null()));
        let entry = graph.entry(names[&text(&node["id"])].clone()).or_default();
        entry.extend(deps.map(|d| names[&text(&d["pkg"])].clone()));
    }
    graph
}

fn reach(graph: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![from.to_string()];
    while let Some(name) = todo.pop() {
        if seen.insert(name.clone()) {
            todo.extend(graph.get(&name).into_iter().flatten().cloned());
        }
    }
    seen
}

#[test]
fn who_may_know_whom() {
    let graph = graph(&metadata());
    let allowed: [(&str, &[&str]); 13] = [
        ("cluster", &[]),
        ("proto", &["cluster"]),
        ("hub", &[]),
        ("shards", &["cluster", "hub"]),
        ("checkpoint", &["cluster", "hub"]),
        ("shim", &[]),
        ("collective", &["cluster", "shim"]),
        ("model", &["cluster", "shim"]),
        ("coordinator", &["cluster", "proto", "checkpoint"]),
        ("worker", &["cluster", "proto", "shards", "checkpoint", "shim", "collective", "model"]),
        ("annotate", &["shards"]),
        ("ingest", &["shards"]),
        ("cli", &["cluster", "proto", "shards", "annotate", "ingest", "checkpoint"]),
    ];
    for (room, may) in allowed {
        for dep in &graph[&format!("pixfleet-{room}")] {
            if let Some(other) = dep.strip_prefix("pixfleet-") {
                assert!(
                    may.contains(&other),
                    "`{room}` must not know `{other}`: move what it needs into `cluster`, or pass it in"
                );
            }
        }
    }
}

#[test]
fn the_front_door_and_the_coordinator_never_link_torch() {
    let graph = graph(&metadata());
    for room in ["pixfleet-cli", "pixfleet-coordinator"] {
        for banned in ["tch", "torch-sys"] {
            assert!(
                !reach(&graph, room).contains(banned),
                "{room} reaches {banned}: commands that need torch live in `worker`"
            );
        }
    }
}

#[test]
fn the_pure_core_reaches_no_runtime_and_no_tensor() {
    let reached = reach(&graph(&metadata()), "pixfleet-cluster");
    for banned in ["tokio", "tonic", "tch", "object_store", "tracing"] {
        assert!(!reached.contains(banned), "`cluster` reaches {banned}: return an effect and let a shell perform it");
    }
}
