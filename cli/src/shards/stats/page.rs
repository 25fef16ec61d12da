//! The statistics as one HTML page: everything inline, light and dark.

use super::{Counted, Shown, percent, range, told};
use base64::Engine;
use indicatif::HumanCount;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use pixfleet_shards::stats::{Bins, Head, Share};
use pixfleet_shards::token_report::Lengths;
use pixfleet_shards::tokens::{LONG_TOKENS, SHORT_TOKENS};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #6a737d; --line: #d8dee4; --bar: #3b7dd8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --soft: #8b949e; --line: #30363d; --bar: #58a6ff } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px }
h1 { margin: 0; overflow-wrap: anywhere } h2 { margin: 36px 0 8px; font-size: 1.15em }
.note, small, figcaption { color: var(--soft) }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 8px 32px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 2px 8px; border-bottom: 1px solid var(--line); font-weight: normal; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere }
td.bar { width: 40%; padding: 2px 0 } td.bar i { display: block; height: 12px; background: var(--bar); min-width: 1px }
.group { display: flex; flex-wrap: wrap; gap: 12px; padding: 12px 0; border-bottom: 1px solid var(--line) }
figure { margin: 0; max-width: 192px; overflow-wrap: anywhere } figcaption { font-size: 12px } img { display: block }
";

/// The whole page.
pub(super) fn page(of: &Counted, shown: &Shown) -> String {
    let stats = &of.stats;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (of.split) " of " (of.url) " · pixfleet stats" }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { (of.split) " of " (of.url) }
                p {
                    (HumanCount(stats.rows)) " rows, " (HumanCount(stats.regions)) " regions, " (HumanCount(stats.bad)) " bad rows "
                    small { "digest " (of.digest) }
                }
                @for bad in &stats.bad_rows { p.note { (bad) } }
                h2 { "Fields" }
                div.charts {
                    (shares("rows with", stats.rows, &stats.row_fields))
                    (shares("regions with", stats.regions, &stats.region_fields))
                }
                h2 { "Tokens" }
                p.note { "Start and end included. A text tower takes " (SHORT_TOKENS) " or " (LONG_TOKENS) "." }
                div.charts { (tokens(of)) }
                h2 { "Sizes" }
                div.charts {
                    @for (title, bins, number) in of.histograms() {
                        @if bins.total() > 0 { (histogram(title, bins, number)) }
                    }
                }
                @if of.heads().iter().any(|(_, head)| !head.names.is_empty()) { h2 { "Names" } }
                div.charts { @for (title, head) in of.heads() { @if !head.names.is_empty() { (names(title, head)) } } }
                @if let Some(found) = &stats.duplicates {
                    h2 { "Pictures that are there twice" }
                    p { (told(found)) "." }
                    p.note { "By difference hashes of 64 bits; the largest groups, with the first pictures of each: image_id (row group:row)." }
                    (groups("Equal", &shown.equal))
                    (groups("Nearly equal", &shown.near))
                }
            } }
        }
    }
    .into_string()
}

/// A table with a bar in each row: name, count, and what it is of.
fn bars(title: &str, rows: &[(String, u64)], all: u64) -> Markup {
    let largest = rows.iter().map(|(_, n)| *n).max().unwrap_or(0).max(1);
    html! {
        table {
            tr { th { (title) } th { "count" } th { "share" } th {} }
            @for (name, count) in rows {
                tr {
                    td { (name) } td { (HumanCount(*count)) } td { (percent(*count, all)) }
                    td.bar { @if *count > 0 { i style=(format!("width: {:.1}%", 100.0 * *count as f64 / largest as f64)) {} } }
                }
            }
        }
    }
}

fn shares(title: &str, all: u64, shares: &[Share]) -> Markup {
    let rows: Vec<(String, u64)> =
        shares.iter().filter(|s| s.count > 0).map(|s| (s.field.to_owned(), s.count)).collect();
    bars(title, &rows, all)
}

fn tokens(of: &Counted) -> Markup {
    const EDGES: [usize; 10] = [0, 8, 16, 32, 48, 64, SHORT_TOKENS, 128, 192, LONG_TOKENS];
    let rows = |lengths: &Lengths| -> Vec<(String, u64)> {
        let ends = EDGES.into_iter().skip(1).map(Some).chain([None]);
        let row = |(from, to)| match to {
            Some(to) => (format!("{} to {to}", from + 1), lengths.between(from + 1, to)),
            None => (format!("{} and more", from + 1), lengths.between(from + 1, usize::MAX)),
        };
        EDGES.into_iter().zip(ends).map(row).collect()
    };
    html! {
        @for (field, lengths) in of.stats.tokens.fields() { (bars(field.texts(), &rows(lengths), lengths.texts())) }
    }
}

fn histogram(title: &str, bins: &Bins, number: fn(f64) -> String) -> Markup {
    let rows: Vec<(String, u64)> =
        bins.counts.iter().enumerate().map(|(at, count)| (range(bins, at, number), *count)).collect();
    html! {
        div {
            (bars(title, &rows, bins.total()))
            @if let Some(mean) = bins.mean() { small { "mean " (number((mean * 1e4).round() / 1e4)) } }
        }
    }
}

fn names(title: &str, head: &Head) -> Markup {
    let all = head.names.iter().map(|(_, n)| n).sum();
    html! {
        div {
            (bars(title, &head.names, all))
            small {
                (HumanCount(head.known as u64)) " names; shares are of those shown"
                @if head.at_least { "; rare names were dropped, so that counts may be a little low" }
            }
        }
    }
}

fn groups(title: &str, groups: &[(u64, Vec<(String, Vec<u8>)>)]) -> Markup {
    html! {
        @if !groups.is_empty() { h2 { (title) } }
        @for (pictures, shown) in groups {
            div.group {
                @for (name, jpeg) in shown {
                    figure {
                        img alt=(name) src={ "data:image/jpeg;base64," (base64::engine::general_purpose::STANDARD.encode(jpeg)) };
                        figcaption { (name) }
                    }
                }
                @if *pictures > shown.len() as u64 { small { "and " (HumanCount(*pictures - shown.len() as u64)) " more" } }
            }
        }
    }
}
