//! What records of each format mean.

pub(crate) mod coco;
pub(crate) mod finehard;
pub(crate) mod grit;
pub(crate) mod row;
pub(crate) mod webdataset;

use crate::cell::{Cell, Wrong};
use crate::draft::Draft;
use crate::geometry::BoxForm;
use crate::records::{Body, Found};
use crate::reject::{Reject, RejectKind, Spot};
use row::FieldMap;

/// A format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// COCO's instances, with captions.
    Coco,
    /// Tar files of pictures, grouped by basename.
    Webdataset,
    /// AlphaCLIP's GRIT: pictures with a JSON record and masks each.
    AlphaclipGrit,
    /// FG-CLIP's FineHARD.
    Finehard,
    /// Other writers' Parquet.
    Parquet,
    /// A JSON object a line.
    Jsonl,
    /// GRIT: Parquet of addresses, or img2dataset's files.
    Grit,
    /// LVIS.
    Lvis,
    /// RefCOCO, RefCOCO+ and RefCOCOg.
    Refcoco,
    /// FG-OVD.
    FgOvd,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Coco,
        Self::Webdataset,
        Self::AlphaclipGrit,
        Self::Finehard,
        Self::Parquet,
        Self::Jsonl,
        Self::Grit,
        Self::Lvis,
        Self::Refcoco,
        Self::FgOvd,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Coco => "coco",
            Self::Webdataset => "webdataset",
            Self::AlphaclipGrit => "alphaclip-grit",
            Self::Finehard => "finehard",
            Self::Parquet => "parquet",
            Self::Jsonl => "jsonl",
            Self::Grit => "grit",
            Self::Lvis => "lvis",
            Self::Refcoco => "refcoco",
            Self::FgOvd => "fg-ovd",
        }
    }

    /// Endings of the files of a folder that are read.
    pub(crate) fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Coco | Self::Lvis | Self::Refcoco | Self::Finehard => &[".json"],
            Self::Webdataset => &[".tar"],
            Self::AlphaclipGrit => &[".tar", ".json", ".jpg", ".jpeg", ".png", ".webp"],
            Self::Grit => &[".parquet", ".tar", ".json", ".jpg", ".jpeg", ".png", ".webp"],
            Self::Parquet => &[".parquet"],
            Self::Jsonl | Self::FgOvd => &[".jsonl", ".ndjson", ".json"],
        }
    }

    /// What `source` says in rows that do not say it themselves.
    fn source(self) -> &'static str {
        match self {
            Self::AlphaclipGrit => "alphaclip",
            Self::Webdataset | Self::Parquet | Self::Jsonl => "custom",
            Self::Coco | Self::Finehard | Self::Grit | Self::Lvis | Self::Refcoco | Self::FgOvd => self.name(),
        }
    }
}

/// What a record is read with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    pub(crate) map: FieldMap,
    pub(crate) boxes: BoxForm,
}

/// A record became this.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meant {
    Draft(Box<Draft>),
    Refused(Reject),
    /// A record of the source that is no row of what was asked for.
    PassedOver,
}

impl Format {
    /// What a record means.
    pub(crate) fn mean(self, found: Found, reading: &Reading) -> Meant {
        let Found { spot, body, .. } = found;
        if let Body::Refused(reject) = body {
            return Meant::Refused(reject);
        }
        match self.draft(&body, spot.clone(), reading) {
            Ok(Some(draft)) => Meant::Draft(Box::new(draft)),
            Ok(None) => Meant::PassedOver,
            Err(wrong) => Meant::Refused(spot.reject(wrong)),
        }
    }

    fn draft(self, body: &Body, spot: Spot, reading: &Reading) -> Result<Option<Draft>, Wrong> {
        let source = self.source();
        let Reading { map, boxes } = reading;
        match (self, body) {
            (Self::Coco | Self::Lvis, Body::Joined(joined)) => {
                coco::draft(joined, spot, coco::Regions::Annotations, source)
            }
            (Self::Refcoco, Body::Joined(joined)) => coco::draft(joined, spot, coco::Regions::References, source),
            (Self::Webdataset, Body::Group(members)) => webdataset::draft(members, spot, map, *boxes, source).map(Some),
            (Self::AlphaclipGrit | Self::Grit, Body::Group(members)) => {
                grit::of_group(members, spot, source, self == Self::AlphaclipGrit).map(Some)
            }
            (Self::Grit, Body::Cells(cell)) => grit::draft(cell, spot, source, false).map(Some),
            (Self::Parquet, Body::Cells(cell)) => row::draft(cell, spot, map, *boxes, source).map(Some),
            (Self::Jsonl, Body::Json(json)) => row::draft(&Cell::parse(json)?, spot, map, *boxes, source).map(Some),
            (Self::Finehard, Body::Json(json)) => finehard::draft(&Cell::parse(json)?, spot, source).map(Some),
            (Self::FgOvd, Body::Lines(lines)) => finehard::fg_ovd(lines, source).map(Some),
            (format, _) => {
                Err(Wrong::new(RejectKind::Field, "", "a record of another kind", format!("one of {}", format.name())))
            }
        }
    }
}
