//! The text towers behind one face. A new one is a file or folder of its own, a name in the run file's `model.text`, and
//! an arm here.

use pixfleet_cluster::spec::terms::Set;
use pixfleet_cluster::spec::{ModelSpec, Needs, TextPreset};
use tch::{Kind, Tensor};

use crate::clip::{ClipText, ClipTextConfig, TextPath};
use crate::error::ModelError;
use crate::host::put;
use crate::items::{TextItems, TokenIds};
use crate::params::{Builder, ParamGroup, Weights};
use crate::text_proj::TextProj;

/// Lengths of texts that go through a tower together differ by less than this: 44 texts an image, most of them short, would
/// otherwise cost what the longest costs.
const BUCKET: i64 = 16;

/// A text tower of any kind.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a model has one, for as long as it lives")]
pub enum TextTower {
    /// The adapter over stored vectors of a frozen encoder (method.md 1.5).
    Adapter(TextProj),
    /// CLIP's text transformer over token ids (method.md 4.1), Hugging Face's names.
    Clip(ClipText),
}

impl TextTower {
    /// Registers the parameters at `root`; `embed` is the joint width D.
    pub(super) fn new(spec: &ModelSpec, needs: &Needs, embed: i64, root: &mut Builder<'_>) -> Self {
        match ClipTextConfig::of(spec, needs.has(Set::LongText)) {
            Some(clip) => Self::Clip(ClipText::new(&clip, root)),
            None => {
                let mut at = root.of(ParamGroup::Text);
                Self::Adapter(TextProj::new(&spec.text_proj, embed, &mut at.below("text.text_adaptor")))
            }
        }
    }

    /// The adapter, if that is what it is.
    #[must_use]
    pub fn adapter(&self) -> Option<&TextProj> {
        match self {
            Self::Adapter(adapter) => Some(adapter),
            Self::Clip(_) => None,
        }
    }

    /// The texts of a set as unit vectors, [k, D] fp32, with a graph also where there is none of them.
    ///
    /// # Errors
    /// [`ModelError::Shape`] for vectors of another width, [`ModelError::TextKind`] for texts that this tower cannot read,
    /// those of the tower.
    pub fn forward(&self, w: &Weights<'_>, set: Set, texts: &TextItems) -> Result<Tensor, ModelError> {
        match (self, texts) {
            (Self::Adapter(adapter), TextItems::Vectors(vectors)) => {
                let found = vectors.size();
                if found.len() != 2 || found[1] != adapter.width() {
                    let expected = format!("[texts, {}]", adapter.width());
                    return Err(ModelError::Shape { what: set.name().into(), expected, found });
                }
                Ok(adapter.forward(w, vectors))
            }
            (Self::Clip(clip), TextItems::Tokens(tokens)) => by_length(clip, w, tokens, path(set)),
            (Self::Adapter(_), TextItems::Tokens(_)) => {
                Err(ModelError::TextKind { set: set.name(), expected: "stored vectors", found: "token ids" })
            }
            (Self::Clip(_), TextItems::Vectors(_)) => {
                Err(ModelError::TextKind { set: set.name(), expected: "token ids", found: "stored vectors" })
            }
        }
    }
}

/// Long captions have positions and a projection of their own.
fn path(set: Set) -> TextPath {
    if set == Set::LongText { TextPath::Long } else { TextPath::Short }
}

/// Texts of like length together, each bucket cut to its longest; the result is in the texts' order.
fn by_length(clip: &ClipText, w: &Weights<'_>, texts: &TokenIds, path: TextPath) -> Result<Tensor, ModelError> {
    let lengths = &texts.lengths;
    if lengths.is_empty() {
        // Parameters that only these texts reach must get a gradient all the same.
        let config = clip.config();
        let end = Tensor::f_full([1, 1], config.eot, (Kind::Int64, texts.ids.device()))?;
        return Ok(clip.forward(w, &end, path)?.f_narrow(0, 0, 0)?);
    }
    let mut order: Vec<i64> = (0..lengths.len() as i64).collect();
    order.sort_by_key(|&i| lengths[i as usize]);
    let buckets = order.chunk_by(|&a, &b| (lengths[a as usize] - 1) / BUCKET == (lengths[b as usize] - 1) / BUCKET);
    let cut = |bucket: &[i64]| {
        let longest = bucket.iter().map(|&i| lengths[i as usize]).max().unwrap_or(1);
        let index = Tensor::from_slice(bucket);
        texts.ids.f_index_select(0, &index)?.f_narrow(1, 0, longest)
    };
    let buckets = buckets.map(cut).collect::<Result<Vec<_>, _>>()?;
    let features = clip.forward_each(w, &buckets, path)?;
    if let [one] = features.as_slice()
        && order.is_sorted()
    {
        return Ok(one.shallow_clone());
    }
    let mut places = vec![0i64; order.len()];
    for (place, &text) in (0..).zip(&order) {
        places[text as usize] = place;
    }
    let features = Tensor::f_cat(&features, 0)?;
    Ok(features.f_index_select(0, &put(&Tensor::from_slice(&places), features.device())?)?)
}

/// Whether the text tower is frozen in this run.
pub(crate) fn text_is_frozen(spec: &ModelSpec) -> bool {
    match spec.text {
        TextPreset::Adapter => spec.text_proj.frozen,
        TextPreset::TinyClip | TextPreset::ClipB16 | TextPreset::ClipL14 => spec.text_clip.frozen,
    }
}
