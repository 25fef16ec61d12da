//! Copies the rows and regions of a split that a condition holds of.
//!
//! Row groups that cannot hold such a row by their statistics are not read; pictures are read of rows that are kept. Rows keep
//! their order, and what went is counted by the part of the condition that it failed.

mod eval;
mod field;
mod parse;
mod prune;
#[cfg(test)]
mod tests;

pub use parse::FilterError;

use crate::error::ShardError;
use crate::reader::RowGroupReader;
use crate::row::ImageRow;
use crate::schema::Columns;
use crate::store::Location;
use crate::tokens::Tokenizer;
use crate::writer::{ShardWriter, WriterOptions, Written};
use eval::{Subject, holds};
use field::FIELDS;
use futures::{StreamExt, TryStreamExt};
use parse::{Expr, Node, Operand};
use prune::Known;
use std::sync::Arc;

/// Row groups under way at a time; each is held with the pictures of its kept rows.
const AHEAD: usize = 3;
/// Bad rows that are kept to be shown; further ones are only counted.
pub const BAD_KEPT: usize = 20;

/// A condition on rows and regions, as the parts that must all hold: `a and b` has two.
#[derive(Debug, Clone)]
pub struct Filter {
    text: String,
    parts: Vec<Node>,
}

impl Filter {
    /// The condition that `text` says.
    ///
    /// # Errors
    /// [`FilterError`], with the characters that are wrong.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let node = parse::parse(text)?;
        let parts = match node.expr {
            Expr::All(parts) => parts,
            expr @ (Expr::Any(_) | Expr::Not(_) | Expr::Compare(..) | Expr::In(..) | Expr::Has(_) | Expr::Is(_)) => {
                vec![Node { expr, at: node.at }]
            }
        };
        Ok(Self { text: text.into(), parts })
    }

    /// The text of each part.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| &self.text[part.at.clone()])
    }

    /// Whether it asks for numbers of tokens.
    #[must_use]
    pub fn needs_tokens(&self) -> bool {
        self.parts.iter().any(|part| asks_for_tokens(part))
    }

    /// What it makes of a row.
    fn judge(&self, row: &ImageRow, tokenizer: Option<&Tokenizer>) -> Verdict {
        let subject = Subject { row, region: None, tokenizer };
        let of_row: Vec<Option<bool>> = self.parts.iter().map(|part| holds(part, &subject)).collect();
        if let Some(part) = of_row.iter().position(|held| *held == Some(false)) {
            return Verdict::Row(part);
        }
        if of_row.iter().all(|held| *held == Some(true)) {
            return Verdict::Whole;
        }
        let first_false = |region| {
            let subject = Subject { region: Some(region), ..subject };
            self.parts.iter().position(|part| holds(part, &subject) != Some(true))
        };
        Verdict::Regions(row.regions.iter().map(first_false).collect())
    }
}

fn asks_for_tokens(node: &Node) -> bool {
    let operand = |operand: &Operand| matches!(operand, Operand::Field(field) if field.needs_tokens());
    match &node.expr {
        Expr::All(nodes) | Expr::Any(nodes) => nodes.iter().any(asks_for_tokens),
        Expr::Not(inner) => asks_for_tokens(inner),
        Expr::Compare(left, _, right) => operand(left) || operand(right),
        Expr::In(left, values) => operand(left) || values.iter().any(operand),
        Expr::Has(field) => field.needs_tokens(),
        Expr::Is(of) => operand(of),
    }
}

/// What a condition makes of a row.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// The row goes, by this part.
    Row(usize),
    /// It stays as it is.
    Whole,
    /// By region, the first part that is false of it; `None` for those that stay.
    Regions(Vec<Option<usize>>),
}

/// A field that conditions know.
#[derive(Debug, Clone, Copy)]
pub struct FilterField {
    /// Its name.
    pub name: &'static str,
    /// Whether each region has its own.
    pub of_region: bool,
    /// `a number`, `a text`, `true or false`.
    pub kind: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

/// All fields, those of rows first.
pub fn fields() -> impl Iterator<Item = FilterField> {
    FIELDS.iter().map(|&(name, field, kind, meaning)| FilterField {
        name,
        of_region: field.is_of_region(),
        kind: kind.name(),
        meaning,
    })
}

/// How to filter.
#[derive(Debug, Clone, Default)]
pub struct FilterOptions {
    /// Rows stay that no region is left of.
    pub keep_empty: bool,
    /// Counts tokens; needed where [`Filter::needs_tokens`].
    pub tokenizer: Option<Tokenizer>,
    /// Sizes of what is written.
    pub writer: WriterOptions,
}

/// What one part of a condition was false of. What fails several parts counts for the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartCount {
    /// The part.
    pub text: String,
    /// Row groups that were not read, by their statistics.
    pub row_groups: u64,
    /// Their rows.
    pub skipped: u64,
    /// Rows that were read, and went.
    pub rows: u64,
    /// Regions that went from rows that were read.
    pub regions: u64,
}

/// What was kept and what went.
#[derive(Debug, Default)]
pub struct FilterReport {
    /// Row groups of the split.
    pub row_groups: u64,
    /// Rows of the split.
    pub rows: u64,
    /// Regions of the split.
    pub regions: u64,
    /// By part of the condition.
    pub parts: Vec<PartCount>,
    /// Rows that went because no region of theirs was left.
    pub emptied: u64,
    /// Rows that could not be read, and went.
    pub bad: u64,
    /// The first [`BAD_KEPT`] of them.
    pub bad_rows: Vec<ShardError>,
    /// What was written.
    pub written: Written,
}

/// Writes what `filter` holds of in the reader's split to the split `split` of `out`, which is replaced. `progress` gets row
/// groups done and row groups in all.
///
/// # Errors
/// Those of the stores; what is wrong with single rows is in the report.
pub async fn filter(
    reader: &RowGroupReader,
    filter: &Filter,
    options: &FilterOptions,
    (out, split): (&Location, &str),
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<FilterReport, ShardError> {
    let parts = filter.parts().map(|text| PartCount { text: text.into(), ..PartCount::default() }).collect();
    let all = reader.split();
    let row_groups = all.row_groups().count() as u64;
    let mut report =
        FilterReport { row_groups, rows: all.rows(), regions: all.regions(), parts, ..FilterReport::default() };
    let mut writer = ShardWriter::new(out.clone(), split, options.writer);
    let job = Job { reader, filter: Arc::new(filter.clone()), options };
    let mut groups = futures::stream::iter(0..row_groups as u32).map(|group| job.row_group(group)).buffered(AHEAD);
    let mut done = 0;
    while let Some(found) = groups.try_next().await? {
        for row in report.count(found) {
            writer.push(row).await?;
        }
        done += 1;
        progress(done, row_groups);
    }
    drop(groups);
    report.written = writer.finish().await?;
    Ok(report)
}

impl FilterReport {
    /// Counts a row group; the rows that stay.
    fn count(&mut self, found: Sifted) -> Vec<ImageRow> {
        if let Some((part, rows)) = found.skipped {
            self.parts[part].row_groups += 1;
            self.parts[part].skipped += rows;
        }
        for part in found.rows_gone {
            self.parts[part].rows += 1;
        }
        for part in found.regions_gone {
            self.parts[part].regions += 1;
        }
        self.emptied += found.emptied;
        self.bad += found.lost;
        let room = BAD_KEPT - self.bad_rows.len();
        self.bad_rows.extend(found.bad.into_iter().take(room));
        found.kept
    }
}

/// What became of a row group.
#[derive(Default)]
struct Sifted {
    kept: Vec<ImageRow>,
    /// Not read because of this part, and its rows.
    skipped: Option<(usize, u64)>,
    rows_gone: Vec<usize>,
    regions_gone: Vec<usize>,
    emptied: u64,
    /// Rows that could not be read,
    lost: u64,
    /// and why, where it is not the same for all.
    bad: Vec<ShardError>,
}

struct Job<'a> {
    reader: &'a RowGroupReader,
    filter: Arc<Filter>,
    options: &'a FilterOptions,
}

impl Job<'_> {
    async fn row_group(&self, number: u32) -> Result<Sifted, ShardError> {
        let (footer, inner) = self.reader.footer(number).await?;
        let group = footer.row_group(inner);
        let known = Known { group, keep_empty: self.options.keep_empty };
        let total = u32::try_from(group.num_rows()).unwrap_or(u32::MAX);
        if let Some(part) = self.filter.parts.iter().position(|part| !prune::may(part, &known)) {
            return Ok(Sifted { skipped: Some((part, u64::from(total))), ..Sifted::default() });
        }
        let all: Vec<u32> = (0..total).collect();
        let narrow = Columns { image: false, ..Columns::ROWS };
        let rows = match self.reader.read_each(number, &all, narrow).await {
            Ok(rows) => rows,
            Err(error) if error.is_bad_data() => {
                // Not one of its rows can be read.
                return Ok(Sifted { lost: u64::from(total), bad: vec![error], ..Sifted::default() });
            }
            Err(error) => return Err(error),
        };
        let (filter, tokenizer) = (Arc::clone(&self.filter), self.options.tokenizer.clone());
        let judge = move |row: Result<ImageRow, ShardError>| row.map(|row| filter.judge(&row, tokenizer.as_ref()));
        let verdicts = tokio::task::spawn_blocking(move || rows.into_iter().map(judge).collect::<Vec<_>>()).await?;
        let mut sifted = Sifted::default();
        let staying = sifted.sift(verdicts, self.options.keep_empty);
        self.with_pictures(number, staying, &mut sifted).await?;
        Ok(sifted)
    }

    /// Reads the rows that stay again, which but for their pictures are there already.
    async fn with_pictures(&self, number: u32, staying: Staying, sifted: &mut Sifted) -> Result<(), ShardError> {
        if staying.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = staying.iter().map(|(row, _)| *row).collect();
        let found = self.reader.read_each(number, &rows, Columns::ROWS).await?;
        for (row, (_, keep)) in found.into_iter().zip(staying) {
            match row {
                Ok(mut row) => {
                    if let Some(keep) = keep {
                        let mut keep = keep.into_iter();
                        row.regions.retain(|_| keep.next().unwrap_or(false));
                    }
                    sifted.kept.push(row);
                }
                Err(error) => sifted.lose(error),
            }
        }
        Ok(())
    }
}

/// Rows that stay, each with which of its regions do; `None`: all.
type Staying = Vec<(u32, Option<Vec<bool>>)>;

impl Sifted {
    fn lose(&mut self, error: ShardError) {
        self.lost += 1;
        self.bad.push(error);
    }

    fn sift(&mut self, verdicts: Vec<Result<Verdict, ShardError>>, keep_empty: bool) -> Staying {
        let mut staying = Staying::new();
        for (row, verdict) in (0..).zip(verdicts) {
            match verdict {
                Err(error) => self.lose(error),
                Ok(Verdict::Row(part)) => self.rows_gone.push(part),
                Ok(Verdict::Whole) => staying.push((row, None)),
                Ok(Verdict::Regions(regions)) => {
                    self.regions_gone.extend(regions.iter().flatten());
                    if keep_empty || regions.iter().any(Option::is_none) {
                        staying.push((row, Some(regions.iter().map(Option::is_none).collect())));
                    } else {
                        self.emptied += 1;
                    }
                }
            }
        }
        staying
    }
}
