//! Name maps as data: a pattern of a file's names, and what becomes of the tensors that bear them.

/// Patterns are tried in order, the first that fits counts. `#` stands for a block's number, `*` at the end for any rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule(pub(super) &'static str, pub(super) Fate);

/// What becomes of a tensor; names are patterns whose `#` and `*` stand for what they stood for in the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has this name in pixfleet.
    As(&'static str),
    /// So, with rows and columns swapped.
    Transposed(&'static str),
    /// Its rows are three tensors of one size: query, key and value.
    Thirds([&'static str; 3]),
    /// It is left out, for this reason.
    Left(&'static str),
}

/// What `#` and `*` stood for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holes<'n> {
    number: &'n str,
    rest: &'n str,
}

/// Whether `name` fits `pattern`.
pub(super) fn fits<'n>(pattern: &str, name: &'n str) -> Option<Holes<'n>> {
    let (head, tail) = pattern.split_once('#').map_or((pattern, None), |(head, tail)| (head, Some(tail)));
    let Some(tail) = tail else { return rest_of(head, name).map(|rest| Holes { number: "", rest }) };
    let after = name.strip_prefix(head)?;
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let (number, after) = after.split_at(digits);
    if number.is_empty() {
        return None;
    }
    rest_of(tail, after).map(|rest| Holes { number, rest })
}

/// What `*` at the end of `pattern` stands for; empty if it has none and is `text`.
fn rest_of<'n>(pattern: &str, text: &'n str) -> Option<&'n str> {
    match pattern.strip_suffix('*') {
        Some(head) => text.strip_prefix(head).filter(|rest| !rest.is_empty()),
        None => (pattern == text).then_some(""),
    }
}

impl Holes<'_> {
    /// The name that `pattern` means.
    pub(super) fn fill(&self, pattern: &str) -> String {
        pattern.replace('#', self.number).replace('*', self.rest)
    }
}

/// `name` with every number between dots as `#`, to tell many blocks' tensors in one line.
pub(super) fn generic(name: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.split('.').map(|part| if number(part) { "#" } else { part }).collect::<Vec<_>>().join(".")
}
