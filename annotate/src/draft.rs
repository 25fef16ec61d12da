//! A row while it is annotated: what its fields are called, which of them are there, and how answers become values.

use crate::provenance::{Note, NoteKind, keep, notes};
use crate::recipe::{Field, Over};
use crate::shape::{Answer, Expression};
use pixfleet_shards::{ImageRow, Region};
use serde_json::{Map, Value, json};

/// See the module.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) row: ImageRow,
    /// Found by a stage, for a detector; not kept.
    pub(crate) expressions: Option<Vec<Expression>>,
    /// The verdict on the hard negatives of a region was asked for.
    judged: Vec<usize>,
    /// Whether it came with regions.
    has_regions: bool,
    notes: Vec<Note>,
}

impl Draft {
    pub(crate) fn new(row: ImageRow) -> Self {
        let notes = notes(&row);
        let has_regions = !row.regions.is_empty();
        Self { row, expressions: None, judged: Vec::new(), has_regions, notes }
    }

    /// The row with its notes.
    pub(crate) fn finish(mut self) -> ImageRow {
        keep(&mut self.row, &self.notes);
        self.row
    }

    fn region(&self, at: Option<usize>) -> Option<&Region> {
        self.row.regions.get(at?)
    }

    /// Whether the field has a value.
    pub(crate) fn has(&self, field: Field, at: Option<usize>) -> bool {
        let region = self.region(at);
        let of = |get: fn(&Region) -> bool| region.is_some_and(get);
        match field {
            Field::CaptionLong => self.row.caption_long.is_some(),
            Field::CaptionShort => self.row.caption_short.is_some(),
            Field::Expressions => self.expressions.is_some(),
            Field::Regions => !self.row.regions.is_empty(),
            // Of the image: whether every region has one.
            Field::Mask if at.is_none() => self.row.regions.iter().all(|r| r.mask.is_some()),
            Field::Mask => of(|r| r.mask.is_some()),
            Field::CaptionObject => of(|r| r.caption_object.is_some()),
            Field::CaptionContext => of(|r| r.caption_context.is_some()),
            Field::CheckOk => of(|r| r.check_ok.is_some()),
            Field::CaptionMerged => of(|r| r.caption_merged.is_some()),
            Field::ShortExpr => of(|r| r.short_expr.is_some()),
            Field::LongExpr => of(|r| r.long_expr.is_some()),
            Field::HardNegs => of(|r| !r.hard_negs.is_empty()),
            Field::HardNegsOk => at.is_some_and(|at| self.judged.contains(&at)),
        }
    }

    /// What templates and conditions read; what is not there is null.
    pub(crate) fn values(&self, at: Option<usize>) -> Value {
        let row = &self.row;
        let mut values = Map::new();
        let mut put = |name: &str, value: Value| values.insert(name.into(), value);
        put("image_id", json!(row.image_id));
        put("source", json!(row.source));
        put("lang", json!(row.lang));
        put("width", json!(row.width));
        put("height", json!(row.height));
        put("has_regions", json!(self.has_regions));
        put(Field::CaptionLong.name(), json!(row.caption_long));
        put(Field::CaptionShort.name(), json!(row.caption_short));
        put(Field::Regions.name(), json!(row.regions.len()));
        let phrases = self.expressions.as_ref().map(|all| all.iter().map(|e| e.short.as_str()).collect::<Vec<_>>());
        put(Field::Expressions.name(), json!(phrases));
        let Some(region) = self.region(at) else { return Value::Object(values) };
        put("bbox", json!(region.bbox));
        put("category", json!(region.category));
        put("check_reason", json!(self.reason(at, Field::CheckOk)));
        put(Field::Mask.name(), json!(region.mask.is_some()));
        put(Field::CaptionObject.name(), json!(region.caption_object));
        put(Field::CaptionContext.name(), json!(region.caption_context));
        put(Field::CheckOk.name(), json!(region.check_ok));
        put(Field::CaptionMerged.name(), json!(region.caption_merged));
        put(Field::ShortExpr.name(), json!(region.short_expr));
        put(Field::LongExpr.name(), json!(region.long_expr));
        put(Field::HardNegs.name(), json!(region.hard_negs));
        Value::Object(values)
    }

    fn reason(&self, at: Option<usize>, field: Field) -> Option<&str> {
        let of = |note: &&Note| note.region.map(|r| r as usize) == at && note.field == field.name();
        self.notes.iter().rev().find(of)?.reason.as_deref()
    }

    /// Writes an answer into its field; what it says of a reason.
    pub(crate) fn write(&mut self, field: Field, at: Option<usize>, answer: Answer) -> Option<String> {
        match (field, answer) {
            (Field::CaptionLong, Answer::Text(text)) => self.row.caption_long = Some(text),
            (Field::CaptionShort, Answer::Text(text)) => self.row.caption_short = Some(text),
            (Field::Expressions, Answer::Expressions(found)) => self.expressions = Some(found),
            (field, answer) => {
                let at = at.filter(|&at| at < self.row.regions.len())?;
                return self.write_region(field, at, answer);
            }
        }
        None
    }

    fn write_region(&mut self, field: Field, at: usize, answer: Answer) -> Option<String> {
        let region = &mut self.row.regions[at];
        match (field, answer) {
            (Field::CaptionObject, Answer::Text(text)) => region.caption_object = Some(text),
            (Field::CaptionContext, Answer::Text(text)) => region.caption_context = Some(text),
            (Field::CaptionMerged, Answer::Text(text)) => region.caption_merged = Some(text),
            (Field::ShortExpr, Answer::Text(text)) => region.short_expr = Some(text),
            (Field::LongExpr, Answer::Text(text)) => region.long_expr = Some(text),
            (Field::CheckOk, Answer::Verdict { ok, reason }) => {
                region.check_ok = Some(ok);
                return Some(reason);
            }
            (Field::HardNegs, Answer::Negatives(found)) => {
                (region.hard_negs, region.hard_neg_kinds) = found.into_iter().unzip();
            }
            (Field::HardNegsOk, Answer::Verdicts(ok)) => {
                self.judged.push(at);
                let wrong = ok.iter().filter(|ok| !**ok).count();
                // Training takes ten or none (method.md 3.4).
                if wrong > 0 {
                    region.hard_negs.clear();
                    region.hard_neg_kinds.clear();
                    return Some(format!("{wrong} of them are true of the region"));
                }
            }
            (field, answer) => unreachable!("a checked recipe writes no {answer:?} to {}", field.name()),
        }
        None
    }

    /// Takes a note.
    pub(crate) fn note(&mut self, stage: &str, field: Field, at: Option<usize>, told: Told) {
        let region = if field.over() == Over::Region { at.map(|at| at as u32) } else { None };
        self.notes.push(Note {
            stage: stage.into(),
            field: field.name().into(),
            region,
            model: Some(told.model),
            template: Some(told.template),
            at: told.at,
            reason: told.reason.filter(|reason| !reason.is_empty()),
            kind: told.kind,
        });
    }
}

/// What a note says beside its place.
pub(crate) struct Told {
    pub(crate) model: String,
    pub(crate) template: String,
    pub(crate) at: u64,
    pub(crate) reason: Option<String>,
    pub(crate) kind: NoteKind,
}
