//! COCO's instances and captions (<https://cocodataset.org/#format-data>), LVIS, which is COCO's layout with `coco_url` for a
//! file's name (<https://www.lvisdataset.org/dataset>), and the referring expressions of RefCOCO, RefCOCO+ and RefCOCOg: the
//! list that REFER's `refs(...).p` holds, as JSON, beside COCO's instances (<https://github.com/lichengunc/refer>).

use crate::cell::{Cell, Wrong, list, needed, number, text, whole};
use crate::draft::{Draft, DraftRegion};
use crate::geometry::BoxForm;
use crate::records::{Categories, Joined, Part, PartKind};
use crate::reject::{RejectKind, Spot};
use pixfleet_shards::{ImageRow, Region};
use std::collections::HashMap;

/// What to make of an image's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Regions {
    /// A region for each annotation.
    Annotations,
    /// A region for each reference, of its annotation.
    References,
}

/// The row of an image. `None` for an image without a reference where references are wanted.
pub(crate) fn draft(joined: &Joined, spot: Spot, regions: Regions, source: &str) -> Result<Option<Draft>, Wrong> {
    let image = Cell::parse(&joined.image)?;
    let side = |field: &str| -> Result<u32, Wrong> {
        let told = needed(whole(&image, field)?, field, "pixels")?;
        u32::try_from(told).map_err(|_| Wrong::new(RejectKind::Field, field, told.to_string(), "pixels"))
    };
    let id = needed(whole(&image, "id")?, "id", "a whole number")?.to_string();
    let url = text(&image, "coco_url")?;
    let path = match text(&image, "file_name")? {
        Some(name) => name,
        None => folder_and_name(needed(url.as_deref(), "file_name", "the name of the picture's file")?),
    };
    let spot = spot.keyed(id.clone());
    let mut row = ImageRow {
        image_id: id,
        source: source.into(),
        width: side("width")?,
        height: side("height")?,
        lang: Some("en".into()),
        ..ImageRow::default()
    };
    (row.image.path, row.image.url) = (Some(path), url);
    let mut draft = Draft { boxes: BoxForm::SizedPixels, is_size_fixed: true, ..Draft::new(spot, row) };
    for part in joined.parts.iter().filter(|p| p.kind == PartKind::Caption) {
        match caption(part) {
            Ok(text) => {
                draft.row.captions.push(text);
                draft.records += 1;
            }
            Err(wrong) => draft.rejects.push(keyed(part).reject(wrong)),
        }
    }
    draft.row.caption_short = draft.row.captions.first().cloned();
    match regions {
        Regions::Annotations => annotations(joined, &mut draft),
        Regions::References => {
            references(joined, &mut draft);
            if draft.regions.is_empty() && draft.rejects.is_empty() {
                return Ok(None);
            }
        }
    }
    Ok(Some(draft))
}

/// `http://.../val2017/000000397133.jpg` -> `val2017/000000397133.jpg`.
fn folder_and_name(url: &str) -> String {
    let mut parts: Vec<&str> = url.rsplit('/').take(2).collect();
    parts.reverse();
    parts.join("/")
}

/// The part's place with its id, if it has one.
fn keyed(part: &Part) -> Spot {
    let id = Cell::parse(&part.json).ok().and_then(|cell| whole(&cell, "id").ok()?);
    id.map_or_else(|| part.spot.clone(), |id| part.spot.clone().keyed(format!("id {id}")))
}

fn caption(part: &Part) -> Result<String, Wrong> {
    let text = needed(text(&Cell::parse(&part.json)?, "caption")?, "caption", "a text")?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Wrong::new(RejectKind::Field, "caption", "an empty text", "words"));
    }
    Ok(text.to_owned())
}

fn annotations(joined: &Joined, draft: &mut Draft) {
    for part in joined.parts.iter().filter(|p| p.kind == PartKind::Annotation) {
        match annotation(part, &joined.categories) {
            Ok(Some((_, region))) => draft.regions.push(region),
            // A crowd: its box and mask are those of many, and COCO's own protocols leave it out.
            Ok(None) => draft.passed_over += 1,
            Err(wrong) => draft.rejects.push(keyed(part).reject(wrong)),
        }
    }
}

/// The region of an annotation and its id; `None` for a crowd.
fn annotation(part: &Part, categories: &Categories) -> Result<Option<(Option<i64>, DraftRegion)>, Wrong> {
    let cell = Cell::parse(&part.json)?;
    if whole(&cell, "iscrowd")? == Some(1) {
        return Ok(None);
    }
    let id = whole(&cell, "id")?;
    let bbox = needed(cell.at("bbox"), "bbox", "x, y, width, height in pixels")?.as_numbers("bbox")?;
    let category = match whole(&cell, "category_id")? {
        None => None,
        Some(id) => {
            let unknown =
                || Wrong::new(RejectKind::Field, "category_id", id.to_string(), "the id of one of the categories");
            Some(categories.get(&id).cloned().ok_or_else(unknown)?)
        }
    };
    let score = number(&cell, "score")?.map(|v| v as f32);
    let spot = match id {
        Some(id) => part.spot.clone().keyed(format!("id {id}")),
        None => part.spot.clone(),
    };
    let region = Region { category, score, ..Region::default() };
    let (mask, fields) = (cell.at("segmentation").cloned(), ["bbox".into(), "segmentation".into()]);
    Ok(Some((id, DraftRegion { region, bbox, mask, spot, fields })))
}

fn references(joined: &Joined, draft: &mut Draft) {
    let mut known = HashMap::new();
    for part in joined.parts.iter().filter(|p| p.kind == PartKind::Annotation) {
        // Only those that are referred to are looked at; a bad one is told by who refers to it.
        let id = Cell::parse(&part.json).ok().and_then(|cell| whole(&cell, "id").ok()?);
        if let Some(id) = id {
            known.insert(id, part);
        }
    }
    for part in joined.parts.iter().filter(|p| p.kind == PartKind::Reference) {
        match reference(part, &known, &joined.categories) {
            Ok(region) => draft.regions.push(region),
            Err(wrong) => draft.rejects.push(part.spot.reject(wrong)),
        }
    }
}

fn reference(part: &Part, known: &HashMap<i64, &Part>, categories: &Categories) -> Result<DraftRegion, Wrong> {
    let cell = Cell::parse(&part.json)?;
    let id = needed(whole(&cell, "ann_id")?, "ann_id", "the id of an annotation")?;
    let orphan = |found: String| Wrong::new(RejectKind::Orphan, "ann_id", found, "an annotation of the same image");
    let annotated = known.get(&id).ok_or_else(|| orphan(id.to_string()))?;
    let (_, mut region) = annotation(annotated, categories)
        .map_err(|wrong| wrong.within(&format!("annotation {id}")))?
        .ok_or_else(|| orphan(format!("{id}, which is a crowd")))?;
    let sentences = list(&cell, "sentences")?.iter().enumerate();
    let sentences = sentences.map(|(i, s)| {
        let field = format!("sentences[{i}].sent");
        needed(text(s, "sent").map_err(|w| w.within(&format!("sentences[{i}]")))?, &field, "a text")
    });
    region.region.expressions = sentences.collect::<Result<_, _>>()?;
    region.region.short_expr = region.region.expressions.first().cloned();
    needed(region.region.short_expr.as_ref(), "sentences", "at least one sentence")?;
    region.spot = part.spot.clone();
    Ok(region)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn joined(parts: &[(PartKind, &str)]) -> Joined {
        let part = |(i, (kind, json)): (usize, &(PartKind, &str))| {
            let spot = Spot::new(&"a.json: annotations".into(), i as u64);
            Part { kind: *kind, spot, json: json.as_bytes().to_vec() }
        };
        Joined {
            image: br#"{"id": 9, "file_name": "9.jpg", "width": 40, "height": 20, "coco_url": "http://x/val/9.jpg"}"#
                .to_vec(),
            parts: parts.iter().enumerate().map(part).collect(),
            categories: Arc::new([(3, "fox".to_owned())].into()),
        }
    }

    #[test]
    fn annotations_and_captions_become_regions_and_texts() {
        let joined = joined(&[
            (
                PartKind::Annotation,
                r#"{"id": 1, "bbox": [0, 0, 20, 20], "category_id": 3, "segmentation": [[1,1,9,1,9,9]]}"#,
            ),
            (PartKind::Annotation, r#"{"id": 2, "bbox": [0, 0, 20, 20], "category_id": 3, "iscrowd": 1}"#),
            (PartKind::Annotation, r#"{"id": 3, "bbox": [0, 0, 20, 20], "category_id": 4}"#),
            (PartKind::Caption, r#"{"caption": " a fox \n"}"#),
            (PartKind::Caption, r#"{"caption": ""}"#),
        ]);
        let draft =
            draft(&joined, Spot::new(&"i".into(), 0), Regions::Annotations, "coco").expect("a row").expect("kept");
        assert_eq!((draft.row.image_id.as_str(), draft.row.caption_short.as_deref()), ("9", Some("a fox")));
        assert_eq!(draft.regions.len(), 1);
        assert_eq!(draft.regions[0].region.category.as_deref(), Some("fox"));
        let told: Vec<_> = draft.rejects.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a.json: annotations, record 4, field caption: an empty text; expected words",
                "a.json: annotations, record 2 (id 3), field category_id: 4; expected the id of one of the categories"
            ]
        );
    }

    #[test]
    fn references_take_the_box_of_their_annotation() {
        let parts = [
            (PartKind::Annotation, r#"{"id": 1, "bbox": [0, 0, 20, 20], "category_id": 3}"#),
            (PartKind::Reference, r#"{"ann_id": 1, "sentences": [{"sent": "left fox"}, {"sent": "the red one"}]}"#),
            (PartKind::Reference, r#"{"ann_id": 7, "sentences": [{"sent": "nobody"}]}"#),
        ];
        let of =
            |parts| draft(&joined(parts), Spot::new(&"i".into(), 0), Regions::References, "refcoco").expect("a row");
        let draft = of(&parts).expect("has references");
        assert_eq!(draft.regions[0].region.expressions, ["left fox", "the red one"]);
        assert_eq!(draft.regions[0].region.short_expr.as_deref(), Some("left fox"));
        assert_eq!(draft.rejects[0].kind, RejectKind::Orphan);
        assert_eq!(of(&parts[..1]), None, "nobody refers to anything in it");
    }

    #[test]
    fn lvis_names_files_by_their_url() {
        assert_eq!(
            folder_and_name("http://images.cocodataset.org/val2017/000000397133.jpg"),
            "val2017/000000397133.jpg"
        );
    }
}
