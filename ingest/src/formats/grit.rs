//! GRIT of Kosmos-2 (dataset card of `zzliang/GRIT`), as its Parquet of addresses or as img2dataset's files; and AlphaCLIP's
//! GRIT, whose records have a mask for each expression in `seudo_masks` (its `sam_grit.py`).
//!
//! A row of `ref_exps` or `noun_chunks` is [start, end, x1, y1, x2, y2, score]: characters of the caption, a box in 0..1. A
//! region is made of each row of `ref_exps`, or of `noun_chunks` where there are none.

use crate::cell::{Cell, Wrong, needed, number, text, whole};
use crate::draft::{Draft, DraftRegion, Picture, unhex};
use crate::records::Member;
use crate::reject::{RejectKind, Spot};
use pixfleet_shards::{ImageRow, Region};

/// Columns at the top that are read.
pub(crate) const COLUMNS: [&str; 11] = [
    "key",
    "id",
    "url",
    "caption",
    "width",
    "height",
    "clip_similarity_vitb32",
    "clip_similarity_vitl14",
    "ref_exps",
    "noun_chunks",
    "sha256",
];

/// The row of a record; with `is_masked`, each expression has a mask.
pub(crate) fn draft(cell: &Cell, spot: Spot, source: &str, is_masked: bool) -> Result<Draft, Wrong> {
    let side = |field: &str| Ok::<_, Wrong>(whole(cell, field)?.and_then(|v| u32::try_from(v).ok()).unwrap_or(0));
    let id = |field: &str| Ok::<_, Wrong>(whole(cell, field)?.map(|id| id.to_string()));
    let key = match cell.get("key") {
        Some(Cell::Text(key)) => Some(key.clone()),
        Some(_) | None => spot.key.as_deref().map(|k| k.rsplit('/').next().unwrap_or(k).to_owned()),
    };
    let key = needed(key.map_or_else(|| id("id"), |key| Ok(Some(key)))?, "key", "the name of the picture's file")?;
    let caption = needed(text(cell, "caption")?, "caption", "a text")?;
    let mut row = ImageRow {
        image_id: key.clone(),
        source: source.into(),
        width: side("width")?,
        height: side("height")?,
        lang: Some("en".into()),
        clip_sim_b32: number(cell, "clip_similarity_vitb32")?.map(|v| v as f32),
        clip_sim_l14: number(cell, "clip_similarity_vitl14")?.map(|v| v as f32),
        ..ImageRow::default()
    };
    row.image.url = text(cell, "url")?;
    row.image.path = Some(format!("{key}.jpg"));
    row.image.sha256 = text(cell, "sha256")?.as_deref().and_then(unhex);
    let mut draft = Draft::new(spot.keyed(key), row);
    let list = ["ref_exps", "noun_chunks"]
        .into_iter()
        .find(|name| matches!(cell.get(name), Some(Cell::List(l)) if !l.is_empty()));
    let Some(list) = list else {
        draft.row.caption_short = Some(caption);
        return Ok(draft);
    };
    let expressions = needed(cell.get(list), list, "a list")?.as_list(list)?;
    let masks = if is_masked { Some(masks(cell, expressions.len())?) } else { None };
    for (i, expression) in expressions.iter().enumerate() {
        match region(expression, &caption) {
            Ok((region, bbox)) => {
                let fields = [format!("{list}[{i}].box"), format!("seudo_masks[{i}]")];
                let mask = masks.and_then(|m| m.get(i)).cloned();
                draft.regions.push(DraftRegion { region, bbox, mask, spot: draft.spot.clone(), fields });
            }
            Err(wrong) => draft.rejects.push(draft.spot.reject(wrong.within(&format!("{list}[{i}]")))),
        }
    }
    draft.row.caption_short = Some(caption);
    Ok(draft)
}

fn masks(cell: &Cell, expressions: usize) -> Result<&[Cell], Wrong> {
    let expected = "a mask for each of ref_exps";
    let found = needed(cell.get("seudo_masks"), "seudo_masks", expected)?.as_list("seudo_masks")?;
    if found.len() == expressions {
        return Ok(found);
    }
    let told = format!("{} masks for {expressions} expressions", found.len());
    Err(Wrong::new(RejectKind::Mask, "seudo_masks", told, expected))
}

fn region(expression: &Cell, caption: &str) -> Result<(Region, Vec<f64>), Wrong> {
    let numbers = expression.as_numbers("")?;
    let &[start, end, x1, y1, x2, y2, score] = numbers.as_slice() else {
        let found = format!("{} numbers", numbers.len());
        return Err(Wrong::new(RejectKind::Field, "", found, "start, end, x1, y1, x2, y2, score"));
    };
    let phrase = slice(caption, start, end).ok_or_else(|| {
        let letters = caption.chars().count();
        let found = format!("characters {start} to {end} of a caption of {letters}");
        Wrong::new(RejectKind::Field, "", found, "start and end within the caption")
    })?;
    let region = Region {
        score: Some(score as f32),
        span: Some([start as i32, end as i32]),
        caption_merged: Some(phrase),
        ..Region::default()
    };
    Ok((region, vec![x1, y1, x2, y2]))
}

/// Characters `start..end`, as Python counts them.
fn slice(caption: &str, start: f64, end: f64) -> Option<String> {
    let whole = |v: f64| (v.fract() == 0.0 && (0.0..1e9).contains(&v)).then_some(v as usize);
    let (start, end) = (whole(start)?, whole(end)?);
    let phrase: String = caption.chars().skip(start).take(end.checked_sub(start)?).collect();
    (!phrase.trim().is_empty() && phrase.chars().count() == end - start).then(|| phrase.trim().to_owned())
}

/// The row of img2dataset's files of one key: a record as JSON and its picture.
pub(crate) fn of_group(members: &[Member], spot: Spot, source: &str, is_masked: bool) -> Result<Draft, Wrong> {
    let json = members.iter().find(|m| m.ending == "json");
    let json = needed(json, "json", "a file `<key>.json` beside the picture")?;
    let cell = Cell::parse(&json.bytes).map_err(|w| w.within("json"))?;
    let mut draft = draft(&cell, spot, source, is_masked)?;
    let picture = super::webdataset::picture_of(members)?;
    draft.row.image.path = Some(picture.name.clone());
    draft.picture = Picture::Here(picture.bytes.clone());
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the dataset card, shortened.
    const CARD: &str = r#"{"key": "000373938", "clip_similarity_vitb32": 0.353, "clip_similarity_vitl14": 0.2958,
        "id": 1795296605919, "url": "https://example.org/x.jpg", "width": 1280, "height": 720,
        "caption": "a wire hanger with a paper cover that reads we heart our customers",
        "noun_chunks": [[19, 32, 0.0196, 0.3105, 0.9622, 0.9603, 0.79], [0, 13, 0.0194, 0.3105, 0.9622, 0.9603, 0.78]],
        "ref_exps": [[19, 66, 0.0196, 0.3105, 0.9622, 0.9603, 0.79], [0, 66, 0.0194, 0.3105, 0.9622, 0.9603, 0.78],
                     [0, 99, 0.0194, 0.3105, 0.9622, 0.9603, 0.78], [1, 2, 3]]}"#;

    #[test]
    fn expressions_are_cut_from_the_caption() {
        let cell = Cell::parse(CARD.as_bytes()).expect("JSON");
        let draft = draft(&cell, Spot::new(&"x".into(), 0), "grit", false).expect("a row");
        assert_eq!((draft.row.image_id.as_str(), draft.row.clip_sim_l14), ("000373938", Some(0.2958)));
        let phrases: Vec<_> = draft.regions.iter().map(|r| r.region.caption_merged.as_deref()).collect();
        let whole = "a wire hanger with a paper cover that reads we heart our customers";
        assert_eq!(phrases, [Some("a paper cover that reads we heart our customers"), Some(whole)]);
        assert_eq!(draft.regions[0].region.span, Some([19, 66]));
        let told: Vec<_> = draft.rejects.iter().map(|r| r.found.as_str()).collect();
        assert_eq!(told, ["characters 0 to 99 of a caption of 66", "3 numbers"]);
    }

    #[test]
    fn characters_are_counted_as_python_counts_them() {
        assert_eq!(slice("größer Hund", 7.0, 11.0).as_deref(), Some("Hund"));
        assert_eq!((slice("a", 0.0, 2.0), slice("ab", 1.5, 2.0), slice("ab", 2.0, 1.0)), (None, None, None));
    }

    #[test]
    fn masks_are_as_many_as_expressions() {
        let json = CARD.replacen('{', r#"{"seudo_masks": [{"size": [720, 1280], "counts": "x"}], "#, 1);
        let error = draft(&Cell::parse(json.as_bytes()).expect("JSON"), Spot::new(&"x".into(), 0), "alphaclip", true);
        assert_eq!(error.expect_err("one for four").found, "1 masks for 4 expressions");
    }
}
