//! Counts of rows, added up row by row and then row group by row group.

use super::bins::Bins;
use super::heavy::Heavy;
use super::{DatasetStats, Duplicates};
use crate::error::{Place, ShardError};
use crate::row::{ImageRow, Region};
use crate::token_report::TokenReport;
use crate::tokens::Tokenizer;

/// Names that a head shows.
const HEAD: usize = 30;

/// How many have a field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Share {
    /// The field.
    pub field: &'static str,
    /// Those that have it.
    pub count: u64,
}

/// The most frequent of many names.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Head {
    /// Name and count, the most frequent first.
    pub names: Vec<(String, u64)>,
    /// Names that are known.
    pub known: usize,
    /// Whether rare ones were dropped, so that counts may be too low by one in 200 000 rows or regions.
    pub at_least: bool,
}

impl Head {
    fn of(counts: &Heavy) -> Self {
        let (known, at_least) = counts.names();
        Self { names: counts.head(HEAD), known, at_least }
    }
}

type Has<T> = (&'static str, fn(&T) -> bool);

const ROW_FIELDS: [Has<ImageRow>; 13] = [
    ("source", |r| !r.source.is_empty()),
    ("lang", |r| r.lang.is_some()),
    ("caption_long", |r| r.caption_long.is_some()),
    ("caption_short", |r| r.caption_short.is_some()),
    ("clip_sim_b32", |r| r.clip_sim_b32.is_some()),
    ("clip_sim_l14", |r| r.clip_sim_l14.is_some()),
    ("caption_long_emb", |r| r.caption_long_emb.is_some()),
    ("caption_short_emb", |r| r.caption_short_emb.is_some()),
    ("provenance", |r| r.provenance.is_some()),
    ("image.path", |r| r.image.path.is_some()),
    ("image.url", |r| r.image.url.is_some()),
    ("image.sha256", |r| r.image.sha256.is_some()),
    ("regions", |r| !r.regions.is_empty()),
];

const REGION_FIELDS: [Has<Region>; 13] = [
    ("score", |r| r.score.is_some()),
    ("span", |r| r.span.is_some()),
    ("mask", |r| r.mask.is_some()),
    ("category", |r| r.category.is_some()),
    ("caption_object", |r| r.caption_object.is_some()),
    ("caption_context", |r| r.caption_context.is_some()),
    ("caption_merged", |r| r.caption_merged.is_some()),
    ("check_ok", |r| r.check_ok.is_some()),
    ("check_ok = true", |r| r.check_ok == Some(true)),
    ("short_expr", |r| r.short_expr.is_some()),
    ("long_expr", |r| r.long_expr.is_some()),
    ("hard_negs", |r| !r.hard_negs.is_empty()),
    ("text_emb", |r| r.text_emb.is_some()),
];

/// Counts so far.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    rows: u64,
    regions: u64,
    row_fields: [u64; ROW_FIELDS.len()],
    region_fields: [u64; REGION_FIELDS.len()],
    tokens: TokenReport,
    regions_per_row: Bins,
    areas: Bins,
    sides: Bins,
    aspects: Bins,
    picture_bytes: Bins,
    categories: Heavy,
    sources: Heavy,
    languages: Heavy,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let kilo = |n: f64| n * 1000.0;
        Self {
            rows: 0,
            regions: 0,
            row_fields: [0; ROW_FIELDS.len()],
            region_fields: [0; REGION_FIELDS.len()],
            tokens: TokenReport::default(),
            regions_per_row: Bins::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0]),
            // Half decades.
            areas: Bins::new(&[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]),
            sides: Bins::new(&[64.0, 128.0, 224.0, 336.0, 512.0, 768.0, 1024.0, 1536.0, 2048.0, 4096.0]),
            aspects: Bins::new(&[0.25, 0.5, 0.66, 0.8, 1.0, 1.01, 1.25, 1.5, 2.0, 4.0]),
            picture_bytes: Bins::new(&[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0].map(kilo)),
            categories: Heavy::default(),
            sources: Heavy::default(),
            languages: Heavy::default(),
        }
    }

    /// Counts one more row; texts that cannot be tokenized are added to `faults`.
    pub(crate) fn add(
        &mut self,
        row: &ImageRow,
        tokenizer: Option<&Tokenizer>,
        place: &Place,
        faults: &mut Vec<ShardError>,
    ) {
        self.rows += 1;
        self.regions += row.regions.len() as u64;
        for (count, (_, has)) in self.row_fields.iter_mut().zip(ROW_FIELDS) {
            *count += u64::from(has(row));
        }
        if let Some(tokenizer) = tokenizer {
            self.tokens.note(tokenizer, row, place, faults);
        }
        self.regions_per_row.add(row.regions.len() as f64);
        self.sides.add(f64::from(row.width.max(row.height)));
        self.aspects.add(f64::from(row.width) / f64::from(row.height.max(1)));
        if let Some(bytes) = &row.image.bytes {
            self.picture_bytes.add(bytes.len() as f64);
        }
        if !row.source.is_empty() {
            self.sources.add(&row.source);
        }
        row.lang.iter().for_each(|lang| self.languages.add(lang));
        for region in &row.regions {
            for (count, (_, has)) in self.region_fields.iter_mut().zip(REGION_FIELDS) {
                *count += u64::from(has(region));
            }
            self.areas.add(f64::from(region.area()));
            region.category.iter().for_each(|category| self.categories.add(category));
        }
    }

    /// Adds what was counted further on.
    pub(crate) fn merge(&mut self, later: Self) {
        self.rows += later.rows;
        self.regions += later.regions;
        let fields = self.row_fields.iter_mut().chain(&mut self.region_fields);
        for (count, more) in fields.zip(later.row_fields.iter().chain(&later.region_fields)) {
            *count += more;
        }
        self.tokens.merge(later.tokens);
        for (bins, more) in [
            (&mut self.regions_per_row, &later.regions_per_row),
            (&mut self.areas, &later.areas),
            (&mut self.sides, &later.sides),
            (&mut self.aspects, &later.aspects),
            (&mut self.picture_bytes, &later.picture_bytes),
        ] {
            bins.merge(more);
        }
        self.categories.merge(later.categories);
        self.sources.merge(later.sources);
        self.languages.merge(later.languages);
    }

    pub(crate) fn finish(self, bad: u64, bad_rows: Vec<ShardError>, duplicates: Option<Duplicates>) -> DatasetStats {
        let shares = |names: &[&'static str], counts: &[u64]| {
            names.iter().zip(counts).map(|(field, count)| Share { field, count: *count }).collect()
        };
        DatasetStats {
            rows: self.rows,
            regions: self.regions,
            bad,
            bad_rows,
            row_fields: shares(&ROW_FIELDS.map(|(name, _)| name), &self.row_fields),
            region_fields: shares(&REGION_FIELDS.map(|(name, _)| name), &self.region_fields),
            tokens: self.tokens,
            regions_per_row: self.regions_per_row,
            areas: self.areas,
            sides: self.sides,
            aspects: self.aspects,
            picture_bytes: self.picture_bytes,
            categories: Head::of(&self.categories),
            sources: Head::of(&self.sources),
            languages: Head::of(&self.languages),
            duplicates,
        }
    }
}
