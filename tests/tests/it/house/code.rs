//! Source files as syntax trees, for the rules that text cannot tell.

use super::{read, rust_sources};
use std::path::{Path, PathBuf};
use syn::{Attribute, Item};

/// A file and what it says.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) file: syn::File,
}

impl Source {
    /// Whether the whole file is test code: it is called `tests` something, or lies in a folder of tests. The harnesses
    /// in `tests/src` are programs like any other.
    pub(super) fn is_test(&self) -> bool {
        let inner = self.path.strip_prefix("tests").unwrap_or(&self.path);
        let named = inner.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with("tests"));
        named || inner.parent().is_some_and(|folder| folder.iter().any(|part| part == "tests"))
    }
}

/// All of ours.
pub(super) fn all() -> impl Iterator<Item = Source> {
    rust_sources().filter_map(|path| {
        let text = read(&path)?;
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Some(Source { path, file })
    })
}

/// All that are not test code.
pub(super) fn programs() -> impl Iterator<Item = Source> {
    all().filter(|source| !source.is_test())
}

/// Whether an item is only there for tests.
pub(super) fn is_for_tests(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(m) => &m.attrs,
        Item::Fn(f) => &f.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Use(u) => &u.attrs,
        Item::Struct(s) => &s.attrs,
        Item::Enum(e) => &e.attrs,
        _ => return false,
    };
    attributes.iter().any(is_cfg_test)
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}

/// Items of a file that are not only there for tests, those of its inner modules included.
pub(super) fn each_item<'a>(items: &'a [Item], visit: &mut impl FnMut(&'a Item)) {
    for item in items.iter().filter(|item| !is_for_tests(item)) {
        visit(item);
        if let Item::Mod(inner) = item
            && let Some((_, items)) = &inner.content
        {
            each_item(items, visit);
        }
    }
}

/// `path:line`
pub(super) fn spot(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}
