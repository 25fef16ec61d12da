//! The given tensors of FG-CLIP's probe, checked and brought into slots.

use super::BOXES;
use anyhow::{Context, Result, bail, ensure};
use pixfleet_cluster::spec::terms::{HARD_TEXTS, Set};
use pixfleet_model::{BySet, Inputs, Slots, TextItems, TokenIds};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use tch::{Kind, Tensor};

/// Where CLIP's texts end.
const END: i64 = pixfleet_shards::tokens::END as i64;
/// Every tensor's name.
const NAMES: [&str; 9] = [
    "pixels",
    "text_long",
    "text_short",
    "boxes",
    "box_counts",
    "text_region",
    "hard_boxes",
    "hard_counts",
    "text_hard",
];

/// The model's inputs from the bytes of `origin`; `side`: pixels along the model's square input.
///
/// # Errors
/// A missing, unknown or misshapen tensor, counts beyond a row's boxes, boxes outside 0..1 or empty, texts without an end,
/// each by name with what was expected.
pub(crate) fn read(bytes: &[u8], origin: &str, side: i64) -> Result<Inputs> {
    let file =
        SafeTensors::deserialize(bytes).with_context(|| format!("{origin} is not a readable safetensors file"))?;
    if let Some(name) = file.names().into_iter().find(|name| !NAMES.contains(name)) {
        bail!("{origin}: unknown tensor `{name}`; expected {}", NAMES.join(", "));
    }
    let given = Given { file, origin };
    let pixels = given.floats("pixels", &[None, Some(3), Some(side), Some(side)])?;
    let n = pixels.size()[0];
    ensure!(n > 0, "{origin}: tensor `pixels` has no rows");
    let counts = given.counts("box_counts", n)?;
    let hard_counts = given.counts("hard_counts", n)?;
    let (boxes, hard_boxes) = (given.boxes("boxes", n, &counts)?, given.boxes("hard_boxes", n, &hard_counts)?);

    // Slots 0..4 of a row hold its boxes, 4..8 its hard ones.
    let (mut regions, mut texts, mut hard, mut all, mut rows) = (vec![], vec![], vec![], vec![], vec![]);
    for row in 0..n {
        for k in 0..counts[row as usize] {
            regions.push(row * 2 * BOXES + k);
            texts.push(row * 2 * BOXES + k);
            rows.push(row * BOXES + k);
            all.push(boxes.get(row).get(k));
        }
        for k in 0..hard_counts[row as usize] {
            regions.push(row * 2 * BOXES + BOXES + k);
            hard.push(row * 2 * BOXES + BOXES + k);
            all.push(hard_boxes.get(row).get(k));
        }
    }
    let region_texts = given.ids("text_region", BOXES * n)?.index_select(0, &Tensor::from_slice(&rows));
    let hard_texts = given.ids("text_hard", hard.len() as i64 * i64::from(HARD_TEXTS))?;
    let slots = |valid| Slots::of(n, 2 * BOXES, valid);
    let slots = BySet::default()
        .with(Set::LongText, Slots::all(n, 1))
        .with(Set::ShortText, Slots::all(n, 1))
        .with(Set::Region, slots(regions)?)
        .with(Set::RegionText, slots(texts)?)
        .with(Set::HardText, slots(hard)?);
    let tokens = |name: &str, ids| Ok::<_, anyhow::Error>(TextItems::Tokens(given.tokens(name, ids)?));
    let texts = BySet::default()
        .with(Set::LongText, tokens("text_long", given.ids("text_long", n)?)?)
        .with(Set::ShortText, tokens("text_short", given.ids("text_short", n)?)?)
        .with(Set::RegionText, tokens("text_region", region_texts)?)
        .with(Set::HardText, tokens("text_hard", hard_texts)?);
    let boxes = if all.is_empty() { Tensor::zeros([0, 4], tch::kind::FLOAT_CPU) } else { Tensor::stack(&all, 0) };
    Ok(Inputs { pixels, mask: None, crop_pixels: None, crop_mask: None, boxes: Some(boxes), slots, texts })
}

/// The file that was given.
struct Given<'f> {
    file: SafeTensors<'f>,
    origin: &'f str,
}

impl Given<'_> {
    /// A tensor of one of the `kinds` and of `shape`, `None` standing for any length.
    fn tensor(&self, name: &str, shape: &[Option<i64>], kinds: &[(Dtype, Kind)]) -> Result<Tensor> {
        let origin = self.origin;
        let wanted = shape.iter().map(|s| s.map_or("N".into(), |s| s.to_string())).collect::<Vec<_>>().join(", ");
        let Ok(view) = self.file.tensor(name) else {
            bail!("{origin}: tensor `{name}` is missing; expected shape [{wanted}]");
        };
        let Some((_, kind)) = kinds.iter().find(|(dtype, _)| *dtype == view.dtype()) else {
            let known = kinds.iter().map(|(dtype, _)| format!("{dtype:?}")).collect::<Vec<_>>().join(" or ");
            bail!("{origin}: tensor `{name}` is of {:?}; expected {known}", view.dtype());
        };
        let found: Vec<i64> = view.shape().iter().map(|&s| s as i64).collect();
        if found.len() != shape.len() || found.iter().zip(shape).any(|(f, s)| s.is_some_and(|s| s != *f)) {
            bail!("{origin}: tensor `{name}` has shape {found:?}; expected [{wanted}]");
        }
        if found.contains(&0) {
            return Ok(Tensor::zeros(&found, (*kind, tch::Device::Cpu)));
        }
        Ok(Tensor::f_from_data_size(view.data(), &found, *kind)?)
    }

    fn floats(&self, name: &str, shape: &[Option<i64>]) -> Result<Tensor> {
        let kinds = [(Dtype::F32, Kind::Float), (Dtype::F16, Kind::Half), (Dtype::BF16, Kind::BFloat16)];
        Ok(self.tensor(name, shape, &kinds)?.to_kind(Kind::Float))
    }

    fn whole(&self, name: &str, shape: &[Option<i64>]) -> Result<Tensor> {
        Ok(self.tensor(name, shape, &[(Dtype::I64, Kind::Int64), (Dtype::I32, Kind::Int)])?.to_kind(Kind::Int64))
    }

    /// How many of a row's boxes count.
    fn counts(&self, name: &str, n: i64) -> Result<Vec<i64>> {
        let counts = Vec::<i64>::try_from(self.whole(name, &[Some(n)])?)?;
        if let Some(row) = counts.iter().position(|c| !(0..=BOXES).contains(c)) {
            bail!("{}: `{name}` row {row} is {}; expected 0 to {BOXES}", self.origin, counts[row]);
        }
        Ok(counts)
    }

    /// [n, 4, 4]; those that count lie in 0..1 and have an area.
    fn boxes(&self, name: &str, n: i64, counts: &[i64]) -> Result<Tensor> {
        let boxes = self.floats(name, &[Some(n), Some(BOXES), Some(4)])?;
        for (row, &count) in (0i64..).zip(counts) {
            for k in 0..count {
                let b: Vec<f64> = (0..4).map(|i| boxes.double_value(&[row, k, i])).collect();
                if !b.iter().all(|v| (0.0..=1.0).contains(v)) || b[0] >= b[2] || b[1] >= b[3] {
                    bail!(
                        "{}: `{name}` row {row}, box {k} is {b:?}; expected x1 < x2, y1 < y2 as fractions of the image in 0..1",
                        self.origin
                    );
                }
            }
        }
        Ok(boxes)
    }

    /// Token ids [rows, length].
    fn ids(&self, name: &str, rows: i64) -> Result<Tensor> {
        if rows == 0 && self.file.tensor(name).is_err() {
            return Ok(Tensor::zeros([0, 1], tch::kind::INT64_CPU));
        }
        self.whole(name, &[Some(rows), None])
    }

    /// With each text's length, to its first end.
    fn tokens(&self, name: &str, ids: Tensor) -> Result<TokenIds> {
        let mut lengths = Vec::new();
        for row in 0..ids.size()[0] {
            let text = Vec::<i64>::try_from(ids.get(row))?;
            let Some(end) = text.iter().position(|id| *id == END) else {
                bail!("{}: `{name}` row {row} has no end, the id {END}", self.origin);
            };
            lengths.push(end as i64 + 1);
        }
        Ok(TokenIds { ids, lengths })
    }
}
