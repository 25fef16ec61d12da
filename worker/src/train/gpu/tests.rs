//! Eight GPUs on a machine without any: the choice is a function, and the locks are files.

use super::*;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const EIGHT: Gpus = Gpus { count: 8, named: None };

fn rank(rank: usize) -> Option<LocalRank> {
    Some(LocalRank { variable: "LOCAL_RANK", rank })
}

fn held(ordinals: &[usize]) -> BTreeMap<usize, String> {
    ordinals.iter().map(|&ordinal| (ordinal, format!("process {}", 100 + ordinal))).collect()
}

fn chosen(name: &str, gpus: &Gpus, rank: Option<LocalRank>, taken: &[usize]) -> Result<Choice, String> {
    let asked = Asked::parse(name).map_err(|e| e.to_string())?;
    choose((name, asked), gpus, rank, &held(taken)).map_err(|e| e.to_string())
}

fn refused(name: &str, gpus: &Gpus, rank: Option<LocalRank>, taken: &[usize]) -> String {
    chosen(name, gpus, rank, taken).expect_err("there is none for it")
}

#[test]
fn each_local_rank_has_its_own_gpu() {
    for own in 0..8 {
        assert_eq!(chosen("auto", &EIGHT, rank(own), &[]), Ok(Choice::Own(own)));
        assert_eq!(chosen("cuda", &EIGHT, rank(own), &[(own + 1) % 8]), Ok(Choice::Own(own)));
    }
}

#[test]
fn without_a_launcher_it_is_the_lowest_free_one() {
    assert_eq!(chosen("auto", &EIGHT, None, &[]), Ok(Choice::Own(0)));
    assert_eq!(chosen("cuda", &EIGHT, None, &[0, 1, 3]), Ok(Choice::Own(2)));
}

#[test]
fn more_workers_than_gpus_is_an_error_that_says_so() {
    let all: Vec<usize> = (0..8).collect();
    for said in [
        refused("auto", &EIGHT, rank(8), &[]),
        refused("cuda", &EIGHT, rank(3), &[3]),
        refused("auto", &EIGHT, None, &all),
        refused("auto", &Gpus::new(1, Some("5")), rank(1), &[0]),
    ] {
        assert!(said.starts_with("more workers than GPUs: "), "{said}");
        assert!(said.contains("start one worker per GPU"), "{said}");
    }
    assert!(refused("auto", &EIGHT, rank(8), &[]).contains("LOCAL_RANK is 8, and this process sees 8 GPUs"));
    assert!(refused("cuda", &EIGHT, rank(3), &[3]).contains("cuda:3 is held by a worker already (process 103)"));
    assert!(refused("auto", &EIGHT, None, &all).contains("process 100, process 101"));
}

#[test]
fn a_named_gpu_is_taken_at_its_word() {
    assert_eq!(chosen("cuda:5", &EIGHT, rank(0), &[]), Ok(Choice::Own(5)));
    assert_eq!(chosen("cuda:5", &EIGHT, None, &[5]), Ok(Choice::Shared(5)));
    assert!(refused("cuda:8", &EIGHT, None, &[]).contains("there are 8 GPUs here"));
    for name in ["gpu", "cuda:", "cuda:x", "cuda:-1"] {
        assert!(refused(name, &EIGHT, None, &[]).contains("none of auto, cpu, cuda, cuda:N"), "{name}");
    }
}

#[test]
fn without_gpus_auto_is_the_cpu_and_cuda_an_error() {
    let none = Gpus::new(0, None);
    assert_eq!(chosen("auto", &none, rank(3), &[]), Ok(Choice::Cpu));
    assert_eq!(chosen("cpu", &EIGHT, rank(3), &[]), Ok(Choice::Cpu));
    for name in ["cuda", "cuda:0"] {
        assert!(refused(name, &none, rank(0), &[]).contains("--features pixfleet-worker/nccl"));
    }
}

#[test]
fn a_launcher_that_shows_each_process_one_gpu_means_that_one() {
    let own = Gpus::new(1, Some("GPU-8a1"));
    assert_eq!(chosen("auto", &own, rank(6), &[]), Ok(Choice::Own(0)));
    assert_ne!(own.identity(0), Gpus::new(1, Some("GPU-77f")).identity(0), "two processes, two GPUs");
    assert_eq!(Gpus::new(2, Some("6, 7")).identity(1), "7");
    // The only GPU of a machine is not what a launcher has chosen.
    assert!(refused("auto", &Gpus::new(1, None), rank(1), &[]).contains("more workers than GPUs"));
}

#[test]
fn ranks_come_from_the_environment() {
    let read = |set: &[(&str, &str)]| {
        let set: BTreeMap<String, String> = set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        LocalRank::read(|name| set.get(name).cloned())
    };
    assert_eq!(read(&[]).expect("none"), None);
    assert_eq!(read(&[("LOCAL_RANK", "")]).expect("empty is none"), None);
    assert_eq!(read(&[("SLURM_LOCALID", "3"), ("LOCAL_RANK", "1")]).expect("a number"), rank(1));
    let slurm = read(&[("SLURM_LOCALID", "3")]).expect("a number");
    assert_eq!(slurm, Some(LocalRank { variable: "SLURM_LOCALID", rank: 3 }));
    let said = read(&[("LOCAL_RANK", "first")]).expect_err("no number").to_string();
    assert!(said.starts_with("LOCAL_RANK is `first`"), "{said}");
}

#[test]
fn workers_of_one_machine_share_its_gpus_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let locks = Locks(dir.path().join("locks"));
    let two = Gpus::new(2, None);
    let place = |name, rank| place_among(name, &two, rank, &locks);
    let (first, one) = place("auto", None).expect("both are free");
    let (second, _other) = place("auto", None).expect("one is free");
    assert_eq!((first, second), (Device::Cuda(0), Device::Cuda(1)));
    let said = place("auto", None).expect_err("none is free").to_string();
    let own = format!("process {}", std::process::id());
    assert!(said.contains(&format!("all 2 that this process sees are held by workers ({own}, {own})")), "{said}");
    let said = place("cuda", rank(1)).expect_err("it is held").to_string();
    assert!(said.contains("LOCAL_RANK is 1, and cuda:1 is held"), "{said}");
    let (shared, lock) = place("cuda:1", None).expect("it was named");
    assert_eq!((shared, lock.is_none()), (Device::Cuda(1), true));
    drop(one);
    assert_eq!(place("cuda", rank(0)).expect("free again").0, Device::Cuda(0));
}

#[test]
fn a_folder_of_somebody_elses_is_no_place_for_locks() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("locks");
    std::os::unix::fs::symlink(dir.path(), &path).expect("writable");
    let error = Locks(path.clone()).hold("0").expect_err("a link leads anywhere");
    assert!(error.to_string().contains(&format!("in {}", path.display())), "{error}");
}

/// The folder of the process that [`a_lock_dies_with_its_process`] kills.
const HELD_IN: &str = "PIXFLEET_TEST_GPU_LOCKS";

/// Holds a GPU until it is killed, in a process of its own; by itself nothing.
#[test]
fn holder() {
    let Some(folder) = std::env::var_os(HELD_IN) else { return };
    let _lock = Locks(folder.into()).hold("0").expect("writable").expect("free");
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn a_lock_dies_with_its_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let locks = Locks(dir.path().join("locks"));
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "train::gpu::tests::holder"]).env(HELD_IN, &locks.0);
    let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
    let its = format!("process {}", child.id());
    let limit = Instant::now() + Duration::from_secs(30);
    // Tried only once it is written: this process must not take the lock first.
    while std::fs::read_to_string(locks.0.join("gpu-0")).unwrap_or_default().trim() != its {
        assert!(Instant::now() < limit, "the child holds no lock");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(locks.hold("0").expect("readable").expect_err("it is held"), its);
    child.kill().expect("SIGKILL");
    child.wait().expect("it is dead");
    locks.hold("0").expect("readable").expect("free again");
}
