//! The files are read back by a reader of their own, with a checksum of its own.

use super::*;
use pixfleet_cluster::ledger::Losses;
use pixfleet_cluster::{Generation, Step};
use prost::Message;
use std::path::PathBuf;

fn report(step: u64, total: f64) -> StepReport {
    StepReport {
        generation: Generation(1),
        step: Step(step),
        losses: Losses::new([("global", 0.25), ("local", 0.0)], total),
        lr: 1e-4,
        samples: 64,
        seconds: 0.5,
        data_wait_s: 0.0,
        collective_wait_s: 0.125,
        substitutions: Vec::new(),
        evidence: None,
        digest: None,
        metrics: [("grad_norm".to_string(), 3.0)].into(),
    }
}

/// CRC-32C bit by bit, as its polynomial says.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (front, rest) = bytes.split_first_chunk().expect("no torn frame");
    *bytes = rest;
    *front
}

fn check(bytes: &[u8], stored: [u8; 4]) {
    let unmasked = u32::from_le_bytes(stored).wrapping_sub(0xA282_EAD8).rotate_left(15);
    assert_eq!(unmasked, crc32c(bytes));
}

/// All events of a file, every checksum checked.
fn read(mut bytes: &[u8]) -> Vec<TfEvent> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let length = take::<8>(&mut bytes);
        check(&length, take(&mut bytes));
        let (message, rest) = bytes.split_at(u64::from_le_bytes(length) as usize);
        bytes = rest;
        check(message, take(&mut bytes));
        events.push(TfEvent::decode(message).expect("protobuf"));
    }
    events
}

fn files(run: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(run.join("tb")).expect("a folder").map(|entry| entry.expect("readable").path()).collect()
}

fn only_file(run: &Path) -> Vec<TfEvent> {
    let files = files(run);
    assert_eq!(files.len(), 1);
    read(&std::fs::read(&files[0]).expect("readable"))
}

#[test]
fn records_are_those_of_tensorboard() {
    // tensorboard 2.21: RecordWriter over Event(...).SerializeToString().
    let golden = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c3a000000000000001295eae2\
                  09000000000000024010072a2d0a110a0a6c6f73732f746f74616c150000003f0a180a1173706565642f646174615f776169745f\
                  731500000000a3037970";
    let version = TfEvent { wall_time: 1.5, file_version: Some("brain.Event:2".into()), ..TfEvent::default() };
    let values = vec![Value::scalar("loss/total".into(), 0.5), Value::scalar("speed/data_wait_s".into(), 0.0)];
    let step = TfEvent { wall_time: 2.25, step: 7, summary: Some(TfSummary { values }), ..TfEvent::default() };
    let mut bytes = Vec::new();
    for event in [&version, &step] {
        write_record(&mut bytes, event).expect("a vector takes all");
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
    assert_eq!(read(&bytes), [version, step]);
    assert_eq!(crc32c(b"123456789"), 0xE306_9283, "the polynomial's check value");
}

#[test]
fn a_step_is_one_event_with_all_its_curves() {
    let run = tempfile::tempdir().expect("a folder");
    let mut events = Events::create(run.path()).expect("a file");
    assert_eq!(only_file(run.path())[0].file_version.as_deref(), Some("brain.Event:2"), "a new file says what it is");
    events.write(&report(10, 1.5));
    let read = only_file(run.path());
    let event = &read[1];
    assert_eq!((read.len(), event.step), (2, 10));
    assert!((read[0].wall_time..read[0].wall_time + 600.0).contains(&event.wall_time));
    let curves: Vec<(&str, Option<f32>)> = event
        .summary
        .as_ref()
        .expect("curves")
        .values
        .iter()
        .map(|value| (value.tag.as_str(), value.simple_value))
        .collect();
    let expected = [
        ("loss/total", 1.5),
        ("loss/global", 0.25),
        ("loss/local", 0.0),
        ("speed/samples_per_s", 128.0),
        ("speed/data_wait_s", 0.0),
        ("speed/collective_wait_s", 0.125),
        ("optimizer/lr", 1e-4),
        ("metrics/grad_norm", 3.0),
    ];
    assert_eq!(curves, expected.map(|(tag, value)| (tag, Some(value))));
}

#[test]
fn ten_steps_are_flushed_and_the_rest_at_the_end() {
    let run = tempfile::tempdir().expect("a folder");
    let steps = |run: &Path| only_file(run).iter().skip(1).map(|event| event.step).collect::<Vec<_>>();
    let mut events = Events::create(run.path()).expect("a file");
    for step in 1..=12 {
        events.write(&report(step, 1.0));
    }
    assert_eq!(steps(run.path()), Vec::from_iter(1..=10));
    drop(events);
    assert_eq!(steps(run.path()), Vec::from_iter(1..=12));
}

#[test]
fn two_files_of_one_second_do_not_meet() {
    let run = tempfile::tempdir().expect("a folder");
    let _kept: Vec<Events> = (0..3).map(|_| Events::create(run.path()).expect("a file")).collect();
    assert_eq!(files(run.path()).len(), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_curves_and_nothing_else() {
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut events = Events { file: Some(BufWriter::new(full)) };
    events.write(&report(1, 1.0));
    assert!(events.file.is_some(), "nothing was flushed yet");
    events.write(&report(10, 1.0));
    assert!(events.file.is_none());
    events.write(&report(20, 1.0));
}
