//! Bounds, refusals, and what is counted.

use super::*;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A `tokenizer.json` of a few words with CLIP's special ids; `change` makes it another.
fn file(change: impl FnOnce(&mut serde_json::Value)) -> (TempDir, PathBuf) {
    let special = |id: u32, content: &str| {
        serde_json::json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let mut json = serde_json::json!({
        "version": "1.0",
        // Both are undone: a text is cut by its caller and padded by its batch.
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "<|endoftext|>"},
        "added_tokens": [special(START, SPECIAL[0].0), special(END, SPECIAL[1].0)],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": SPECIAL[1].0, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab</w>": 4, SPECIAL[0].0: START, SPECIAL[1].0: END},
            "merges": [["a", "b</w>"]],
        },
    });
    change(&mut json);
    let folder = tempfile::tempdir().expect("temporary");
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).expect("a writable folder");
    (folder, path)
}

fn open(path: &Path) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::open(path.to_str().expect("ASCII"))
}

/// The message of what is refused, without the path.
fn refused(path: &Path) -> String {
    let error = open(path).expect_err("not CLIP's");
    let said = error.to_string();
    let head = format!("tokenizer `{}`: ", path.display());
    said.strip_prefix(&head).unwrap_or_else(|| panic!("does not name the file: {said}")).to_owned()
}

#[test]
fn a_tokenizer_is_opened_from_a_file() {
    let (_folder, path) = file(|_| ());
    let tokenizer = open(&path).expect("a tokenizer");
    assert!(tokenizer.key().starts_with("tokenizer-"), "{}", tokenizer.key());
    let tokens = tokenizer.encode("AB b ab a", 77).expect("tokenizes");
    assert_eq!(tokens, Tokens { ids: vec![START, 4, 3, 4, 2, END], cut: false, length: 6 });
    let tokens = tokenizer.encode("AB b ab a", 4).expect("tokenizes");
    assert_eq!(tokens, Tokens { ids: vec![START, 4, 3, END], cut: true, length: 6 });
}

#[test]
fn an_unknown_name_is_refused() {
    assert_eq!(
        refused(Path::new("clipp")),
        "No such file or directory (os error 2); expected `clip`, which is built in, or the path of a tokenizer.json"
    );
}

#[test]
fn a_file_that_is_no_tokenizer_is_refused() {
    let (_folder, path) = file(|json| *json = serde_json::json!({"a</w>": 320}));
    let said = refused(&path);
    assert!(said.starts_with("not a tokenizer.json (") && said.contains("vocab.json and merges.txt"), "{said}");
    std::fs::File::create(&path).and_then(|f| f.set_len(65 << 20)).expect("a sparse file");
    assert!(refused(&path).starts_with("68157440 bytes exceed the limit of 67108864"));
}

#[test]
fn a_vocabulary_that_is_not_clips_is_refused() {
    let (_folder, path) = file(|json| {
        json["added_tokens"] = serde_json::json!([]);
        json["model"]["vocab"][SPECIAL[0].0] = 5.into();
    });
    let said = refused(&path);
    assert!(said.starts_with("`<|startoftext|>` has id 5, expected id 49406: this is not CLIP's vocabulary"), "{said}");
    let (_folder, path) = file(|json| {
        json["added_tokens"] = serde_json::json!([]);
        json["model"]["unk_token"] = serde_json::Value::Null;
        json["model"]["vocab"] = serde_json::json!({"a": 0, "b</w>": 1, "ab</w>": 2});
    });
    let said = refused(&path);
    assert!(said.starts_with("`<|startoftext|>` is not in it, expected id 49406"), "{said}");
    let (_folder, path) = file(|json| json["model"]["vocab"]["c"] = 49_408.into());
    let said = refused(&path);
    assert!(said.starts_with("ids up to 49408, expected less than 49408"), "{said}");
}

#[test]
fn merges_that_are_dropped_at_random_are_refused() {
    let (_folder, path) = file(|json| json["model"]["dropout"] = 0.5.into());
    let said = refused(&path);
    assert!(said.starts_with("drops merges at random (model.dropout = 0.5)"), "{said}");
}

#[test]
fn a_long_stretch_takes_linear_time_and_a_long_text_is_refused() {
    let clip = Tokenizer::open(CLIP).expect("built in");
    let alphabet: Vec<char> = ('a'..='z').chain('à'..='ö').collect();
    let word: String =
        (0..100_000u64).map(|i| alphabet[pixfleet_cluster::rng::mix(i) as usize % alphabet.len()]).collect();
    let start = Instant::now();
    let tokens = clip.encode(&word, SHORT_TOKENS).expect("within the bound");
    // Merged as one word it would take hours.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(tokens.cut && tokens.length > 20_000, "{}", tokens.length);
    let error = clip.encode(&"a ".repeat(TEXT_BYTES_MAX), SHORT_TOKENS).expect_err("too long");
    assert_eq!(error.to_string(), "524288 bytes exceed the limit of 262144 for a text; shorten it or drop the row");
}

#[test]
fn prose_without_white_space_is_not_broken_where_its_words_are_short() {
    let clip = Tokenizer::open(CLIP).expect("built in");
    let sentence = "一只黑猫坐在红色的椅子上，旁边有两本书。";
    let one = clip.encode(sentence, usize::MAX).expect("tokenizes");
    let many = clip.encode(&sentence.repeat(40), usize::MAX).expect("tokenizes");
    let expected: Vec<u32> = one.ids[1..one.length - 1].repeat(40);
    assert_eq!(many.ids[1..many.length - 1], expected);
}

#[test]
fn cuts_are_counted_merged_and_told() {
    let clip = Tokenizer::open(CLIP).expect("built in");
    let encode = |text: &str, most| clip.encode(text, most).expect("tokenizes");
    let (short, long) = ("a red fox", "a very ".repeat(1000) + "red fox");
    let (mut one, mut other) = (Cuts::default(), Cuts::default());
    for _ in 0..4084 {
        one.note(TextField::CaptionLong, &encode(short, LONG_TOKENS));
    }
    one.note(TextField::HardNegs, &encode(short, SHORT_TOKENS));
    assert!(one.is_empty());
    assert_eq!(one.to_string(), "no text was cut");
    for _ in 0..12 {
        other.note(TextField::CaptionLong, &encode(&long, LONG_TOKENS));
    }
    one.merge(&other);
    assert!(!one.is_empty());
    assert_eq!(one.of(TextField::CaptionLong), (4096, 12));
    assert_eq!(one.to_string(), "12 of 4,096 long captions were cut at 248 tokens");
    one.note(TextField::HardNegs, &encode(&long, SHORT_TOKENS));
    assert_eq!(one.to_string(), "12 of 4,096 long captions were cut at 248 tokens, 1 of 2 hard negatives at 77 tokens");
}
