//! Whether a program's log may have colours.

use std::io::IsTerminal;

/// Whether standard error takes ANSI colours: it is a terminal, and `NO_COLOR` (<https://no-color.org>) is not set.
#[must_use]
pub fn takes_colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
