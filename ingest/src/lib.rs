//! Datasets of other formats -> shards: COCO, LVIS, RefCOCO, GRIT, AlphaCLIP's GRIT, FineHARD, FG-OVD, webdataset, JSON lines
//! and other writers' Parquet; and LLM2CLIP's caption vectors -> vectors beside the rows. Sources are streamed, never held;
//! what cannot become a row is named; an ingest that was killed goes on.
//!
//! `records` finds records in files, `formats` knows what they mean, `draft` checks them with their pictures, `run` moves
//! them, `ledger` remembers how far it is. Rows are written by `pixfleet_shards`, whose rules they keep. `vectors` joins
//! vectors to rows that are there.

mod cell;
mod draft;
mod error;
mod fetch;
mod formats;
mod geometry;
mod input;
mod job;
mod ledger;
mod pictures;
mod records;
mod reject;
mod run;
mod vectors;
mod work;

pub use draft::PictureCheck;
pub use error::IngestError;
pub use fetch::Politeness;
pub use formats::Format;
pub use formats::row::FieldMap;
pub use geometry::BoxForm;
pub use input::STDIN;
pub use job::Ingest;
pub use ledger::IngestCounts;
pub use pictures::PicturesFrom;
pub use reject::{Reject, RejectCounts, RejectKind, RejectLimit};
pub use run::{IngestProgress, Ingested, SAMPLES_KEPT, dry_run, ingest};
pub use vectors::{LLM2CLIP_KEY, VectorIngest, dry_run_vectors, ingest_vectors};

#[cfg(test)]
mod tests;
