//! How long a function may be.

use super::code::{all, spot};
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, Signature};

/// A screen.
const LINES_MAX: usize = 70;

#[derive(Default)]
struct Long {
    /// Name, first line, number of lines.
    found: Vec<(String, usize, usize)>,
}

impl Long {
    fn measure(&mut self, signature: &Signature, block: &Block) {
        let line = |span: Span| span.start().line;
        let (first, last) = (line(signature.span()), block.span().end().line);
        let lines = last + 1 - first;
        if lines > LINES_MAX {
            self.found.push((signature.ident.to_string(), first, lines));
        }
    }
}

impl<'ast> Visit<'ast> for Long {
    fn visit_item_fn(&mut self, f: &'ast syn::ItemFn) {
        self.measure(&f.sig, &f.block);
        visit::visit_item_fn(self, f);
    }

    fn visit_impl_item_fn(&mut self, f: &'ast syn::ImplItemFn) {
        self.measure(&f.sig, &f.block);
        visit::visit_impl_item_fn(self, f);
    }

    fn visit_trait_item_fn(&mut self, f: &'ast syn::TraitItemFn) {
        if let Some(block) = &f.default {
            self.measure(&f.sig, block);
        }
        visit::visit_trait_item_fn(self, f);
    }
}

#[test]
fn a_function_fits_on_a_screen() {
    let mut faults = Vec::new();
    for source in all() {
        let mut long = Long::default();
        long.visit_file(&source.file);
        for (name, first, lines) in long.found {
            let at = spot(&source.path, first);
            faults.push(format!("{at}: `{name}` has {lines} lines; split it by purpose, {LINES_MAX} at most"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
