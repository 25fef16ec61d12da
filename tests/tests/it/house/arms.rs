//! No wildcard arm over an enum of ours: who adds a variant is to be told by the compiler where it matters.

use super::code::{Source, each_item, is_for_tests, programs, spot};
use std::collections::{BTreeMap, BTreeSet};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{ExprMatch, Item, ItemImpl, Pat, Path, Type};

/// Variants by enum.
type Enums = BTreeMap<String, BTreeSet<String>>;

fn enums(sources: &[Source]) -> Enums {
    let mut enums = Enums::new();
    for source in sources {
        each_item(&source.file.items, &mut |item| {
            if let Item::Enum(e) = item {
                let variants = e.variants.iter().map(|v| v.ident.to_string());
                enums.entry(e.ident.to_string()).or_default().extend(variants);
            }
        });
    }
    enums
}

/// The last word of a type's path.
fn name_of(of: &Type) -> Option<String> {
    match of {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    }
}

/// Which enum of ours a pattern names a variant of.
struct Named<'a> {
    enums: &'a Enums,
    /// What `Self` is.
    own: Option<&'a str>,
    found: Option<String>,
}

impl<'ast> Visit<'ast> for Named<'_> {
    fn visit_path(&mut self, path: &'ast Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let [.., of, variant] = &words[..] {
            let of = if of == "Self" { self.own.unwrap_or_default() } else { of };
            if self.enums.get(of).is_some_and(|variants| variants.contains(variant)) {
                self.found = Some(of.to_string());
            }
        }
    }
}

struct Wild<'a> {
    enums: &'a Enums,
    own: Option<String>,
    /// The enum, and the wildcard's line.
    found: Vec<(String, usize)>,
}

impl<'ast> Visit<'ast> for Wild<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_impl(&mut self, block: &'ast ItemImpl) {
        let outer = std::mem::replace(&mut self.own, name_of(&block.self_ty));
        visit::visit_item_impl(self, block);
        self.own = outer;
    }

    fn visit_expr_match(&mut self, expression: &'ast ExprMatch) {
        let mut named = Named { enums: self.enums, own: self.own.as_deref(), found: None };
        for arm in &expression.arms {
            named.visit_pat(&arm.pat);
        }
        let wild = expression.arms.iter().find(|arm| matches!(arm.pat, Pat::Wild(_)) && arm.guard.is_none());
        if let (Some(of), Some(wild)) = (named.found, wild) {
            self.found.push((of, wild.pat.span().start().line));
        }
        visit::visit_expr_match(self, expression);
    }
}

#[test]
fn no_wildcard_arm_stands_for_a_variant_of_ours() {
    let sources: Vec<Source> = programs().collect();
    let enums = enums(&sources);
    let mut faults = Vec::new();
    for source in &sources {
        let mut wild = Wild { enums: &enums, own: None, found: Vec::new() };
        wild.visit_file(&source.file);
        for (of, line) in wild.found {
            let at = spot(&source.path, line);
            faults.push(format!(
                "{at}: `_` stands for variants of `{of}`; name them, so that a new one is not forgotten"
            ));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
