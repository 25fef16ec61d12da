//! The report as one HTML page: everything inline, light and dark, readable by someone who never heard of the run.

use super::gallery::{Panel, Query};
use super::plots;
use super::{EvalReport, Findings, RunFacts, benchmarks, hard};
use crate::eval::output::percent;
use crate::eval::scores::{Evaluated, TextKind};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The whole page.
pub(crate) fn page(report: &EvalReport) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (report.title) " · pixfleet report" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                main {
                    (header(report))
                    @match &report.findings {
                        Findings::Masks { results, galleries } => {
                            (headline(results))
                            (numbers(results))
                            (curves(report))
                            @for gallery in galleries { (queries(gallery.text, &gallery.queries)) }
                        }
                        Findings::Benchmarks(results) => {
                            @for result in results { (benchmarks::section(result)) }
                            (curves(report))
                        }
                        Findings::Captions(findings) => {
                            (hard::cards(findings))
                            (hard::numbers(findings))
                            (curves(report))
                            (hard::gallery(&findings.gallery))
                        }
                    }
                    (made(&report.facts))
                    footer { "Written by pixfleet " (env!("CARGO_PKG_VERSION")) ". Everything on this page is in this one file; the numbers are also in " code { "report.json" } "." }
                }
            }
        }
    }
    .into_string()
}

fn header(report: &EvalReport) -> Markup {
    html! {
        header {
            p.kicker { "pixfleet · evaluation report" }
            h1 { (report.title) }
            p.lead { (report.lead) }
            ul.chips { @for (name, value) in &report.facts.chips { li { b { (value) } " " (name) } } }
        }
    }
}

fn headline(results: &[Evaluated]) -> Markup {
    html! {
        section.cards {
            @for r in results {
                @let found = r.mask.text_to_region.r10;
                article.card {
                    h2 { "Find a region by its " (r.text.word()) " text" }
                    p.big { (percent(found)) }
                    p.small {
                        "of " (r.regions) " texts have their region among the first ten of all " (r.regions) ". Chance: "
                        (percent(r.chance.r10)) ", so " b { (times(found, r.chance.r10)) } " better."
                    }
                    (bars(&[("by the text", found, "mask"), ("chance", r.chance.r10, "chance")]))
                }
                article.card {
                    h2 { "Pick the right region in its image, " (r.text.word()) " text" }
                    p.big { (percent(r.in_image_mask())) }
                    p.small {
                        "of texts pick their own region out of those in the same picture, when each is shown by its mask. "
                        "Without any mask the model cannot tell them apart."
                    }
                    (bars(&[
                        ("mask", r.mask.in_image, "mask"),
                        ("box", r.boxed.in_image, "box"),
                        ("no region", r.full.in_image, "full"),
                        ("chance", r.chance_in_image, "chance"),
                    ]))
                }
            }
        }
    }
}

pub(super) fn times(value: f64, chance: f64) -> String {
    if chance > 0.0 { format!("{:.0} times", value / chance) } else { "not comparably".into() }
}

pub(super) fn bars(rows: &[(&str, f64, &str)]) -> Markup {
    html! {
        div.bars {
            @for (name, value, kind) in rows {
                span.name { (name) }
                span.track { span class={ "fill " (kind) } style={ "width:" (format!("{:.2}", value.clamp(0.0, 1.0) * 100.0)) "%" } {} }
                span.value { (percent(*value)) }
            }
        }
    }
}

fn numbers(results: &[Evaluated]) -> Markup {
    html! {
        section {
            h2 { "All numbers" }
            p.note {
                "R@k: share of queries whose own answer is among the first k. In image: share of texts that pick their own region "
                "among those of its picture (pictures with at least two). Ties count as their share. Each region is shown to the model by its "
                b { "mask" } ", by its " b { "box" } " filled as if it were the mask, or " b { "not at all" } " (an all-ones mask)."
            }
            div.scroll { table {
                thead {
                    tr { th rowspan="2" { "Texts" } th rowspan="2" { "Region shown by" } th colspan="3" { "text → region" } th colspan="3" { "region → text" } th rowspan="2" { "In image" } }
                    tr { @for _ in 0..2 { @for k in [1, 5, 10] { th { "R@" (k) } } } }
                }
                @for r in results {
                    tbody {
                        @for (i, (mode, s)) in r.modes().into_iter().enumerate() {
                            (row(r, i, if mode == "full" { "nothing (all ones)" } else { mode }, &[
                                s.text_to_region.r1, s.text_to_region.r5, s.text_to_region.r10,
                                s.region_to_text.r1, s.region_to_text.r5, s.region_to_text.r10, s.in_image,
                            ]))
                        }
                        @let c = r.chance;
                        (row(r, 3, "chance", &[c.r1, c.r5, c.r10, c.r1, c.r5, c.r10, r.chance_in_image]))
                    }
                }
            } }
        }
    }
}

fn row(result: &Evaluated, i: usize, shown: &str, values: &[f64]) -> Markup {
    html! {
        tr.chance[shown == "chance"].lead-row[i == 0] {
            @if i == 0 { th rowspan="4" scope="rowgroup" { (result.text.word()) br; small { (result.regions) " regions" br; (result.images) " pictures" } } }
            th scope="row" { (shown) }
            @for v in values { td { (percent(*v)) } }
        }
    }
}

fn curves(report: &EvalReport) -> Markup {
    let losses: Vec<_> = report.losses.iter().filter_map(|c| Some((c.run.as_str(), plots::svg(&c.plot)?))).collect();
    let speed = report.speed.as_ref().and_then(plots::svg);
    html! {
        @if !losses.is_empty() || speed.is_some() {
            section {
                h2 { "Training" }
                div.plots {
                    @for (run, svg) in &losses {
                        figure { (PreEscaped(svg)) figcaption {
                            @if losses.len() > 1 { b { (run) } ". " }
                            "Loss of each term per step, over the whole global batch, smoothed over a few steps."
                            @for (name, meaning) in meanings(report) { " " b { (name) } ": " (meaning) "." } } }
                    }
                    @if let Some(svg) = speed {
                        figure { (PreEscaped(svg)) figcaption { "Samples per second, all workers together." } }
                    }
                }
            }
        }
    }
}

/// What the terms compare, for a reader who never heard of them. One that is not here needs no words.
const MEANINGS: [(&str, &str); 9] = [
    ("global", "masked picture against text"),
    ("crop", "cut-out against text"),
    ("crop_cosine", "cut-out against masked picture"),
    ("local", "pooled patches against the cut-out"),
    ("local_text", "pooled patches against text"),
    ("long", "picture against its long caption"),
    ("short", "picture against its short caption"),
    ("region", "region against its own text"),
    ("hard", "region against its own text and ten that are almost right"),
];

/// Name and meaning of each line of the loss plot that has one.
fn meanings(report: &EvalReport) -> Vec<(&'static str, &'static str)> {
    let drawn = |name: &str| report.losses.iter().any(|curve| curve.plot.series.iter().any(|s| s.name == name));
    MEANINGS.into_iter().filter(|(name, _)| drawn(name)).collect()
}

fn queries(text: TextKind, queries: &[Query]) -> Markup {
    html! {
        @if !queries.is_empty() {
            section.gallery {
                h2 { "What " (text.word()) " texts find" }
                p.note {
                    "Each text with the five regions of the whole test split that the model holds most similar, best first. "
                    span.right-ink { "Green" } " is the region that the text was written for, " span.other-ink { "amber" }
                    " is another. Texts are spread evenly over the split, misses included; none is chosen by hand."
                }
                @for q in queries {
                    article.query {
                        div.says {
                            p.text { (q.text) }
                            p.rank.good[q.rank <= 1.0].bad[q.rank > 10.0] { "right region: rank " (format!("{:.0}", q.rank)) }
                        }
                        div.strip {
                            (panel(&q.wanted, "the right one", true))
                            @for (i, p) in q.found.iter().enumerate() { (panel(p, &format!("{}.", i + 1), false)) }
                        }
                    }
                }
            }
        }
    }
}

fn panel(panel: &Panel, label: &str, wanted: bool) -> Markup {
    html! {
        figure.panel.wanted[wanted].right[panel.right] {
            img src=(panel.uri) alt=(panel.caption) title=(panel.caption) loading="lazy";
            figcaption {
                span.place { (label) @if panel.right && !wanted { " ✓" } }
                span.cos { (format!("{:.2}", panel.similarity)) }
                span.caption { (panel.caption) }
            }
        }
    }
}

fn made(facts: &RunFacts) -> Markup {
    html! {
        section {
            h2 { "How it was made" }
            div.columns {
                @for table in &facts.tables {
                    @if !table.rows.is_empty() {
                        div {
                            h3 { (table.heading) }
                            table.facts { @for (name, value) in &table.rows { tr { th scope="row" { (name) } td { (value) } } } }
                        }
                    }
                }
            }
        }
    }
}

impl Evaluated {
    fn in_image_mask(&self) -> f64 {
        self.mask.in_image
    }
}
