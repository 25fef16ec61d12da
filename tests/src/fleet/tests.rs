use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// A fleet in a temporary folder, with one process that does nothing for a long time.
fn fleet_of(name: &str) -> (tempfile::TempDir, Fleet, u32) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut fleet = Fleet::new(folder.path(), "# nothing").expect("temporary");
    let pid = start(&mut fleet, name).expect("sleep starts");
    (folder, fleet, pid)
}

/// A process that does nothing for a long time.
fn start(fleet: &mut Fleet, name: &str) -> Result<u32> {
    let mut command = Command::new("sleep");
    command.arg("1000");
    let host = fleet.place(name)?;
    fleet.start(name, command, host)
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_killed_process_is_reaped_with_its_signal_and_its_name_is_free() {
    let (_folder, mut fleet, pid) = fleet_of("w0");
    assert!(start(&mut fleet, "w0").is_err(), "the name is taken");
    assert_eq!(fleet.alive(), BTreeSet::from(["w0".to_string()]));
    assert!(fleet.reap().expect("asked").is_empty());

    fleet.kill("w0", Signal::KILL).expect("it runs");
    let exit = fleet.wait("w0", LIMIT).expect("killed");
    assert_eq!((exit.pid, exit.signal(), exit.code()), (pid, Some(9), None));
    assert!(fleet.alive().is_empty());
    assert!(fleet.kill("w0", Signal::KILL).is_err(), "its process id may be somebody else's by now");
    start(&mut fleet, "w0").expect("the name is free");
}

#[test]
fn a_stopped_process_shows_it_and_is_killed_all_the_same() {
    let (_folder, mut fleet, pid) = fleet_of("w0");
    fleet.kill("w0", Signal::STOP).expect("it runs");
    wait_for("stopped", LIMIT, || Ok((fleet.state("w0")? == 'T').then_some(()))).expect("SIGSTOP stops");
    drop(fleet);
    assert!(!is_there(pid));
}

#[test]
fn a_panic_leaves_no_process_behind() {
    let (_folder, fleet, pid) = fleet_of("w0");
    assert!(is_there(pid));
    let panicked = std::thread::spawn(move || {
        let _fleet = fleet;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert!(!is_there(pid));
}

#[test]
fn an_exit_code_and_last_words_are_told() {
    let (_folder, mut fleet, _) = fleet_of("w0");
    let mut command = Command::new("sh");
    command.args(["-c", "echo it hurts >&2; exit 75"]);
    fleet.start("w1", command, None).expect("sh starts");
    let exits = wait_for("w1 ends", LIMIT, || Ok(Some(fleet.reap()?).filter(|e| !e.is_empty()))).expect("it ends");
    assert_eq!(exits.iter().map(|e| (e.name.as_str(), e.code())).collect::<Vec<_>>(), [("w1", Some(75))]);
    assert!(fleet.last_words(&exits[0]).contains("it hurts"));
}
