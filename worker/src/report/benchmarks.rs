//! The page's part for benchmarks of the papers: the run's numbers beside those that are published, how it was asked, and what
//! differs.

use super::page::bars;
use super::plots::{Plot, Series, color, svg};
use crate::eval::benchmarks::result::BenchmarkResult;
use crate::eval::facts::thousands;
use crate::eval::output::percent;
use maud::{Markup, PreEscaped, html};

/// Bars of published rows beside the run's own.
const BARS: usize = 6;

/// One benchmark.
pub(super) fn section(result: &BenchmarkResult) -> Markup {
    let counts = result.counts.named();
    html! {
        section {
            h2 { (result.benchmark.title) }
            p.note {
                "Split " b { (result.split) } " of " code { (result.data) } ": "
                @for (i, (name, n)) in counts.iter().enumerate() {
                    @if i > 0 { ", " } (thousands(*n)) " " (name.replace('_', " "))
                }
                ". Protocol of " (result.benchmark.source) "."
            }
            section.cards { (cards(result)) }
            (numbers(result))
            @if let Some(svg) = history(result) {
                figure { (PreEscaped(svg)) figcaption { "The same of earlier checkpoints of the run, over steps." } }
            }
            div.columns {
                div {
                    h3 { "As it was asked" }
                    table.facts { @for (name, value) in &result.chosen.words { tr { th scope="row" { (name) } td { (value) } } } }
                }
                div {
                    h3 { "What differs from the published rows" }
                    ul.small { @for what in &result.differs { li { (what) } } }
                }
            }
        }
    }
}

/// Bars for the numbers that somebody published; the first number where nobody did.
fn cards(result: &BenchmarkResult) -> Markup {
    let told = |key: &str| result.published.iter().any(|row| row.values.contains_key(key));
    let any = result.scores.iter().any(|score| told(score.key));
    let drawn = result.scores.iter().enumerate().filter(|(i, score)| if any { told(score.key) } else { *i == 0 });
    html! {
        @for (_, score) in drawn {
            article.card {
                h2 { (score.name) }
                p.big { (percent(score.value)) }
                (bars(&rows(result, score.key).iter().map(|(n, v, k)| (n.as_str(), *v, *k)).collect::<Vec<_>>()))
            }
        }
    }
}

/// The run, published rows spread from the least to the most, and chance.
fn rows(result: &BenchmarkResult, key: &str) -> Vec<(String, f64, &'static str)> {
    let score = result.scores.iter().find(|s| s.key == key);
    let mut published: Vec<(String, f64)> = result
        .published
        .iter()
        .filter_map(|row| Some((format!("{} {}", row.method, row.size), *row.values.get(key)?)))
        .collect();
    published.sort_by(|a, b| b.1.total_cmp(&a.1));
    let n = published.len();
    let kept = n.min(BARS);
    let spread = (0..kept).map(|i| if kept > 1 { i * (n - 1) / (kept - 1) } else { 0 });
    let shown = spread.map(|i| (published[i].0.clone(), published[i].1, "box"));
    let own = score.map(|s| ("this run".to_owned(), s.value, "mask"));
    let chance = score.map(|s| ("chance".to_owned(), s.chance, "chance"));
    own.into_iter().chain(shown).chain(chance).collect()
}

/// The run's scores over steps, where it was measured more than once.
fn history(result: &BenchmarkResult) -> Option<String> {
    let series = result.scores.iter().enumerate().map(|(i, score)| Series {
        name: score.key.into(),
        color: color(i + 1),
        points: result
            .history
            .iter()
            .filter_map(|past| Some((past.steps as f64, *past.scores.get(score.key)?)))
            .collect(),
    });
    let series: Vec<Series> = series.collect();
    let drawn = result.history.len() > 1;
    svg(&Plot { y_label: "share", series, from_zero: true }).filter(|_| drawn)
}

fn numbers(result: &BenchmarkResult) -> Markup {
    html! {
        div.scroll { table {
            thead { tr {
                th { "Method" } th { "Vision tower" }
                @for score in &result.scores { th { (score.name) } }
                th { "Trained on" } th { "Source" }
            } }
            tbody {
                tr.lead-row {
                    th scope="row" { "this run" } th {}
                    @for score in &result.scores { td { (percent(score.value)) } }
                    td {} td {}
                }
                @for row in &result.published {
                    tr {
                        th scope="row" { (row.method) } th { (row.size) }
                        @for score in &result.scores { td { (row.values.get(score.key).map_or_else(String::new, |v| percent(*v))) } }
                        td { small { (row.data) } } td { small { (row.source) } }
                    }
                }
                tr.chance {
                    th scope="row" { "chance" } th {}
                    @for score in &result.scores { td { (percent(score.chance)) } }
                    td {} td {}
                }
            }
        } }
    }
}
