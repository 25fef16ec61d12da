//! Files that torch 2.11 wrote (`checkpoint/tests/golden/torch_file.py`).

use super::super::*;
use crate::decode;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn every_tensor_is_what_torch_wrote_bit_for_bit() {
    let bytes = std::fs::read(golden("torch_file.safetensors")).unwrap().into();
    let mut expected: BTreeMap<String, HostTensor> =
        decode("golden", &bytes).unwrap().into_iter().map(|t| (t.name.clone(), t)).collect();
    for stem in ["plain", "protocol5", "views", "training", "parameters"] {
        let file = TorchFile::open(&golden(&format!("{stem}.pt"))).unwrap();
        for (name, dtype, shape) in file.tensors() {
            let want = expected.remove(&format!("{stem}/{name}")).unwrap_or_else(|| panic!("{stem}: no {name}"));
            let got = file.read(name).unwrap();
            assert_eq!((got.dtype, &got.shape), (dtype, &shape.to_vec()), "{stem}: {name}");
            assert_eq!(got, HostTensor { name: name.to_owned(), ..want }, "{stem}: {name}");
        }
    }
    assert!(expected.is_empty(), "not read: {:?}", expected.keys());
}

#[test]
fn a_checkpoint_of_training_gives_its_weights_alone() {
    let file = TorchFile::open(&golden("training.pt")).unwrap();
    assert_eq!(file.under(), ["model"]);
    assert!(file.tensors().any(|(name, ..)| name == "1.running_mean"), "`module.` is taken off");
    assert_eq!(TorchFile::open(&golden("parameters.pt")).unwrap().under(), ["state_dict"]);
    let error = file.read("2.weight").unwrap_err().to_string();
    assert!(error.ends_with("training.pt holds no tensor `2.weight`"), "{error}");
}

#[test]
fn a_command_in_a_pickle_is_named_and_not_run() {
    let error = TorchFile::open(&golden("command.pt")).unwrap_err().to_string();
    assert!(error.contains("refers to `posix.system`") && error.contains("Nothing was run."), "{error}");
    assert!(!Path::new("/tmp/pixfleet-a-pickle-ran").exists());
    let error = TorchFile::open(&golden("module.pt")).unwrap_err().to_string();
    assert!(error.contains("refers to `torch.nn.modules.linear.Linear`") && error.contains("state_dict()"), "{error}");
}

#[test]
fn other_containers_are_told_apart() {
    let said = |path: &Path| TorchFile::open(path).unwrap_err().to_string();
    assert!(
        said(&golden("legacy.pt")).contains("older format without a zip container"),
        "{}",
        said(&golden("legacy.pt"))
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pt");
    std::fs::write(&path, b"").unwrap();
    assert!(said(&path).ends_with("x.pt is not a torch.save zip file: it is empty"), "{}", said(&path));
    let mut tar = vec![0u8; 512];
    tar[257..262].copy_from_slice(b"ustar");
    std::fs::write(&path, tar).unwrap();
    assert!(said(&path).contains("tar file"), "{}", said(&path));
    std::fs::write(&path, b"\x89PNG").unwrap();
    assert!(said(&path).contains("none of the formats"), "{}", said(&path));
    assert!(said(&folder.path().join("no.pt")).starts_with("cannot read "));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pt");
    for stem in ["plain", "training"] {
        let whole = std::fs::read(golden(&format!("{stem}.pt"))).unwrap();
        for part in 0..50 {
            std::fs::write(&path, &whole[..whole.len() * part / 50]).unwrap();
            let error = TorchFile::open(&path).unwrap_err();
            if part > 0 {
                assert!(matches!(error, TorchFileError::Zip { .. }), "{stem} at {part}/50: {error}");
            }
        }
    }
}

#[test]
fn a_file_with_flipped_bytes_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.pt");
    let whole = std::fs::read(golden("views.pt")).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&path, bytes).unwrap();
        let Ok(file) = TorchFile::open(&path) else { continue };
        let names: Vec<String> = file.tensors().map(|(name, ..)| name.to_owned()).collect();
        for name in names {
            drop(file.read(&name));
        }
    }
}
