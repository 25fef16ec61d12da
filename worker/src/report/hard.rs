//! The page's part for FG-CLIP: numbers of one or two runs beside chance, and the gallery of hard negatives.

use super::page::{bars, times};
use super::{CaptionFindings, Measures};
use crate::eval::output::percent;
use maud::{Markup, html};
use pixfleet_shards::HardNegKind;

/// A region that had to choose its true text among hard negatives.
#[derive(Debug, Clone)]
pub(crate) struct HardQuery {
    /// The picture with the region's box, as a data URI.
    pub(crate) picture: String,
    /// The true text.
    pub(crate) truth: String,
    /// Cosine of the region to it.
    pub(crate) similarity: f32,
    /// Its rank among all, 1 for the best.
    pub(crate) rank: f64,
    /// Negatives that the model preferred, best first; where it was right, those that came nearest.
    pub(crate) texts: Vec<HardText>,
    /// What the runs beside chose.
    pub(crate) others: Vec<OtherChoice>,
}

/// A hard negative.
#[derive(Debug, Clone)]
pub(crate) struct HardText {
    /// The text.
    pub(crate) text: String,
    /// What it changes, if that is known.
    pub(crate) kind: Option<HardNegKind>,
    /// Cosine of the region to it.
    pub(crate) similarity: f32,
}

/// What another run made of the same region.
#[derive(Debug, Clone)]
pub(crate) struct OtherChoice {
    /// The run.
    pub(crate) run: String,
    /// Rank of the true text.
    pub(crate) rank: f64,
    /// The text that it held most similar.
    pub(crate) chosen: String,
}

/// The numbers that a card shows, each with its heading and what it is a share of.
const CARDS: [(&str, &str, &str); 4] = [
    (
        "hard_choice",
        "Tell the true text from ten that are almost right",
        "of regions are most similar to their own text among eleven, ten of which have one thing changed.",
    ),
    (
        "long_text_to_image_r10",
        "Find a picture by its long caption",
        "of long captions have their own picture among the first ten of the split.",
    ),
    (
        "in_image_region",
        "Pick the right region in its picture",
        "of expressions are most similar to their own region out of those in the same picture.",
    ),
    (
        "box_top1_plain",
        "Name what is in a box",
        "of boxes are most similar to their own category, put into the words \u{201c}a photo of a ...\u{201d}.",
    ),
];

/// Cards with what matters most.
pub(super) fn cards(findings: &CaptionFindings) -> Markup {
    let Some((_, main)) = findings.runs.last() else {
        return html! {};
    };
    html! {
        section.cards {
            @for (key, heading, meaning) in CARDS {
                @if let Some(found) = main.get(key) {
                    article.card {
                        h2 { (heading) }
                        p.big { (percent(found.value)) }
                        p.small {
                            (meaning) " Chance: " (percent(found.chance.1)) ", so "
                            b { (times(found.value, found.chance.1)) } " better."
                        }
                        (bars(&rows(findings, key, found.chance.1)))
                    }
                }
            }
        }
    }
}

/// A bar per run, the one that is evaluated first, and one for chance.
fn rows<'f>(findings: &'f CaptionFindings, key: &str, chance: f64) -> Vec<(&'f str, f64, &'static str)> {
    let kinds = ["mask", "box"].into_iter().chain(std::iter::repeat("full"));
    let runs = findings.runs.iter().rev().zip(kinds);
    let mut rows: Vec<_> =
        runs.filter_map(|((run, measures), kind)| Some((run.as_str(), measures.get(key)?.value, kind))).collect();
    rows.push(("chance", chance, "chance"));
    rows
}

/// Everything that was measured.
pub(super) fn numbers(findings: &CaptionFindings) -> Markup {
    let Some((_, main)) = findings.runs.last() else {
        return html! {};
    };
    html! {
        section {
            h2 { "All numbers" }
            p.note {
                "R@k: share of queries whose own answer is among the first k. Ties count as their share. Regions are pooled by their "
                "boxes from the picture's map. Hard negatives by kind: the true text against those that change this one thing. "
                "Categories: the mean feature of one prompt or of OpenAI's 80; shares of all boxes."
            }
            div.scroll { table {
                thead { tr {
                    th { "Task" } th { "Measure" }
                    @for (run, _) in &findings.runs { th { (run) } }
                    th { "Chance" }
                } }
                @for task in main.all.chunk_by(|a, b| a.task == b.task) {
                    tbody {
                        @for (i, measure) in task.iter().enumerate() {
                            tr.lead-row[i == 0] {
                                @if i == 0 { th rowspan=(task.len()) scope="rowgroup" { (measure.task) } }
                                th scope="row" { (measure.name) }
                                @for (_, measures) in &findings.runs { td { (cell(measures, &measure.key)) } }
                                td { (percent(measure.chance.1)) }
                            }
                        }
                    }
                }
            } }
        }
    }
}

fn cell(measures: &Measures, key: &str) -> String {
    measures.get(key).map_or_else(String::new, |m| percent(m.value))
}

/// Regions with their true text and what the model preferred.
pub(super) fn gallery(queries: &[HardQuery]) -> Markup {
    html! {
        @if !queries.is_empty() {
            section.gallery {
                h2 { "Texts that are almost right" }
                p.note {
                    "Each region with its true text (" span.right-ink { "green" } ") and the negatives that the model held at least as "
                    "true (" span.other-ink { "amber" } "), best first; where it was right, those that came nearest. Numbers are cosines. "
                    "Regions are spread evenly over the split, most of them wrong ones; none is chosen by hand."
                }
                div.choices { @for query in queries { (choice(query)) } }
            }
        }
    }
}

fn choice(query: &HardQuery) -> Markup {
    let right = query.rank <= 1.0;
    html! {
        article.choice {
            figure.panel.right[right] { img src=(query.picture) alt=(query.truth) loading="lazy"; }
            div {
                p.rank.good[right].bad[!right] { @if right { "right" } @else { "true text: rank " (format!("{:.0}", query.rank)) " of eleven" } }
                ul.texts {
                    li.right-ink { span.cos { (format!("{:.3}", query.similarity)) } " " (query.truth) }
                    @for text in &query.texts {
                        li.other-ink[!right] {
                            span.cos { (format!("{:.3}", text.similarity)) } " " (text.text)
                            @if let Some(kind) = text.kind { " " small { "another " (kind.name()) } }
                        }
                    }
                }
                @for other in &query.others {
                    p.small { (other.run) ": rank " (format!("{:.0}", other.rank)) ", chose \u{201c}" (other.chosen) "\u{201d}" }
                }
            }
        }
    }
}
