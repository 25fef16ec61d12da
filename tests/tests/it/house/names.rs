//! One word for one thing.

use super::code::{each_item, programs, spot};
use std::collections::BTreeMap;
use syn::{Item, Visibility};

#[test]
fn no_two_public_types_have_one_name() {
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in programs() {
        each_item(&source.file.items, &mut |item| {
            let (visibility, name) = match item {
                Item::Struct(i) => (&i.vis, &i.ident),
                Item::Enum(i) => (&i.vis, &i.ident),
                Item::Union(i) => (&i.vis, &i.ident),
                Item::Trait(i) => (&i.vis, &i.ident),
                Item::Type(i) => (&i.vis, &i.ident),
                _ => return,
            };
            if matches!(visibility, Visibility::Public(_)) {
                let at = spot(&source.path, name.span().start().line);
                types.entry(name.to_string()).or_default().push(at);
            }
        });
    }
    let twice = types.iter().filter(|(_, places)| places.len() > 1);
    let faults: Vec<_> = twice.map(|(name, places)| format!("`{name}`: {}", places.join(", "))).collect();
    assert!(
        faults.is_empty(),
        "give each meaning its own word, and the glossary of ARCHITECTURE.md a line:\n{}",
        faults.join("\n")
    );
}
