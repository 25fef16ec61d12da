//! The page: one region at a time, its picture with the mask marked, all that was written of it, and three keys.

use super::Seen;
use crate::provenance::{Note, notes};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;

const STYLE: &str = "body{font:16px/1.45 system-ui,sans-serif;margin:0;color:#222;background:#fafafa}\
header{position:sticky;top:0;background:#fff;border-bottom:1px solid #ddd;padding:.6rem 1.2rem;display:flex;gap:1.5rem}\
kbd{border:1px solid #bbb;border-radius:3px;padding:0 .35em;background:#f3f3f3}\
section{display:none;gap:2rem;padding:1.2rem;align-items:flex-start}section.now{display:flex}\
img{max-width:55vw;max-height:82vh;border:1px solid #ddd}dl{margin:0;max-width:40rem}dt{color:#777;font-size:.85em;margin-top:.7em}\
dd{margin:0}.no{color:#b00020}.yes{color:#05723c}section[data-said=accept] img{outline:4px solid #05723c}\
section[data-said=reject] img{outline:4px solid #b00020}small{color:#777}";

/// Keys move, say and count; a verdict is sent at once and shown when it has arrived.
const SCRIPT: &str = "const all=[...document.querySelectorAll('section')];let at=0;\
const show=n=>{at=Math.max(0,Math.min(all.length-1,n));all.forEach((s,i)=>s.classList.toggle('now',i===at));\
document.getElementById('at').textContent=`${at+1} of ${all.length}, ${all.filter(s=>s.dataset.said).length} said`};\
const say=async w=>{const s=all[at];const r=await fetch(`/verdict/${at}/${w}`,{method:'POST'});\
if(r.ok){s.dataset.said=w==='clear'?'':w;show(w==='clear'?at:at+1)}else alert('the server did not take it')};\
document.addEventListener('keydown',e=>{({a:()=>say('accept'),r:()=>say('reject'),u:()=>say('clear'),\
ArrowRight:()=>show(at+1),ArrowLeft:()=>show(at-1)}[e.key]||(()=>{}))()});show(0);";

pub(super) fn page(url: &str, seen: &[Seen], verdicts: &BTreeMap<usize, bool>) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Review of " (url) } style { (PreEscaped(STYLE)) } }
            body {
                header {
                    b { (url) }
                    span id="at" {}
                    span { kbd { "a" } " accept " kbd { "r" } " reject " kbd { "u" } " undo " kbd { "←" } kbd { "→" } " move" }
                }
                @for (at, seen) in seen.iter().enumerate() { (section(at, seen, verdicts.get(&at).copied())) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

fn section(at: usize, seen: &Seen, verdict: Option<bool>) -> Markup {
    let said = verdict.map(|ok| if ok { "accept" } else { "reject" });
    let region = &seen.shown.regions[seen.region];
    let notes = notes(&seen.shown);
    let texts = [
        ("caption_object", &region.caption_object),
        ("caption_context", &region.caption_context),
        ("caption_merged", &region.caption_merged),
        ("short_expr", &region.short_expr),
        ("long_expr", &region.long_expr),
        ("category", &region.category),
        ("caption_long", &seen.shown.caption_long),
        ("caption_short", &seen.shown.caption_short),
    ];
    html! {
        section data-said=[said] {
            img src=(format!("/picture/{at}")) loading="lazy" alt="the region, marked in its picture";
            dl {
                dt { "image" } dd { (seen.shown.image_id) ", region " (seen.region + 1) " of " (seen.shown.regions.len()) }
                @if let Some(ok) = region.check_ok {
                    dt { "check" }
                    dd class=(if ok { "yes" } else { "no" }) {
                        (if ok { "passed" } else { "failed" }) ": " (reason(&notes, seen.region).unwrap_or("no reason given"))
                    }
                }
                @for (field, text) in texts {
                    @if let Some(text) = text { dt { (field) } dd { (text) " " (wrote(&notes, seen.region, field)) } }
                }
                @if !region.hard_negs.is_empty() {
                    dt { "hard_negs" }
                    dd { ol { @for text in &region.hard_negs { li { (text) } } } }
                }
            }
        }
    }
}

fn of<'n>(notes: &'n [Note], region: usize, field: &str) -> Option<&'n Note> {
    notes.iter().rev().find(|n| n.field == field && n.region.is_none_or(|r| r as usize == region))
}

fn reason(notes: &[Note], region: usize) -> Option<&str> {
    of(notes, region, "check_ok")?.reason.as_deref()
}

/// Who wrote a field.
fn wrote(notes: &[Note], region: usize, field: &str) -> Markup {
    html! { @if let Some(model) = of(notes, region, field).and_then(|n| n.model.as_ref()) { small { (model) } } }
}
