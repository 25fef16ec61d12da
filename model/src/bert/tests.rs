//! What can be told without the weights; the encoder itself is held by `tests/minilm.rs` against transformers.

use std::path::Path;

use tch::Device;

use super::{BATCH_TOKENS, MiniLm, batch_length};

#[test]
fn a_missing_folder_says_what_to_run() {
    let error = MiniLm::load(Path::new("/nowhere/minilm"), Device::Cpu).expect_err("there is no such folder");
    assert_eq!(
        error.to_string(),
        "/nowhere/minilm/config.json is missing: `scripts/fetch-minilm.sh /nowhere/minilm` fetches the text encoder"
    );
}

#[test]
fn batches_hold_the_token_budget_and_every_text() {
    let tokens: Vec<Vec<i64>> = (0..3000).map(|i| vec![0; 3 + i / 12]).collect();
    let order: Vec<usize> = (0..tokens.len()).collect();
    let mut rest = order.as_slice();
    let mut seen = 0;
    while !rest.is_empty() {
        let n = batch_length(rest, &tokens);
        let longest = tokens[rest[n - 1]].len();
        assert!(n == 1 || n * longest <= BATCH_TOKENS, "{n} texts of {longest}");
        seen += n;
        rest = &rest[n..];
    }
    assert_eq!(seen, tokens.len());
    let huge = vec![vec![0i64; BATCH_TOKENS + 1]];
    assert_eq!(batch_length(&[0], &huge), 1);
}
