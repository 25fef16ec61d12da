//! The gallery of hard negatives: chosen regions, their pictures read again with the box drawn, the true text, and the
//! texts that the model preferred.

use super::MeasuredRun;
use super::features::{RegionPlace, SplitFeatures};
use super::hard::Choice;
use crate::eval::retrieve::AnswerRank;
use crate::eval::show::Pictures;
use crate::report::gallery::{self, spread};
use crate::report::hard::{HardQuery, HardText, OtherChoice};
use anyhow::{Context, Result, anyhow};
use pixfleet_shards::pixels::Mask;
use pixfleet_shards::row::Region;

/// Texts shown that a model preferred to the true one.
const PREFERRED: usize = 4;
/// Texts shown of a region that was right: those that came nearest.
const NEAREST: usize = 2;

/// `count` regions of the last run's split, one in five of them right, spread over the split; none is chosen by hand.
///
/// # Errors
/// If a picture cannot be read again.
pub(super) async fn gallery(runs: &[MeasuredRun], count: usize) -> Result<Vec<HardQuery>> {
    let Some((main, others)) = runs.split_last() else {
        return Ok(Vec::new());
    };
    let chosen = choose(&main.split, count);
    let mut pictures = Pictures::new(&main.subject.reader);
    let mut queries = Vec::with_capacity(chosen.len());
    for (region, choice) in chosen {
        let image = &main.split.images[region.image];
        let (row, picture) = pictures.row(image.at, &image.image_id).await?;
        let source = row.regions.get(region.index as usize);
        let source = source.with_context(|| format!("{}: the row has changed", image.image_id))?;
        let (width, height) = picture.dimensions();
        let inside: Vec<bool> = Mask::from_box(width, height, source.bbox).data.iter().map(|&m| m >= 128).collect();
        let right = choice.rank().above == 0;
        let uri = gallery::draw(picture, &gallery::Region { mask: &inside, bbox: source.bbox, right })
            .ok_or_else(|| anyhow!("{}: cannot draw a region", image.image_id))?;
        let others = others.iter().filter_map(|run| other(run, (&main.split, region), source));
        queries.push(query((source, choice), uri, others.collect()));
    }
    Ok(queries)
}

/// Wrong ones first, those that are nearly right before the others.
fn choose(split: &SplitFeatures, count: usize) -> Vec<(&RegionPlace, &Choice)> {
    let all: Vec<_> = split.regions.iter().filter_map(|r| Some((r, r.choice.as_ref()?))).collect();
    let ranks: Vec<AnswerRank> = all.iter().map(|(_, choice)| choice.rank()).collect();
    let right = count / 5;
    let wrong = count - right;
    let mut chosen = spread(&ranks, |r| (1..4).contains(&r.above), wrong.div_ceil(2));
    chosen.extend(spread(&ranks, |r| r.above >= 4, wrong / 2));
    chosen.extend(spread(&ranks, |r| r.above == 0, right));
    chosen.into_iter().map(|i| all[i]).collect()
}

fn query((source, choice): (&Region, &Choice), picture: String, others: Vec<OtherChoice>) -> HardQuery {
    let preferred = choice.preferred();
    let shown: Vec<usize> = if preferred.is_empty() {
        choice.by_similarity().into_iter().take(NEAREST).collect()
    } else {
        preferred.iter().copied().take(PREFERRED).collect()
    };
    let text = |k: usize| HardText {
        text: source.hard_negs.get(k).cloned().unwrap_or_default(),
        kind: choice.kinds.get(k).copied(),
        similarity: choice.sims[k + 1],
    };
    HardQuery {
        picture,
        truth: source.short_expr.clone().unwrap_or_default(),
        similarity: choice.sims[0],
        rank: choice.rank().rank(),
        texts: shown.into_iter().map(text).collect(),
        others,
    }
}

/// What another run chose for the same region; `None` where it left the row out.
fn other(run: &MeasuredRun, (split, region): (&SplitFeatures, &RegionPlace), source: &Region) -> Option<OtherChoice> {
    let at = split.images[region.image].at;
    let same = |r: &&RegionPlace| r.index == region.index && run.split.images[r.image].at == at;
    let choice = run.split.regions.iter().find(same)?.choice.as_ref()?;
    let best = choice.preferred().first().copied();
    let chosen = best.map_or(source.short_expr.as_ref(), |k| source.hard_negs.get(k))?;
    Some(OtherChoice { run: run.label.clone(), rank: choice.rank().rank(), chosen: chosen.clone() })
}
