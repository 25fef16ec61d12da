//! What an import did, as a table: one line per rule and change, not per tensor.

use super::plan::{Change, LeftOut, MadeUp, Origin, Plan};
use super::rule::generic;
use comfy_table::{Table, presets::NOTHING};
use pixfleet_checkpoint::Dtype;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// The table of a plan.
pub(super) fn table(plan: &Plan) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["", "tensors", "in the file", "in the model", "how"]);
    for (line, count) in lines(plan) {
        table.add_row([line.what, &count.to_string(), &line.from, &line.to, &line.how]);
    }
    table
}

/// Parameters that are as they were, that were changed, that were made up.
pub(super) fn counts(plan: &Plan) -> [usize; 3] {
    let mut counts = [0; 3];
    for origin in plan.origins.values() {
        let kind = match origin {
            Origin::File { changes, .. } if changes.is_empty() => 0,
            Origin::File { .. } => 1,
            Origin::MadeUp(_) => 2,
        };
        counts[kind] += 1;
    }
    counts
}

/// A line; the order of fields is the order of lines.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    rank: u8,
    what: &'static str,
    from: String,
    to: String,
    how: String,
}

fn lines(plan: &Plan) -> BTreeMap<Line, usize> {
    let mut lines: BTreeMap<Line, usize> = BTreeMap::new();
    let mut add = |line: Line| *lines.entry(line).or_default() += 1;
    for (parameter, origin) in &plan.origins {
        add(match origin {
            Origin::File { name, rule, changes, .. } => {
                let how = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                // A change of sizes concerns one tensor, not all that its rule maps.
                let own = changes.iter().any(|c| matches!(c, Change::Resized { .. } | Change::Reshaped));
                let (from, to) = if own { (name.as_str(), parameter.as_str()) } else { *rule };
                let (rank, what) = if changes.is_empty() { (0, "mapped") } else { (1, "changed") };
                Line { rank, what, from: from.to_owned(), to: to.to_owned(), how }
            }
            Origin::MadeUp(rule) => {
                Line { rank: 2, what: "made up", from: String::new(), to: generic(parameter), how: rule.to_string() }
            }
        });
    }
    for LeftOut { name, why } in &plan.left_out {
        add(Line { rank: 3, what: "left out", from: generic(name), to: String::new(), how: (*why).to_owned() });
    }
    lines
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cast(dtype) => write!(f, "{} to fp32", dtype_name(*dtype)),
            Self::Transposed => f.write_str("transposed"),
            Self::Third(third) => write!(f, "rows of third {} of 3", third + 1),
            Self::Resized { from, to } => write!(f, "bicubic from {from} x {from} to {to} x {to} positions"),
            Self::Reshaped => f.write_str("one number in another shape"),
        }
    }
}

impl Display for MadeUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("zero: the base model exactly"),
            Self::Copied(from) => write!(f, "a copy of {from}"),
            Self::Stretched(from) => write!(f, "{from}, stretched for long texts"),
            Self::Fresh => f.write_str("as training from scratch begins, seed 0"),
        }
    }
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "fp16",
        Dtype::BF16 => "bf16",
        Dtype::F64 => "fp64",
        _ => "another type",
    }
}
