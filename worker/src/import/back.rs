//! The tables of OpenAI's names read the other way round: pixfleet's CLIP towers as OpenAI's and AlphaCLIP's code reads
//! them.

use super::openai;
use super::rule::{Fate, Holes, fits};
use anyhow::{Result, anyhow, bail};
use std::collections::BTreeMap;
use tch::Tensor;

/// The parameters of a CLIP model under OpenAI's names.
///
/// # Errors
/// If a parameter has no name there: EVA02's, and what FG-CLIP adds.
pub(crate) fn openai_names(params: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let mut named = BTreeMap::new();
    for (name, tensor) in params {
        let Some((from, fate, holes)) = rule_of(name) else {
            bail!("`{name}` has no name in OpenAI's CLIP; expected a CLIP model with or without an alpha convolution");
        };
        let tensor = match fate {
            Fate::As(_) => tensor.shallow_clone(),
            Fate::Transposed(_) => tensor.tr(),
            Fate::Thirds(thirds) => {
                let part = |third: &str| {
                    let name = holes.fill(third);
                    params.get(&name).ok_or_else(|| anyhow!("the model has no `{name}`"))
                };
                Tensor::cat(&thirds.into_iter().map(part).collect::<Result<Vec<_>>>()?, 0)
            }
            Fate::Left(_) => continue,
        };
        named.insert(holes.fill(from), tensor);
    }
    Ok(named)
}

/// The rule that gives `name`, and what `#` and `*` stand for.
fn rule_of(name: &str) -> Option<(&'static str, Fate, Holes<'_>)> {
    [openai::VISUAL, openai::TEXT].into_iter().flatten().find_map(|rule| {
        let holes = rule.1.parts().into_iter().find_map(|(pattern, _)| fits(pattern, name))?;
        Some((rule.0, rule.1, holes))
    })
}
