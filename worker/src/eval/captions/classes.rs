//! Zero-shot classification of boxes (method.md 5.1): a region's feature against a text feature per category, which is the
//! mean of the unit features of some prompts, made unit again. Micro top-1 and top-5 over all boxes.

use super::features::SplitFeatures;
use crate::eval::features::rows_of;
use crate::eval::retrieve::AnswerRank;
use crate::eval::templates::Templates;
use crate::train::inputs::text_items;
use anyhow::{Context, Result, bail};
use pixfleet_cluster::spec::terms::Set;
use pixfleet_model::{Compute, Model, l2_normalize};
use pixfleet_shards::batch::BatchTexts;
use pixfleet_shards::sample::{SampleConfig, TextSource};
use std::collections::BTreeSet;
use tch::{IndexOp, Tensor};

/// Prompts that are encoded together.
const TEXTS_AT_ONCE: usize = 640;
/// Boxes whose similarities are held at once.
const BOXES_AT_ONCE: i64 = 1024;

/// How often a box's own category is among the most similar ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BoxScore {
    /// The prompts, by name.
    pub(crate) templates: String,
    /// Boxes that have a category.
    pub(crate) boxes: usize,
    /// Categories of the split.
    pub(crate) classes: usize,
    /// Share of boxes whose category is the most similar; ties count as their share.
    pub(crate) top1: f64,
    /// Share of boxes whose category is among the first five.
    pub(crate) top5: f64,
}

/// Classifies every box of the split that has a category, with each set of prompts; nothing where none has.
///
/// # Errors
/// Prompts that the model cannot read.
pub(crate) fn classify(
    split: &SplitFeatures,
    (model, config): (&Model, &SampleConfig),
    templates: &[Templates],
) -> Result<Vec<BoxScore>> {
    let named = split.regions.iter().enumerate().filter_map(|(i, r)| Some((i, r.category.as_deref()?)));
    let (boxes, categories): (Vec<usize>, Vec<&str>) = named.unzip();
    let classes: Vec<&str> = categories.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    if classes.len() < 2 {
        return Ok(Vec::new());
    }
    let own: Vec<usize> = categories.iter().filter_map(|c| classes.binary_search(c).ok()).collect();
    let regions = split.region.pick(&boxes);
    let score = |templates: &Templates| {
        let texts = class_features((model, config), &classes, templates)?;
        score(templates.name(), &regions, &texts, &own)
    };
    templates.iter().map(score).collect()
}

/// [classes, D] on the host.
fn class_features((model, config): (&Model, &SampleConfig), classes: &[&str], templates: &Templates) -> Result<Tensor> {
    let TextSource::Tokens(tokenizer) = &config.texts else {
        bail!("categories are read as token ids; this model's text tower takes stored vectors");
    };
    let (prompts, most) = (templates.len(), config.data.short_tokens as usize);
    let w = model.params.weights(Compute::FP32);
    let mut means = Vec::new();
    for classes in classes.chunks((TEXTS_AT_ONCE / prompts).max(1)) {
        let mut ids = Vec::with_capacity(classes.len() * prompts);
        for class in classes {
            for text in templates.fill(&class.replace('_', " ")) {
                ids.push(tokenizer.encode(&text, most).with_context(|| format!("category `{class}`"))?.ids);
            }
        }
        means.push(tch::no_grad(|| -> Result<Tensor> {
            let texts = text_items(&BatchTexts::Tokens(ids), model.params.device())?;
            let features = model.text().forward(&w, Set::RegionText, &texts)?;
            let d = features.size2()?.1;
            let each = features.f_reshape([classes.len() as i64, prompts as i64, d])?;
            Ok(l2_normalize(&each.f_mean_dim(1, false, None)?).to_device(tch::Device::Cpu))
        })?);
    }
    Ok(Tensor::f_cat(&means, 0)?)
}

/// `own`: the number of each box's category.
fn score(templates: &str, regions: &Tensor, classes: &Tensor, own: &[usize]) -> Result<BoxScore> {
    let (n, count) = (own.len(), classes.size2()?.0 as usize);
    let mut ranks = Vec::with_capacity(n);
    for from in (0..n as i64).step_by(BOXES_AT_ONCE as usize) {
        let block = regions.i(from..(from + BOXES_AT_ONCE).min(n as i64));
        let sims = rows_of(&block.f_matmul(&classes.tr())?)?;
        ranks.extend(sims.iter().zip(&own[from as usize..]).map(|(row, &own)| AnswerRank::of(row, own)));
    }
    let top = |k| ranks.iter().map(|r| r.hit(k)).sum::<f64>() / n.max(1) as f64;
    Ok(BoxScore { templates: templates.into(), boxes: n, classes: count, top1: top(1), top5: top(5) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_counted_one_by_one_and_ties_as_their_share() {
        let classes = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0, 0.6, 0.8]).reshape([3, 2]);
        // At class 0; nearer to class 2 than to its own class 1; between all.
        let regions = Tensor::from_slice(&[1.0f32, 0.0, 0.8, 0.6, 0.0, 0.0]).reshape([3, 2]);
        let found = score("plain", &regions, &classes, &[0, 1, 2]).expect("scores");
        assert_eq!((found.boxes, found.classes, found.top5), (3, 3, 1.0));
        assert!((found.top1 - (1.0 + 0.0 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
    }
}
