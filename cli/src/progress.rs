//! Progress bars on stderr; they hide themselves where that is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that says `what` and counts `unit`.
pub(crate) fn bar(what: &'static str, unit: &str) -> ProgressBar {
    let template =
        format!("{{prefix}} [{{bar:30}}] {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left {{msg}}");
    let style = ProgressStyle::with_template(&template).expect("the template is well-formed").progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    bar.with_style(style).with_prefix(what)
}

/// Moves a bar to `done` of `total`.
pub(crate) fn set(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total);
    bar.set_position(done);
}
