//! Where every parameter of the model comes from, decided on names and shapes alone, before a value is read.

use super::family::{Cut, Family};
use super::file::WeightFile;
use super::rule::Fate;
use super::tower::{Kind, Tower, grid_of};
use anyhow::{Result, bail};
use pixfleet_checkpoint::Dtype;
use std::collections::BTreeMap;

/// A parameter's shape by its name.
pub(super) type Shapes = BTreeMap<String, Vec<i64>>;

/// A file and whose names it bears.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: WeightFile,
    pub(super) family: Family,
}

/// What is done to a tensor on the way, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// From another element type to fp32.
    Cast(Dtype),
    /// Rows and columns swapped.
    Transposed,
    /// The rows of query (0), key (1) or value (2) of one tensor.
    Third(u8),
    /// Positions of another square grid, bicubic (method.md 1.2.7).
    Resized { from: i64, to: i64 },
    /// One number, in another shape.
    Reshaped,
}

/// Where a parameter comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A tensor of a file.
    File { source: usize, name: String, rule: (&'static str, &'static str), changes: Vec<Change> },
    /// No file holds it.
    MadeUp(MadeUp),
}

/// What stands in for a parameter that no file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MadeUp {
    /// Zero: the base model exactly (method.md 1.2.1).
    Zero,
    /// As another parameter (method.md 4.1).
    Copied(&'static str),
    /// Positions of a longer text, stretched from the short table (method.md 4.1).
    Stretched(&'static str),
    /// As training from scratch begins.
    Fresh,
}

/// A tensor of a file that the model does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) name: String,
    pub(super) why: &'static str,
}

/// The whole decision.
#[derive(Debug)]
pub(super) struct Plan {
    /// One entry per parameter.
    pub(super) origins: BTreeMap<String, Origin>,
    pub(super) left_out: Vec<LeftOut>,
}

/// A tensor of a file that fits a parameter's name.
struct Found {
    source: usize,
    name: String,
    rule: (&'static str, &'static str),
    cut: Cut,
}

impl Found {
    /// Its shape once it is cut out.
    fn shape(&self, file: &WeightFile) -> Option<Vec<i64>> {
        self.cut.shape(&file.entries[&self.name].shape)
    }

    /// What makes it the parameter `to` of shape `expected`; `None` if nothing does.
    fn fit(&self, file: &WeightFile, to: &str, expected: &[i64]) -> Option<Vec<Change>> {
        let dtype = file.entries[&self.name].dtype;
        let cast = (dtype != Dtype::F32).then_some(Change::Cast(dtype));
        let part = match self.cut {
            Cut::Whole => None,
            Cut::Transposed => Some(Change::Transposed),
            Cut::Third(third) => Some(Change::Third(third)),
        };
        let has = self.shape(file)?;
        let adapted = if has == expected { None } else { Some(adapted(to, &has, expected)?) };
        Some([cast, part, adapted].into_iter().flatten().collect())
    }
}

impl Plan {
    /// Of `sources` for a model of `shapes`, called `target`. A later file goes before an earlier one.
    ///
    /// # Errors
    /// If a file is of another tower, with both towers and the first shape that differs; if a parameter is in no file and
    /// no rule makes it up.
    pub(super) fn new(sources: &[Source], shapes: &Shapes, target: &str) -> Result<Self> {
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        let mut left_out = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            check_kind(source, shapes, target)?;
            let offered = offer(index, source, &mut left_out)?;
            check_tower(source, &offered, shapes, target)?;
            for (name, tensor) in offered {
                if shapes.contains_key(&name) {
                    found.insert(name, tensor);
                } else {
                    left_out.push(LeftOut { name: tensor.name, why: "the model has no such parameter" });
                }
            }
        }
        let mut origins = BTreeMap::new();
        let mut missing = Vec::new();
        let other_space = sources.iter().any(|s| s.family == Family::EvaClip);
        for (name, shape) in shapes {
            if let Some(f) = found.remove(name) {
                let changes = f.fit(&sources[f.source].file, name, shape).unwrap_or_default();
                origins.insert(name.clone(), Origin::File { source: f.source, name: f.name, rule: f.rule, changes });
            } else if let Some(made_up) = made_up(name, other_space) {
                origins.insert(name.clone(), Origin::MadeUp(made_up));
            } else {
                missing.push(format!("{name} {shape:?}"));
            }
        }
        if !missing.is_empty() {
            bail!(lacks(sources, &missing, target));
        }
        Ok(Self { origins, left_out })
    }
}

/// What a file offers, by the model's names.
fn offer(index: usize, source: &Source, left_out: &mut Vec<LeftOut>) -> Result<BTreeMap<String, Found>> {
    let mut offered = BTreeMap::new();
    for name in source.file.entries.keys() {
        let full = source.family.full_name(name);
        let why = match source.family.fate(&full) {
            None => "no rule knows the name",
            Some((rule, holes)) => {
                for (pattern, cut) in rule.1.parts() {
                    let to = holes.fill(pattern);
                    let tensor = Found { source: index, name: name.clone(), rule: (rule.0, pattern), cut };
                    if let Some(other) = offered.insert(to.clone(), tensor) {
                        bail!("{}: `{}` and `{name}` both are `{to}`", source.file.origin, other.name);
                    }
                }
                match rule.1 {
                    Fate::Left(why) => why,
                    Fate::As(_) | Fate::Transposed(_) | Fate::Thirds(_) => continue,
                }
            }
        };
        left_out.push(LeftOut { name: name.clone(), why });
    }
    Ok(offered)
}

/// A CLIP file has no name in common with an EVA02 tower.
fn check_kind(source: &Source, shapes: &Shapes, target: &str) -> Result<()> {
    let Some(tower) = Tower::of(|name| shapes.get(name).cloned()) else { return Ok(()) };
    let (kind, family) = (source.family.kind(), source.family);
    if kind != tower.kind {
        let first = match tower.kind {
            Kind::Clip => "vision_model.embeddings.patch_embedding.weight",
            Kind::Eva02 => "visual.patch_embed.proj.weight",
        };
        bail!(
            "{} is a checkpoint of another tower: it holds {kind} ({}), {target} is {tower}; it has nothing for \
             `{first}` {:?}. Choose a --to of {kind}, or another file",
            source.file.origin,
            family.name(),
            shapes.get(first).cloned().unwrap_or_default()
        );
    }
    Ok(())
}

/// Every tensor that is offered fits, or can be made to fit.
fn check_tower(source: &Source, offered: &BTreeMap<String, Found>, shapes: &Shapes, target: &str) -> Result<()> {
    let file = &source.file;
    let differs = offered.iter().find_map(|(name, found)| match shapes.get(name) {
        Some(expected) => found.fit(file, name, expected).is_none().then(|| (found, format!("expected {expected:?}"))),
        // A block that the model lacks: the tower is deeper.
        None if name.contains(".layers.") || name.contains(".blocks.") => {
            Some((found, "which the model does not have".to_owned()))
        }
        None => None,
    });
    let Some((found, expected)) = differs else { return Ok(()) };
    let theirs = Tower::of(|name| offered.get(name)?.shape(file));
    let ours = Tower::of(|name| shapes.get(name).cloned());
    let told = |tower: Option<Tower>| tower.map_or_else(|| "no vision tower".to_owned(), |t| t.to_string());
    bail!(
        "{} is a checkpoint of another tower: it holds {}, {target} is {}. The first tensor that differs: `{}` has shape \
         {:?}, {expected}. Choose another --to, or another file",
        file.origin,
        told(theirs),
        told(ours),
        found.name,
        file.entries[&found.name].shape
    );
}

fn lacks(sources: &[Source], missing: &[String], target: &str) -> String {
    let files: Vec<String> = sources.iter().map(|s| format!("{} ({})", s.file.origin, s.family.name())).collect();
    let shown = missing.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    let more = if missing.len() > 8 { ", ..." } else { "" };
    let alone = sources.len() == 1 && sources[0].family == Family::Alphaclip;
    let hint = if alone { "; give the base CLIP's file before it, for the text tower" } else { "" };
    format!("{} lacks {} parameters of {target}: {shown}{more}{hint}", files.join(" with "), missing.len())
}

/// How a tensor of another shape becomes the parameter, if a rule says so.
fn adapted(name: &str, has: &[i64], expected: &[i64]) -> Option<Change> {
    let count = |shape: &[i64]| shape.iter().product::<i64>();
    if count(has) == 1 && count(expected) == 1 {
        return Some(Change::Reshaped);
    }
    let positions = name == "visual.pos_embed" || name == "vision_model.embeddings.position_embedding.weight";
    let ([.., old, width], [.., new, expected_width]) = (has, expected) else { return None };
    if !positions || has.len() != expected.len() || width != expected_width {
        return None;
    }
    Some(Change::Resized { from: grid_of(*old)?, to: grid_of(*new)? })
}

/// The published rule for a parameter that no file holds. `other_space`: head and text tower were left out.
fn made_up(name: &str, other_space: bool) -> Option<MadeUp> {
    const SHORT: &str = "text_model.embeddings.position_embedding.weight";
    match name {
        "visual.alpha_patch_embed.proj.weight"
        | "visual.alpha_patch_embed.proj.bias"
        | "vision_model.embeddings.alpha_patch_embedding.weight" => Some(MadeUp::Zero),
        "text_model.embeddings.position_embedding_ori.weight"
        | "text_model.embeddings.position_embedding_res.weight" => Some(MadeUp::Stretched(SHORT)),
        "text_filip_projection.weight" => Some(MadeUp::Copied("text_projection.weight")),
        "logit_scale_finegraind" | "logit_scale_hardneg" => Some(MadeUp::Copied("logit_scale")),
        _ if other_space && (name.starts_with("visual.head.") || name.starts_with("text.")) => Some(MadeUp::Fresh),
        _ => None,
    }
}
