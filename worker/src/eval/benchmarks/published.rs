//! What others published on the benchmarks, as their papers print it (method.md 5.2, 5.3): percent, and who took it how.

use std::collections::BTreeMap;

/// Where a paper has no number.
const NONE: f64 = f64::NAN;

/// A table of a paper.
struct Table {
    source: &'static str,
    /// `benchmark/key`, or `benchmark:split/key` where a split has its own numbers.
    columns: &'static [&'static str],
    rows: &'static [Row],
}

struct Row {
    size: Size,
    method: &'static str,
    /// Percent, one a column.
    values: &'static [f64],
}

/// The vision tower of a row.
#[derive(Clone, Copy)]
enum Size {
    B,
    L,
    L336,
    So,
    H,
    Unknown,
}

impl Size {
    fn words(self) -> &'static str {
        match self {
            Self::B => "B/16",
            Self::L => "L",
            Self::L336 => "L/14 at 336 px",
            Self::So => "So400m/16",
            Self::H => "H",
            Self::Unknown => "",
        }
    }
}

/// A published result on a benchmark.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PublishedRow {
    /// The method.
    pub(crate) method: &'static str,
    /// Its vision tower; empty where the table does not say.
    pub(crate) size: &'static str,
    /// What it was trained on, where that is known.
    pub(crate) data: &'static str,
    /// Who printed it.
    pub(crate) source: &'static str,
    /// Shares between 0 and 1, by the keys of our scores.
    pub(crate) values: BTreeMap<&'static str, f64>,
}

/// What is published of `benchmark` on `split`, table by table.
pub(crate) fn rows(benchmark: &str, split: &str) -> Vec<PublishedRow> {
    let mut found = Vec::new();
    for table in TABLES {
        let key = |column: &'static str| {
            let (of, key) = column.split_once('/')?;
            let (name, own) = of.split_once(':').map_or((of, None), |(name, own)| (name, Some(own)));
            (name == benchmark && own.is_none_or(|own| own == split)).then_some(key)
        };
        let columns: Vec<(usize, &str)> =
            table.columns.iter().enumerate().filter_map(|(i, column)| Some((i, key(column)?))).collect();
        for row in table.rows {
            let values = columns.iter().map(|&(i, key)| (key, row.values[i] / 100.0)).filter(|(_, v)| v.is_finite());
            let values: BTreeMap<_, _> = values.collect();
            if !values.is_empty() {
                let (method, size) = (row.method, row.size.words());
                found.push(PublishedRow { method, size, data: trained_on(method), source: table.source, values });
            }
        }
    }
    found
}

/// What a method was trained on, as far as method.md tells.
fn trained_on(method: &str) -> &'static str {
    let known = [
        ("FG-CLIP 2", "LAION-2B recaptioned and 850 M Chinese pairs, then FineHARD (12 M pictures) and FineRegion-CN"),
        ("FG-CLIP", "1.6 B recaptioned pairs of LAION-2B, then FineHARD (12 M pictures, 40 M boxes)"),
        ("Alpha-CLIP, grit-1m", "CLIP, then GRIT-1M with masks of SAM"),
        ("Alpha-CLIP, grit-20m", "CLIP, then GRIT-20M with masks of SAM"),
        ("Alpha-CLIP, grit-20m+mim", "CLIP, then GRIT-20M with masks of SAM and MaskImageNet"),
        ("Alpha-CLIP, grit+mim", "CLIP, then GRIT with masks of SAM and MaskImageNet"),
    ];
    known.into_iter().find(|(name, _)| *name == method).map_or("", |(_, data)| data)
}

const FGCLIP2: &str = "tables of FG-CLIP 2 (arXiv 2510.10921)";

const TABLES: &[Table] = &[
    Table {
        source: "model zoo of AlphaCLIP (github.com/SunzeY/AlphaCLIP)",
        columns: &["coco-mask/top1"],
        rows: &[
            Row { size: Size::B, method: "CLIP", values: &[50.42] },
            Row { size: Size::B, method: "Alpha-CLIP, grit+mim", values: &[55.39] },
            Row { size: Size::L, method: "Alpha-CLIP, grit+mim", values: &[58.83] },
        ],
    },
    Table {
        source: "model zoo of AlphaCLIP (github.com/SunzeY/AlphaCLIP)",
        columns: &["imagenet-s/top1"],
        rows: &[
            Row { size: Size::B, method: "Alpha-CLIP, grit-1m", values: &[68.31] },
            Row { size: Size::B, method: "Alpha-CLIP, grit-20m", values: &[68.89] },
            Row { size: Size::B, method: "Alpha-CLIP, grit-20m+mim", values: &[69.40] },
            Row { size: Size::L, method: "Alpha-CLIP, grit-1m", values: &[77.22] },
            Row { size: Size::L, method: "Alpha-CLIP, grit-20m", values: &[77.41] },
            Row { size: Size::L, method: "Alpha-CLIP, grit-20m+mim", values: &[77.80] },
            Row { size: Size::L336, method: "Alpha-CLIP, grit-1m", values: &[78.15] },
            Row { size: Size::L336, method: "Alpha-CLIP, grit-20m+mim", values: &[79.61] },
        ],
    },
    Table {
        source: "AlphaCLIP's table in eval/rec_zs_test of PixCLIP (boxes of a detector, not given ones)",
        columns: &[
            "refcoco:val/accuracy",
            "refcoco:testA/accuracy",
            "refcoco:testB/accuracy",
            "refcoco-plus:val/accuracy",
            "refcoco-plus:testA/accuracy",
            "refcoco-plus:testB/accuracy",
            "refcocog:val/accuracy",
            "refcocog:test/accuracy",
        ],
        rows: &[
            Row { size: Size::Unknown, method: "CPT", values: &[32.2, 36.1, 30.3, 31.9, 35.2, 28.8, 36.7, 36.5] },
            Row { size: Size::Unknown, method: "ReCLIP", values: &[45.8, 46.1, 47.1, 47.9, 50.1, 45.1, 59.3, 59.0] },
            Row {
                size: Size::Unknown,
                method: "Red Circle",
                values: &[49.8, 58.6, 39.9, 55.3, 63.9, 45.4, 59.4, 58.9],
            },
            Row {
                size: Size::Unknown,
                method: "Alpha-CLIP",
                values: &[55.7, 61.1, 50.3, 55.6, 62.7, 46.4, 61.2, 62.0],
            },
        ],
    },
    Table {
        source: FGCLIP2,
        columns: &[
            "fgovd-hard/top1",
            "fgovd-medium/top1",
            "fgovd-easy/top1",
            "fgovd-trivial/top1",
            "coco-box/top1",
            "lvis-box/top1",
        ],
        rows: &[
            Row { size: Size::B, method: "CLIP", values: &[12.0, 23.1, 22.2, 58.5, 44.2, 20.9] },
            Row { size: Size::B, method: "EVA-CLIP", values: &[14.0, 30.1, 29.4, 58.3, 30.6, 14.4] },
            Row { size: Size::B, method: "Long-CLIP", values: &[9.2, 18.4, 16.2, 51.8, 36.7, 18.2] },
            Row { size: Size::B, method: "FineCLIP", values: &[26.8, 49.8, 50.4, 71.9, 48.4, 23.3] },
            Row { size: Size::B, method: "SigLIP 2", values: &[24.9, 46.5, 48.7, 85.0, 53.4, 20.6] },
            Row { size: Size::B, method: "FG-CLIP", values: &[46.1, 66.6, 68.7, 83.4, 52.3, 28.6] },
            Row { size: Size::B, method: "FG-CLIP 2", values: &[52.3, 76.3, 80.3, 92.0, 74.9, 47.3] },
            Row { size: Size::L, method: "CLIP", values: &[15.4, 25.3, 25.7, 38.8, 33.8, 9.3] },
            Row { size: Size::L, method: "EVA-CLIP", values: &[18.3, 38.4, 35.2, 62.7, 32.1, 18.3] },
            Row { size: Size::L, method: "Long-CLIP", values: &[9.6, 19.7, 16.0, 39.8, 35.6, 10.4] },
            Row { size: Size::L, method: "FineCLIP", values: &[22.8, 46.0, 46.0, 73.6, 54.5, 22.5] },
            Row { size: Size::L, method: "SigLIP 2", values: &[24.1, 47.1, 47.4, 84.1, 54.7, 25.9] },
            Row { size: Size::L, method: "CLOC", values: &[NONE, NONE, NONE, NONE, 72.9, 32.6] },
            Row { size: Size::L, method: "FG-CLIP", values: &[48.4, 69.5, 71.2, 89.7, 63.2, 38.3] },
            Row { size: Size::L, method: "FG-CLIP 2", values: &[55.5, 77.5, 83.1, 92.5, 74.0, 41.9] },
            Row { size: Size::H, method: "MetaCLIP 2", values: &[16.5, 36.6, 34.7, 79.6, 52.0, 24.4] },
            Row { size: Size::So, method: "SigLIP 2", values: &[26.0, 48.7, 49.9, 87.4, 62.0, 31.4] },
            Row { size: Size::So, method: "FG-CLIP 2", values: &[54.0, 77.4, 79.8, 93.5, 77.4, 43.9] },
        ],
    },
    Table {
        source: FGCLIP2,
        columns: &[
            "sharegpt4v/image_to_text_r1",
            "sharegpt4v/text_to_image_r1",
            "dci/image_to_text_r1",
            "dci/text_to_image_r1",
            "coco-retrieval/image_to_text_r1",
            "coco-retrieval/text_to_image_r1",
            "flickr30k/image_to_text_r1",
            "flickr30k/text_to_image_r1",
            "imagenet/top1",
            "imagenet-v2/top1",
        ],
        rows: RETRIEVAL,
    },
];

const RETRIEVAL: &[Row] = &[
    Row { size: Size::B, method: "CLIP", values: &[78.2, 79.6, 45.5, 43.0, 51.8, 32.7, 82.2, 62.1, 68.4, 61.9] },
    Row { size: Size::B, method: "EVA-CLIP", values: &[90.5, 85.5, 41.9, 41.2, 58.7, 41.6, 85.7, 71.2, 74.7, 67.0] },
    Row { size: Size::B, method: "Long-CLIP", values: &[94.7, 93.4, 51.7, 57.3, 57.6, 40.4, 85.9, 70.7, 66.8, 61.2] },
    Row { size: Size::B, method: "FineCLIP", values: &[70.6, 73.3, 35.5, 34.4, 54.5, 40.2, 82.5, 67.9, 55.7, 48.8] },
    Row { size: Size::B, method: "FG-CLIP", values: &[96.7, 94.9, 61.8, 60.6, 64.1, 45.4, 90.7, 76.4, 69.0, 61.8] },
    Row { size: Size::B, method: "FG-CLIP 2", values: &[95.8, 95.4, 64.5, 64.9, 72.1, 54.5, 94.1, 81.9, 79.5, 72.2] },
    Row { size: Size::L, method: "CLIP", values: &[86.5, 83.6, 37.2, 36.4, 58.0, 37.1, 87.4, 67.3, 76.6, 70.9] },
    Row { size: Size::L, method: "Long-CLIP", values: &[95.8, 95.6, 44.2, 52.5, 62.8, 46.3, 90.0, 76.2, 73.5, 67.9] },
    Row { size: Size::L, method: "FG-CLIP", values: &[97.4, 96.8, 66.7, 66.1, 68.9, 50.9, 93.7, 81.5, 76.1, 69.0] },
    Row { size: Size::L, method: "FG-CLIP 2", values: &[96.9, 96.6, 70.0, 71.6, 75.1, 58.6, 96.6, 84.8, 83.0, 77.4] },
    Row { size: Size::So, method: "FG-CLIP 2", values: &[97.5, 96.7, 70.6, 72.1, 74.6, 56.7, 95.9, 85.0, 84.1, 77.8] },
];

#[cfg(test)]
mod tests {
    use super::super::table::BENCHMARKS;
    use super::*;

    #[test]
    fn every_column_is_of_a_benchmark_and_every_row_is_full() {
        for table in TABLES {
            for column in table.columns {
                let (of, _) = column.split_once('/').expect("a key");
                let name = of.split_once(':').map_or(of, |(name, _)| name);
                assert!(BENCHMARKS.iter().any(|b| b.name == name), "{column}");
            }
            assert!(table.rows.iter().all(|row| row.values.len() == table.columns.len()), "{}", table.source);
        }
    }

    #[test]
    fn a_split_has_its_own_numbers_and_a_gap_is_no_number() {
        let alpha = |split| {
            let rows = rows("refcoco", split);
            rows.iter().find(|row| row.method == "Alpha-CLIP").map(|row| row.values["accuracy"])
        };
        assert_eq!((alpha("val"), alpha("testB"), alpha("train")), (Some(0.557), Some(0.503), None));
        assert_eq!(rows("fgovd-hard", "hard").len(), 17, "CLOC has none");
        let fg = rows("coco-retrieval", "any").into_iter().find(|r| r.method == "FG-CLIP" && r.size == "B/16");
        let fg = fg.expect("published");
        assert!((fg.values["text_to_image_r1"] - 0.454).abs() < 1e-12 && fg.data.contains("FineHARD"));
        assert!(rows("lvis-mask", "val").is_empty());
    }
}
