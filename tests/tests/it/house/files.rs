//! What every file must be, read as text.

use super::{read, rust_sources, sources};

#[test]
fn every_rust_file_says_what_it_is_and_fits_in_one_room() {
    let mut faults = Vec::new();
    for path in rust_sources() {
        let Some(text) = read(&path) else { continue };
        let lines = text.lines().count();
        if lines > 500 {
            faults.push(format!("{}: {lines} lines; split it by purpose, 500 at most", path.display()));
        }
        if path.ends_with("main.rs") && path.parent().is_some_and(|p| p.ends_with("src")) && lines > 90 {
            faults.push(format!("{}: {lines} lines; a front door hands on, 90 at most", path.display()));
        }
        if !text.starts_with("//!") && path.file_name().is_none_or(|n| n != "tests.rs") {
            faults.push(format!("{}: does not start with `//!`; say what the file is", path.display()));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn unsafe_and_cxx_stand_only_in_shim() {
    let word = concat!("allow(", "unsafe_code");
    for path in sources().into_iter().filter(|p| !p.starts_with("shim")) {
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let Some(text) = read(&path) else { continue };
        assert!(
            ending != "rs" || !text.contains(word),
            "{}: unsafe code belongs into `shim`, behind a safe function",
            path.display()
        );
        let foreign = ["c", "cc", "cpp", "h", "hpp", "cu", "cuh"].contains(&ending.as_str());
        assert!(!foreign, "{}: C++ belongs into `shim/cpp`", path.display());
    }
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    let words = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[ig", "nore"), concat!("FIX", "ME")];
    for path in sources()
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs" || e == "py" || e == "cpp" || e == "hpp"))
    {
        let Some(text) = read(&path) else { continue };
        for word in words {
            assert!(!text.contains(word), "{} contains {word}: finish it or take it out", path.display());
        }
    }
}
