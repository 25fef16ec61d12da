//! The Parquet schema of LongGRIT, version 1: one row an image, a list of regions within it.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `image_id` | string | key within the source; required |
//! | `source` | string? | `longgrit`, `grit`, `alphaclip`, `finehard`, `coco`, `lvis`, `refcoco`, `fg-ovd`, `mini`, `custom` |
//! | `width`, `height` | int32 | of the image in pixels; required |
//! | `lang` | string? | language of the captions, `en` or `zh` |
//! | `caption_long`, `caption_short` | string? | captions of the whole image |
//! | `captions` | list of string | all captions that people wrote for the image (COCO: five) |
//! | `clip_sim_b32`, `clip_sim_l14` | float? | image-caption similarity by CLIP |
//! | `regions` | list of struct | see below; required |
//! | `caption_long_emb`, `caption_short_emb` | binary? | ingested vectors, f16 little-endian |
//! | `provenance` | string? | who wrote which field, as JSON (`pixfleet annotate`) |
//! | `image` | struct | `path` string?, `url` string?, `sha256` fixed binary(32)?, `bytes` binary? (JPEG, PNG, WebP) |
//!
//! A region:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `bbox` | list of 4 float | x1, y1, x2, y2 in 0..1 of the image; required |
//! | `score` | float? | detector's confidence |
//! | `span` | list of 2 int32? | characters of the caption that name the region |
//! | `mask_rle` | binary? | COCO compressed counts, column-major |
//! | `mask_size` | list of 2 int32? | height, width of the mask |
//! | `category` | string? | category name |
//! | `caption_object`, `caption_context`, `caption_merged` | string? | LongGRIT's three stages |
//! | `check_ok` | bool? | the captions passed LongGRIT's check |
//! | `short_expr`, `long_expr` | string? | FineHARD's expressions |
//! | `expressions` | list of string | all expressions that people refer to the region by (RefCOCO: about three) |
//! | `hard_negs` | list of string | hard negatives: `short_expr` with one attribute changed (0 or 10) |
//! | `hard_neg_kinds` | list of string | what each of them changes, by name (see [`HardNegKind`](crate::HardNegKind)); empty: not known |
//! | `text_emb` | binary? | ingested vector of the training text, f16 little-endian |
//!
//! Footer keys: [`VERSION_KEY`], [`REGIONS_KEY`], [`CONTENT_KEY`]. Pictures stand last, and each in a page of its own,
//! so that captions are one short range and a single picture can be fetched without its neighbours.
//!
//! Files of other programs need only the required fields and none of the keys ([`crate::adopt`], docs/format.md); absent
//! optional columns read as null, lists as empty.

use crate::adopt;
use crate::error::ShardError;
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::basic::Type as Physical;
use parquet::schema::types::SchemaDescriptor;
use std::sync::Arc;

/// Footer key of the schema version.
pub const VERSION_KEY: &str = "pixfleet.schema";
/// The version that this program reads and writes.
pub const VERSION: &str = "1";
/// Footer key of the regions per row group, a JSON list of numbers.
pub const REGIONS_KEY: &str = "pixfleet.regions";
/// Footer key of the blake3 hash of everything before the footer: equal rows, written alike, have equal content.
pub const CONTENT_KEY: &str = "pixfleet.content";

/// Leaf of the pictures' bytes.
pub const IMAGE_BYTES: &str = "image.bytes";

/// Columns without which a file is refused.
pub const REQUIRED: [(&str, Physical); 4] = [
    ("image_id", Physical::BYTE_ARRAY),
    ("width", Physical::INT32),
    ("height", Physical::INT32),
    ("regions.bbox", Physical::FLOAT),
];

/// Columns that may be absent.
pub const OPTIONAL: [(&str, Physical); 29] = [
    ("source", Physical::BYTE_ARRAY),
    ("lang", Physical::BYTE_ARRAY),
    ("caption_long", Physical::BYTE_ARRAY),
    ("caption_short", Physical::BYTE_ARRAY),
    ("captions", Physical::BYTE_ARRAY),
    ("clip_sim_b32", Physical::FLOAT),
    ("clip_sim_l14", Physical::FLOAT),
    ("regions.score", Physical::FLOAT),
    ("regions.span", Physical::INT32),
    ("regions.mask_rle", Physical::BYTE_ARRAY),
    ("regions.mask_size", Physical::INT32),
    ("regions.category", Physical::BYTE_ARRAY),
    ("regions.caption_object", Physical::BYTE_ARRAY),
    ("regions.caption_context", Physical::BYTE_ARRAY),
    ("regions.caption_merged", Physical::BYTE_ARRAY),
    ("regions.check_ok", Physical::BOOLEAN),
    ("regions.short_expr", Physical::BYTE_ARRAY),
    ("regions.long_expr", Physical::BYTE_ARRAY),
    ("regions.expressions", Physical::BYTE_ARRAY),
    ("regions.hard_negs", Physical::BYTE_ARRAY),
    ("regions.hard_neg_kinds", Physical::BYTE_ARRAY),
    ("regions.text_emb", Physical::BYTE_ARRAY),
    ("caption_long_emb", Physical::BYTE_ARRAY),
    ("caption_short_emb", Physical::BYTE_ARRAY),
    ("provenance", Physical::BYTE_ARRAY),
    ("image.path", Physical::BYTE_ARRAY),
    ("image.url", Physical::BYTE_ARRAY),
    ("image.sha256", Physical::FIXED_LEN_BYTE_ARRAY),
    (IMAGE_BYTES, Physical::BYTE_ARRAY),
];

/// What to read of a row. `image_id`, `width`, `height` always come along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Columns {
    /// The pictures' bytes.
    pub image: bool,
    /// Boxes, scores, spans, masks and checks.
    pub geometry: bool,
    /// All captions of image and regions, expressions too.
    pub captions: bool,
    /// Captions of the image.
    pub image_captions: bool,
    /// Expressions of regions: short, long, and all that people refer to them by.
    pub expressions: bool,
    /// Hard negatives of regions and what they change.
    pub hard_negatives: bool,
    /// Source, language, similarities, path, url, sha256, provenance, category.
    pub details: bool,
    /// Vectors that were ingested with the rows.
    pub embeddings: bool,
    /// Vectors beside the rows, by the reader's vectors key.
    pub vectors: bool,
}

impl Columns {
    /// Captions alone.
    pub const CAPTIONS: Self = Self { captions: true, ..Self::NONE };
    /// What a step needs that trains on stored vectors: picture, geometry, text vectors.
    pub const TRAIN: Self = Self { image: true, geometry: true, vectors: true, ..Self::NONE };
    /// Picture and geometry; texts are added by `with_...`.
    pub const PICTURE: Self = Self { image: true, geometry: true, ..Self::NONE };
    /// Everything of the data files.
    pub const ROWS: Self = Self { vectors: false, ..Self::ALL };
    /// Everything, with the vectors beside the rows.
    pub const ALL: Self = Self {
        image: true,
        geometry: true,
        captions: true,
        image_captions: true,
        expressions: true,
        hard_negatives: true,
        details: true,
        embeddings: true,
        vectors: true,
    };
    const NONE: Self = Self {
        image: false,
        geometry: false,
        captions: false,
        image_captions: false,
        expressions: false,
        hard_negatives: false,
        details: false,
        embeddings: false,
        vectors: false,
    };

    /// These and the captions of image and regions.
    #[must_use]
    pub const fn with_captions(self) -> Self {
        Self { captions: true, ..self }
    }

    /// These and the captions of the image.
    #[must_use]
    pub const fn with_image_captions(self) -> Self {
        Self { image_captions: true, ..self }
    }

    /// These and the expressions of regions.
    #[must_use]
    pub const fn with_expressions(self) -> Self {
        Self { expressions: true, ..self }
    }

    /// These and the hard negatives of regions, with `short_expr`, the positive that they are changed from.
    #[must_use]
    pub const fn with_hard_negatives(self) -> Self {
        Self { hard_negatives: true, expressions: true, ..self }
    }

    /// These and the vectors beside the rows.
    #[must_use]
    pub const fn with_vectors(self) -> Self {
        Self { vectors: true, ..self }
    }

    /// The narrow part: all that lies in the data file but the pictures.
    #[must_use]
    pub(crate) fn narrow(self) -> Self {
        Self { image: false, vectors: false, ..self }
    }

    /// Whether regions are read from the data file, so that their number is known.
    #[must_use]
    pub(crate) fn has_regions(self) -> bool {
        self.geometry || self.captions || self.expressions || self.hard_negatives || self.details || self.embeddings
    }

    /// Whether the leaf `name` (as [`leaf_name`] gives it) belongs to these columns.
    #[must_use]
    pub fn holds(self, name: &str) -> bool {
        match name {
            "image_id" | "width" | "height" => true,
            IMAGE_BYTES => self.image,
            "regions.bbox" | "regions.score" | "regions.span" | "regions.mask_rle" | "regions.mask_size"
            | "regions.check_ok" => self.geometry,
            "regions.caption_object" | "regions.caption_context" | "regions.caption_merged" => self.captions,
            "regions.short_expr" | "regions.long_expr" | "regions.expressions" => self.captions || self.expressions,
            "caption_long" | "caption_short" | "captions" => self.captions || self.image_captions,
            "regions.hard_negs" | "regions.hard_neg_kinds" => self.hard_negatives,
            "caption_long_emb" | "caption_short_emb" | "regions.text_emb" => self.embeddings,
            "source" | "lang" | "clip_sim_b32" | "clip_sim_l14" | "regions.category" | "image.path" | "image.url"
            | "image.sha256" | "provenance" => self.details,
            _ => false,
        }
    }
}

/// The schema that is written.
#[must_use]
pub fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("image_id", DataType::Utf8, false),
        text("source"),
        Field::new("width", DataType::Int32, false),
        Field::new("height", DataType::Int32, false),
        text("lang"),
        text("caption_long"),
        text("caption_short"),
        texts("captions"),
        Field::new("clip_sim_b32", DataType::Float32, true),
        Field::new("clip_sim_l14", DataType::Float32, true),
        Field::new_list("regions", Field::new_list_field(DataType::Struct(region_fields()), false), false),
        Field::new("caption_long_emb", DataType::Binary, true),
        Field::new("caption_short_emb", DataType::Binary, true),
        text("provenance"),
        Field::new("image", DataType::Struct(image_fields()), false),
    ]))
}

/// Fields of one region.
pub(crate) fn region_fields() -> Fields {
    Fields::from(vec![
        Field::new_list("bbox", Field::new_list_field(DataType::Float32, false), false),
        Field::new("score", DataType::Float32, true),
        Field::new_list("span", Field::new_list_field(DataType::Int32, false), true),
        Field::new("mask_rle", DataType::Binary, true),
        Field::new_list("mask_size", Field::new_list_field(DataType::Int32, false), true),
        text("category"),
        text("caption_object"),
        text("caption_context"),
        text("caption_merged"),
        Field::new("check_ok", DataType::Boolean, true),
        text("short_expr"),
        text("long_expr"),
        texts("expressions"),
        texts("hard_negs"),
        texts("hard_neg_kinds"),
        Field::new("text_emb", DataType::Binary, true),
    ])
}

/// Fields of the picture.
pub(crate) fn image_fields() -> Fields {
    Fields::from(vec![
        text("path"),
        text("url"),
        Field::new("sha256", DataType::FixedSizeBinary(32), true),
        Field::new("bytes", DataType::Binary, true),
    ])
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn texts(name: &str) -> Field {
    Field::new_list(name, Field::new_list_field(DataType::Utf8, false), false)
}

/// The path of a Parquet leaf without the wrappers of lists: `regions.list.element.bbox.list.element` is
/// `regions.bbox`.
#[must_use]
pub fn leaf_name(parts: &[String]) -> String {
    let named = |p: &&String| !matches!(p.as_str(), "list" | "element" | "item" | "array" | "bag");
    parts.iter().filter(named).map(String::as_str).collect::<Vec<_>>().join(".")
}

/// Holds a file's schema against ours.
///
/// # Errors
/// [`ShardError::MissingColumn`], [`ShardError::ColumnType`].
pub fn check(file: &str, schema: &SchemaDescriptor) -> Result<(), ShardError> {
    let leaves: Vec<String> = schema.columns().iter().map(|c| leaf_name(c.path().parts())).collect();
    let find = |name: &str| leaves.iter().position(|n| n == name).map(|at| schema.column(at));
    let wrong = |column: &str, (expected, found)| ShardError::ColumnType {
        file: file.into(),
        column: column.into(),
        expected,
        found,
    };
    for (name, expected) in REQUIRED.iter().chain(&OPTIONAL) {
        match find(name) {
            None if REQUIRED.iter().any(|(n, _)| n == name) => {
                return Err(ShardError::MissingColumn { file: file.into(), column: (*name).into() });
            }
            Some(column) => {
                if let Some(misfit) = adopt::misfit(name, *expected, &column) {
                    return Err(wrong(name, misfit));
                }
            }
            None => {}
        }
    }
    match find(adopt::NO_STRUCT) {
        Some(column) => {
            let expected = "a struct with `bytes`, `path` or `url`".to_owned();
            Err(wrong(adopt::NO_STRUCT, (expected, column.physical_type().to_string())))
        }
        None => Ok(()),
    }
}
