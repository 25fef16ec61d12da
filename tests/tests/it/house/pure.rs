//! What keeps `cluster` a function of its inputs: it has no clock, and nothing in it is walked in an order that differs
//! from one process to the next.

use super::code::{is_for_tests, programs, spot};
use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Expr, ExprCall, Item, Macro};

/// Each with its cure.
const BANNED: [(&str, &str); 6] = [
    ("Instant", "take `now: Now` as an argument"),
    ("SystemTime", "take the time as an argument"),
    ("UNIX_EPOCH", "take the time as an argument"),
    ("HashMap", "use BTreeMap: its order is the same everywhere"),
    ("HashSet", "use BTreeSet: its order is the same everywhere"),
    ("RandomState", "draw from `rng`, which is keyed"),
];
const NOW: &str = "take `now: Now` as an argument";

#[derive(Default)]
struct Impure {
    /// Word, cure, line.
    found: Vec<(String, &'static str, usize)>,
}

impl Impure {
    fn look(&mut self, word: &Ident) {
        if let Some((_, cure)) = BANNED.iter().find(|(banned, _)| word == banned) {
            self.found.push((word.to_string(), cure, word.span().start().line));
        }
    }

    /// What a macro is given is no syntax tree yet.
    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Ident(word) => self.look(&word),
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Impure {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_ident(&mut self, word: &'ast Ident) {
        self.look(word);
    }

    fn visit_macro(&mut self, m: &'ast Macro) {
        self.tokens(m.tokens.clone());
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if let Expr::Path(function) = &*call.func
            && let [_, .., last] = &*function.path.segments.iter().collect::<Vec<_>>()
            && last.ident == "now"
        {
            self.found.push(("now()".into(), NOW, last.ident.span().start().line));
        }
        visit::visit_expr_call(self, call);
    }
}

#[test]
fn the_pure_core_has_no_clock_and_no_order_of_its_own() {
    let mut faults = Vec::new();
    for source in programs().filter(|source| source.path.starts_with("cluster/src")) {
        let mut impure = Impure::default();
        impure.visit_file(&source.file);
        for (word, cure, line) in impure.found {
            faults.push(format!("{}: {word}: {cure}", spot(&source.path, line)));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
