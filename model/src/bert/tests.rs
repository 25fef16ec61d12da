//! What can be told without the weights; the encoder itself is held by `tests/minilm.rs` against transformers.

use std::path::Path;

use tch::Device;

use super::MiniLm;

#[test]
fn a_missing_folder_says_what_to_run() {
    let error = MiniLm::load(Path::new("/nowhere/minilm"), Device::Cpu).expect_err("there is no such folder");
    assert_eq!(
        error.to_string(),
        "/nowhere/minilm/config.json is missing: `scripts/fetch-minilm.sh /nowhere/minilm` fetches the text encoder"
    );
}
