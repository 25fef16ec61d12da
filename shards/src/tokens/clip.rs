//! CLIP's vocabulary as it is built in: `instant-clip-tokenizer` merges, and here is what `CLIPTokenizerFast` does to a
//! text before that.

use super::SPECIAL;
use icu_normalizer::{ComposingNormalizer, ComposingNormalizerBorrowed};
use regex::Regex;

/// Longest stretch of letters, or of signs, that is merged as one word, in bytes. A merge looks through its whole word, so
/// time grows with the square of it; a longer one is no word of any language and is merged in pieces.
const WORD_BYTES: usize = 1024;

const NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizer::new_nfc();

pub(super) struct Bpe {
    merges: instant_clip_tokenizer::Tokenizer,
    stretches: Regex,
}

impl Bpe {
    pub(super) fn new() -> Self {
        let stretches = Regex::new(r"\p{L}+|[^\s\p{L}\p{N}]+").expect("a constant that compiles");
        Self { merges: instant_clip_tokenizer::Tokenizer::new(), stretches }
    }

    /// Appends the ids of `text`, without those of its start and end. Special ids that are written out become what
    /// they name, as in transformers.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut rest = text;
        while let Some((at, (word, id))) = SPECIAL.iter().filter_map(|s| Some((rest.find(s.0)?, *s))).min() {
            self.encode_plain(&rest[..at], ids);
            ids.push(id);
            rest = &rest[at + word.len()..];
        }
        self.encode_plain(rest, ids);
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        let mut text = lower_case(text);
        if text.contains("_of_text>") {
            // Special to the crate, but not to CLIP's vocabulary; `<` ends a word here anyway.
            text = text.replace("<start_of_text>", "< start_of_text>").replace("<end_of_text>", "< end_of_text>");
        }
        if text.split(char::is_whitespace).any(|part| part.len() > WORD_BYTES) {
            text = self.broken(&text);
        }
        let mut found = Vec::new();
        self.merges.encode(&text, &mut found);
        ids.extend(found.into_iter().map(|token| u32::from(token.to_u16())));
    }

    /// `text` with a space wherever a stretch reaches [`WORD_BYTES`].
    fn broken(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / WORD_BYTES * 2);
        let mut from = 0;
        for stretch in self.stretches.find_iter(text).filter(|s| s.len() > WORD_BYTES) {
            out.push_str(&text[from..stretch.start()]);
            let mut bytes = 0;
            for c in stretch.as_str().chars() {
                bytes += c.len_utf8();
                if bytes > WORD_BYTES {
                    out.push(' ');
                    bytes = c.len_utf8();
                }
                out.push(c);
            }
            from = stretch.end();
        }
        out.push_str(&text[from..]);
        out
    }
}

/// NFC, then lower case letter by letter: a sigma at the end of a word is like any other, as in transformers.
fn lower_case(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    NFC.normalize(text).chars().flat_map(char::to_lowercase).collect()
}
