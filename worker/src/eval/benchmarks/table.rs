//! Every benchmark as a description: what it asks, of which data, by which published protocol (method.md 5.1). To add one is
//! to add an entry here, and its published rows in `published.rs`.

use super::protocol::{CaptionKind, Names, Protocol, Show};
use super::score::{Average, Ties};
use crate::eval::templates::Prompts;
use anyhow::{Context, Result};
use pixfleet_shards::sample::Frame;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Which category a region is of.
    Name,
    /// Which category a picture is of.
    NamePicture,
    /// Which text is true of a region, among negatives.
    Choose,
    /// Which region of a picture an expression means.
    Refer,
    /// Which caption is of a picture, and which picture a caption is of.
    Retrieve,
}

impl Task {
    /// Whether regions are shown, and not pictures.
    pub(crate) fn shows_regions(self) -> bool {
        match self {
            Self::Name | Self::Choose | Self::Refer => true,
            Self::NamePicture | Self::Retrieve => false,
        }
    }

    /// The column that its answers stand in.
    pub(crate) fn needs(self, protocol: &Protocol) -> &'static str {
        match (self, protocol.captions) {
            (Self::Name, _) if protocol.show == Show::Mask => {
                "regions with `category` and a mask (`mask_rle`, `mask_size`)"
            }
            (Self::Name, _) => "regions with `category`",
            (Self::NamePicture, _) => "pictures whose one region has the picture's `category`",
            (Self::Choose, _) => "regions with `short_expr` and `hard_negs`",
            (Self::Refer, _) => "regions with `expressions`",
            (Self::Retrieve, CaptionKind::All) => "pictures with `captions`",
            (Self::Retrieve, CaptionKind::Long) => "pictures with `caption_long`",
            (Self::Retrieve, CaptionKind::Short) => "pictures with `caption_short`",
        }
    }
}

/// One benchmark.
#[derive(Debug)]
pub(crate) struct Benchmark {
    /// As it is typed.
    pub(crate) name: &'static str,
    /// As people call it.
    pub(crate) title: &'static str,
    /// What is asked.
    pub(crate) task: Task,
    /// The split that it is published on, unless another is typed.
    pub(crate) split: &'static str,
    /// How many of what the published data hold.
    pub(crate) size: (u64, Unit),
    /// Category names of the published data; 0 where none are asked.
    pub(crate) classes: usize,
    /// As published.
    pub(crate) protocol: Protocol,
    /// Where the protocol is written down.
    pub(crate) source: &'static str,
    /// What `pixfleet shards ingest` is given to make the data.
    pub(crate) ingest: &'static str,
    /// What is done otherwise here, whatever is typed.
    pub(crate) otherwise: &'static [&'static str],
}

/// What a benchmark counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Pictures.
    Pictures,
    /// Regions.
    Regions,
    /// Expressions.
    Expressions,
}

impl Unit {
    /// In words.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pictures => "pictures",
            Self::Regions => "regions",
            Self::Expressions => "expressions",
        }
    }
}

/// The benchmark called `name`.
///
/// # Errors
/// An unknown name, with all that are known.
pub(crate) fn find(name: &str) -> Result<&'static Benchmark> {
    BENCHMARKS.iter().find(|b| b.name == name).with_context(|| {
        let names: Vec<&str> = BENCHMARKS.iter().map(|b| b.name).collect();
        format!("there is no benchmark `{name}`; there are {} (docs/benchmarks.md)", names.join(", "))
    })
}

/// What most of them have in common.
const PLAIN: Protocol = Protocol {
    show: Show::Pool,
    frame: Frame::Squash,
    blur: false,
    full_mask_value: 1.0,
    prompts: Prompts::Bare,
    names: Names::Words,
    lower: false,
    long: false,
    captions: CaptionKind::All,
    per_picture: None,
    first: None,
    average: Average::Micro,
    ties: Ties::Share,
};
const MASKED: Protocol =
    Protocol { show: Show::Mask, prompts: Prompts::Plain, average: Average::Class, names: Names::Raw, ..PLAIN };
const BOXES: Protocol = Protocol { prompts: Prompts::Imagenet80, ..PLAIN };
/// The mask of a whole picture is the one that the model was trained on.
const PICTURES: Protocol = Protocol { prompts: Prompts::Imagenet80, full_mask_value: 0.5 / 0.26, ..PLAIN };
const NEGATIVES: Protocol = Protocol { ties: Ties::Right, ..PLAIN };
const REFER: Protocol = Protocol { show: Show::Mask, blur: true, prompts: Prompts::PhotoOf, lower: true, ..PLAIN };
const FIVE: Protocol = Protocol { per_picture: Some(5), ..PLAIN };
const LONG: Protocol = Protocol { captions: CaptionKind::Long, long: true, ..PLAIN };

/// Of PixCLIP's scripts for retrieval.
const UNIT: &str = "features have length 1 here; PixCLIP's script ranks by their plain products";
const CROP: &str = "the published script pads a picture by 600 pixels of white and cuts there; here white has no end";
const GIVEN: &str = "boxes are the regions of each picture, masks their own; published rows choose among a detector's boxes with \
                     masks of SAM, and take expressions apart (ReCLIP)";

const ALPHA: &str = "AlphaCLIP and PixCLIP, eval/COCO";
const FG: &str = "FG-CLIP, fgclip/eval";
const RECLIP: &str = "PixCLIP and AlphaCLIP, eval/rec_zs_test";

const COCO: &str = "coco instances_val2017.json --images val2017";
const LVIS: &str = "lvis lvis_v1_val.json --images .";
const WHOLE: &str = "jsonl FILE --images FOLDER, with one region [0, 0, 1, 1] of each picture";
const REFS: &str = "refcoco refs.json --instances instances.json --images train2014";
const LINES: &str = "jsonl FILE --images FOLDER";

const fn negatives(
    (name, title): (&'static str, &'static str),
    split: &'static str,
    regions: u64,
    ingest: &'static str,
) -> Benchmark {
    let (task, size, source) = (Task::Choose, (regions, Unit::Regions), FG);
    Benchmark { name, title, task, split, size, classes: 0, protocol: NEGATIVES, source, ingest, otherwise: &[] }
}

const fn refer(name: &'static str, title: &'static str, expressions: u64) -> Benchmark {
    let (task, split, size, ingest) = (Task::Refer, "val", (expressions, Unit::Expressions), REFS);
    Benchmark {
        name,
        title,
        task,
        split,
        size,
        classes: 0,
        protocol: REFER,
        source: RECLIP,
        ingest,
        otherwise: &[GIVEN],
    }
}

const fn retrieve(
    (name, title): (&'static str, &'static str),
    split: &'static str,
    pictures: u64,
    protocol: Protocol,
    (source, ingest, otherwise): (&'static str, &'static str, &'static [&'static str]),
) -> Benchmark {
    let (task, size) = (Task::Retrieve, (pictures, Unit::Pictures));
    Benchmark { name, title, task, split, size, classes: 0, protocol, source, ingest, otherwise }
}

/// All of them.
pub(crate) const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "coco-mask",
        title: "COCO, masked classification",
        task: Task::Name,
        split: "val",
        size: (36_781, Unit::Regions),
        classes: 80,
        protocol: Protocol { frame: Frame::Crop { scale: 1.5 }, ..MASKED },
        source: ALPHA,
        ingest: COCO,
        otherwise: &[CROP],
    },
    Benchmark {
        name: "lvis-mask",
        title: "LVIS, masked classification",
        task: Task::Name,
        split: "val",
        size: (244_707, Unit::Regions),
        classes: 1203,
        protocol: Protocol { frame: Frame::Pad, ..MASKED },
        source: ALPHA,
        ingest: LVIS,
        otherwise: &[],
    },
    Benchmark {
        name: "coco-box",
        title: "COCO, classification of boxes",
        task: Task::Name,
        split: "val",
        size: (36_781, Unit::Regions),
        classes: 80,
        protocol: BOXES,
        source: FG,
        ingest: COCO,
        otherwise: &[],
    },
    Benchmark {
        name: "lvis-box",
        title: "LVIS, classification of boxes",
        task: Task::Name,
        split: "val",
        size: (244_707, Unit::Regions),
        classes: 1203,
        protocol: BOXES,
        source: FG,
        ingest: LVIS,
        otherwise: &[],
    },
    negatives(
        ("fgovd-hard", "FG-OVD, hard negatives"),
        "hard",
        3545,
        "fg-ovd hard_attributes_llava.jsonl --images val2017",
    ),
    negatives(
        ("fgovd-medium", "FG-OVD, medium negatives"),
        "medium",
        2968,
        "fg-ovd medium_attributes_llava.jsonl --images val2017",
    ),
    negatives(
        ("fgovd-easy", "FG-OVD, easy negatives"),
        "easy",
        1299,
        "fg-ovd easy_attributes_llava.jsonl --images val2017",
    ),
    negatives(
        ("fgovd-trivial", "FG-OVD, trivial negatives"),
        "trivial",
        3545,
        "fg-ovd shuffle_negatives_llava.jsonl --images val2017",
    ),
    refer("refcoco", "RefCOCO, from given boxes", 10_834),
    refer("refcoco-plus", "RefCOCO+, from given boxes", 10_758),
    refer("refcocog", "RefCOCOg, from given boxes", 4896),
    retrieve(
        ("coco-retrieval", "COCO, retrieval"),
        "val",
        5000,
        FIVE,
        (FG, "coco instances_val2017.json --captions captions_val2017.json --images val2017", &[]),
    ),
    retrieve(("flickr30k", "Flickr30k, retrieval"), "test", 1000, FIVE, (FG, LINES, &[])),
    retrieve(
        ("urban1k", "Urban1k, retrieval by long captions"),
        "test",
        1000,
        LONG,
        ("PixCLIP, eval/Urban1k", LINES, &[UNIT]),
    ),
    retrieve(
        ("docci", "DOCCI, retrieval by long captions"),
        "test",
        1000,
        Protocol { first: Some(1000), ..LONG },
        ("PixCLIP, eval/docci", LINES, &[UNIT]),
    ),
    retrieve(
        ("sharegpt4v", "ShareGPT4V-1k, retrieval by long captions"),
        "test",
        1000,
        Protocol { first: Some(1000), ..LONG },
        (FG, LINES, &[]),
    ),
    retrieve(("dci", "DCI, retrieval by long captions"), "test", 7805, LONG, (FG, LINES, &[])),
    Benchmark {
        name: "imagenet",
        title: "ImageNet-1K, zero-shot",
        task: Task::NamePicture,
        split: "val",
        size: (50_000, Unit::Pictures),
        classes: 1000,
        protocol: PICTURES,
        source: FG,
        ingest: WHOLE,
        otherwise: &[],
    },
    Benchmark {
        name: "imagenet-v2",
        title: "ImageNet-v2, zero-shot",
        task: Task::NamePicture,
        split: "test",
        size: (10_000, Unit::Pictures),
        classes: 1000,
        protocol: PICTURES,
        source: FG,
        ingest: WHOLE,
        otherwise: &[],
    },
    Benchmark {
        name: "imagenet-s",
        title: "ImageNet-S, zero-shot with masks",
        task: Task::Name,
        split: "val",
        size: (12_419, Unit::Regions),
        classes: 919,
        protocol: Protocol { frame: Frame::Center, ..MASKED },
        source: "AlphaCLIP, eval/imagenet_s_zs_test",
        ingest: LINES,
        otherwise: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_told_apart_and_an_unknown_one_is_told_all() {
        let names: BTreeSet<&str> = BENCHMARKS.iter().map(|b| b.name).collect();
        assert_eq!(names.len(), BENCHMARKS.len());
        let error = find("coco").expect_err("no such benchmark").to_string();
        assert!(error.contains("no benchmark `coco`") && names.iter().all(|n| error.contains(n)), "{error}");
    }

    #[test]
    fn the_document_tells_of_every_benchmark_and_its_split() {
        let document = include_str!("../../../../docs/benchmarks.md");
        for benchmark in BENCHMARKS {
            let row = format!("| `{}` |", benchmark.name);
            let line = document.lines().find(|line| line.starts_with(&row));
            let line = line.unwrap_or_else(|| panic!("docs/benchmarks.md has no row {row}"));
            assert!(line.contains(&format!("`{}`", benchmark.split)), "{line}: split {}", benchmark.split);
        }
    }
}
