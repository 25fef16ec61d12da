//! Records whose fields are those of our rows (shards/src/schema.rs), or are mapped to them: JSON lines, webdataset's JSON,
//! other writers' Parquet.

use crate::cell::{Cell, Wrong, list, needed, number, text, texts, whole};
use crate::draft::{Draft, DraftRegion, Picture, unhex};
use crate::geometry::BoxForm;
use crate::reject::{RejectKind, Spot};
use half::f16;
use pixfleet_shards::{HardNegKind, ImageRow, Region};
use std::collections::BTreeMap;

/// Our fields of a row, as a map may name them.
const OURS: [&str; 20] = [
    "image_id",
    "source",
    "width",
    "height",
    "lang",
    "caption_long",
    "caption_short",
    "captions",
    "clip_sim_b32",
    "clip_sim_l14",
    "caption_long_emb",
    "caption_short_emb",
    "provenance",
    "image.path",
    "image.url",
    "image.sha256",
    "image.bytes",
    "image",
    "regions",
    "regions.bbox",
];
/// Our fields of a region.
const OURS_REGION: [&str; 16] = [
    "bbox",
    "score",
    "span",
    "mask_rle",
    "mask_size",
    "mask",
    "category",
    "caption_object",
    "caption_context",
    "caption_merged",
    "check_ok",
    "short_expr",
    "long_expr",
    "expressions",
    "hard_negs",
    "hard_neg_kinds",
];

/// Which of their fields are ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldMap(BTreeMap<String, String>);

impl FieldMap {
    /// Reads pairs `ours=theirs`; both may be dotted (`regions.bbox=objects.box`, `image.bytes=img.data`).
    ///
    /// # Errors
    /// A text that is no pair, or a name that is not one of our fields.
    pub fn parse(pairs: &[String]) -> Result<Self, String> {
        let mut map = BTreeMap::new();
        for pair in pairs {
            let (ours, theirs) = pair.split_once('=').ok_or_else(|| format!("`{pair}`: expected ours=theirs"))?;
            let known = OURS.contains(&ours)
                || ours.strip_prefix("regions.").is_some_and(|r| r == "text_emb" || OURS_REGION.contains(&r));
            if !known {
                let regions = OURS_REGION.map(|name| format!("regions.{name}")).join(", ");
                return Err(format!(
                    "`{ours}` is none of our fields: {}, {regions}, regions.text_emb",
                    OURS.join(", ")
                ));
            }
            map.insert(ours.to_owned(), theirs.to_owned());
        }
        Ok(Self(map))
    }

    /// Their name of a field of ours.
    fn theirs<'a>(&'a self, ours: &'a str) -> &'a str {
        self.0.get(ours).map_or(ours, String::as_str)
    }

    /// Their name of the list of regions: what `regions` is mapped to, else the begin of what its fields are.
    fn regions(&self) -> &str {
        let of_field = || {
            let field = self.0.iter().find(|(ours, _)| ours.starts_with("regions."));
            field.and_then(|(_, theirs)| theirs.split_once('.')).map(|(list, _)| list)
        };
        self.0.get("regions").map(String::as_str).or_else(of_field).unwrap_or("regions")
    }

    /// Their name, within a region, of a field of ours.
    fn in_region(&self, ours: &str) -> String {
        match self.0.get(&format!("regions.{ours}")) {
            Some(theirs) => theirs.strip_prefix(&format!("{}.", self.regions())).unwrap_or(theirs).to_owned(),
            None => ours.to_owned(),
        }
    }

    /// Whether a column at the top is read.
    pub(crate) fn wants(&self, column: &str) -> bool {
        let root = |name: &str| name == column || name.split('.').next() == Some(column);
        OURS.iter().any(|ours| root(self.theirs(ours))) || root(self.regions())
    }

    /// What identifies it.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }
}

/// The row that a record says.
pub(crate) fn draft(cell: &Cell, spot: Spot, map: &FieldMap, boxes: BoxForm, source: &str) -> Result<Draft, Wrong> {
    let of = |ours: &'static str| text(cell, map.theirs(ours));
    let real = |ours: &'static str| Ok::<_, Wrong>(number(cell, map.theirs(ours))?.map(|v| v as f32));
    let side = |ours: &'static str| {
        let told = whole(cell, map.theirs(ours))?.unwrap_or(0);
        Ok::<_, Wrong>(u32::try_from(told).unwrap_or(0))
    };
    let mut row = ImageRow {
        source: of("source")?.unwrap_or_else(|| source.to_owned()),
        width: side("width")?,
        height: side("height")?,
        lang: of("lang")?,
        caption_long: of("caption_long")?,
        caption_short: of("caption_short")?,
        captions: texts(cell, map.theirs("captions"))?,
        caption_long_emb: vector(cell, map.theirs("caption_long_emb"))?,
        caption_short_emb: vector(cell, map.theirs("caption_short_emb"))?,
        provenance: of("provenance")?,
        clip_sim_b32: real("clip_sim_b32")?,
        clip_sim_l14: real("clip_sim_l14")?,
        ..ImageRow::default()
    };
    let picture = picture(cell, map, &mut row)?;
    row.image_id = match cell.at(map.theirs("image_id")) {
        Some(Cell::Whole(id)) => id.to_string(),
        Some(id) => id.as_text(map.theirs("image_id"))?,
        None => spot.key.clone().or_else(|| row.image.path.clone()).unwrap_or_default(),
    };
    if row.image_id.is_empty() {
        return Err(Wrong::new(RejectKind::Field, map.theirs("image_id"), "nothing", "a key of the image"));
    }
    let spot = spot.keyed(row.image_id.clone());
    let mut draft = Draft { picture, boxes, is_size_fixed: boxes != BoxForm::Fractions, ..Draft::new(spot, row) };
    for (at, found) in regions(cell, map)?.iter().enumerate() {
        let field = format!("{}[{at}]", map.regions());
        match region(found, map, &field) {
            Ok((region, bbox, mask)) => {
                let fields = ["bbox", "mask"].map(|name| format!("{field}.{}", map.in_region(name)));
                draft.regions.push(DraftRegion { region, bbox, mask, spot: draft.spot.clone(), fields });
            }
            Err(wrong) => draft.rejects.push(draft.spot.reject(wrong.within(&field))),
        }
    }
    Ok(draft)
}

/// Where the picture is: bytes, path, address and hash, each in its own field or within `image`, which may also be a path.
fn picture(cell: &Cell, map: &FieldMap, row: &mut ImageRow) -> Result<Picture, Wrong> {
    let mut picture = Picture::Elsewhere;
    match cell.at(map.theirs("image")) {
        Some(Cell::Text(path)) => row.image.path = Some(path.clone()),
        // Hugging Face's pictures are {bytes, path} as well.
        Some(Cell::Bytes(bytes)) => picture = Picture::Here(bytes.clone()),
        Some(Cell::Map(_) | Cell::Null | Cell::Bool(_) | Cell::Whole(_) | Cell::Number(_) | Cell::List(_)) | None => {}
    }
    if let Some(path) = text(cell, map.theirs("image.path"))? {
        row.image.path = Some(path);
    }
    row.image.url = text(cell, map.theirs("image.url"))?;
    let field = map.theirs("image.sha256");
    row.image.sha256 = match cell.at(field) {
        None => None,
        Some(Cell::Bytes(bytes)) => bytes.as_ref().try_into().ok(),
        Some(hash) => unhex(&hash.as_text(field)?),
    };
    if let Some(found) = cell.at(map.theirs("image.bytes")) {
        let Cell::Bytes(bytes) = found else {
            return Err(Wrong::new(RejectKind::Field, map.theirs("image.bytes"), found.told(), "bytes"));
        };
        picture = Picture::Here(bytes.clone());
    }
    Ok(picture)
}

/// The regions, each a map: a list of maps, or a map of lists, as Hugging Face's sequences are.
fn regions(cell: &Cell, map: &FieldMap) -> Result<Vec<Cell>, Wrong> {
    let name = map.regions();
    let Some(Cell::Map(columns)) = cell.at(name) else { return Ok(list(cell, name)?.to_vec()) };
    let length = columns.iter().filter_map(|(_, c)| c.as_list("").ok().map(<[Cell]>::len)).max().unwrap_or(0);
    let at = |i: usize| {
        let members = columns.iter().map(|(column, values)| {
            let value = values.as_list(column).ok().and_then(|v| v.get(i)).cloned();
            (column.clone(), value.unwrap_or(Cell::Null))
        });
        Cell::Map(members.collect())
    };
    Ok((0..length).map(at).collect())
}

type Parts = (Region, Vec<f64>, Option<Cell>);

fn region(cell: &Cell, map: &FieldMap, whole_field: &str) -> Result<Parts, Wrong> {
    let name = |ours: &str| map.in_region(ours);
    let of = |ours: &str| text(cell, &name(ours));
    let bbox_name = name("bbox");
    let bbox = needed(cell.at(&bbox_name), &bbox_name, "a box of 4 numbers")?.as_numbers(&bbox_name)?;
    let kinds = texts(cell, &name("hard_neg_kinds"))?;
    let hard_neg_kinds = kinds.iter().map(|kind| {
        let wrong = || {
            let expected = format!("one of {}", HardNegKind::names());
            Wrong::new(RejectKind::Field, name("hard_neg_kinds"), format!("`{kind}` of {whole_field}"), expected)
        };
        HardNegKind::parse(kind).ok_or_else(wrong)
    });
    let region = Region {
        score: number(cell, &name("score"))?.map(|v| v as f32),
        span: span(cell, &name("span"))?,
        category: of("category")?,
        caption_object: of("caption_object")?,
        caption_context: of("caption_context")?,
        caption_merged: of("caption_merged")?,
        check_ok: match cell.at(&name("check_ok")) {
            None => None,
            Some(Cell::Bool(ok)) => Some(*ok),
            Some(other) => return Err(Wrong::new(RejectKind::Field, name("check_ok"), other.told(), "true or false")),
        },
        short_expr: of("short_expr")?,
        long_expr: of("long_expr")?,
        expressions: texts(cell, &name("expressions"))?,
        hard_negs: texts(cell, &name("hard_negs"))?,
        hard_neg_kinds: hard_neg_kinds.collect::<Result<_, _>>()?,
        text_emb: vector(cell, &name("text_emb"))?,
        ..Region::default()
    };
    let mask = match (cell.at(&name("mask")), cell.at(&name("mask_rle"))) {
        (Some(mask), _) => Some(mask.clone()),
        (None, Some(counts)) => {
            let size = cell.at(&name("mask_size")).cloned().unwrap_or(Cell::Null);
            Some(Cell::Map(vec![("size".into(), size), ("counts".into(), counts.clone())]))
        }
        (None, None) => None,
    };
    Ok((region, bbox, mask))
}

/// Two whole numbers.
pub(crate) fn span(cell: &Cell, field: &str) -> Result<Option<[i32; 2]>, Wrong> {
    let Some(found) = cell.at(field) else { return Ok(None) };
    let numbers = found.as_list(field)?.iter().map(|n| n.as_whole(field)).collect::<Result<Vec<_>, _>>()?;
    let pair = <[i64; 2]>::try_from(numbers).ok().map(|p| p.map(|n| i32::try_from(n).unwrap_or(-1)));
    pair.map(Some).ok_or_else(|| Wrong::new(RejectKind::Field, field, found.told(), "start, end"))
}

/// A vector: a list of numbers, or f16 values as bytes, little-endian.
pub(crate) fn vector(cell: &Cell, field: &str) -> Result<Option<Vec<f32>>, Wrong> {
    match cell.at(field) {
        None => Ok(None),
        Some(Cell::Bytes(bytes)) if bytes.len().is_multiple_of(2) => {
            Ok(Some(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()))
        }
        Some(numbers) => Ok(Some(numbers.as_numbers(field)?.into_iter().map(|v| v as f32).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, pairs: &[&str], boxes: BoxForm) -> Result<Draft, Wrong> {
        let map = FieldMap::parse(&pairs.iter().map(|&p| p.to_owned()).collect::<Vec<_>>()).expect("pairs");
        draft(&Cell::parse(json.as_bytes()).expect("JSON"), Spot::new(&"x".into(), 3), &map, boxes, "custom")
    }

    #[test]
    fn our_own_names_need_no_map() {
        let json = r#"{"image_id": "a", "width": 40, "height": 20, "captions": ["x", "y"], "image": "a.jpg",
            "regions": [{"bbox": [0, 0, 0.5, 1], "mask_rle": "08", "mask_size": [2, 4], "hard_negs": ["n"],
                         "hard_neg_kinds": ["colour"], "expressions": ["e"], "span": [1, 2], "check_ok": true}]}"#;
        let draft = read(json, &[], BoxForm::Fractions).expect("a row");
        assert_eq!((draft.row.captions.len(), draft.row.image.path.as_deref()), (2, Some("a.jpg")));
        let region = &draft.regions[0];
        assert_eq!(region.region.hard_neg_kinds, [HardNegKind::Colour]);
        assert_eq!((region.region.span, region.region.check_ok), (Some([1, 2]), Some(true)));
        assert!(matches!(region.mask, Some(Cell::Map(_))));
    }

    #[test]
    fn their_names_are_mapped_in_rows_lists_of_maps_and_maps_of_lists() {
        let pairs =
            ["image_id=id", "caption_long=meta.text", "regions.bbox=objects.box", "regions.category=objects.label"];
        let list = r#"{"id": 7, "meta": {"text": "t"}, "objects": [{"box": [1, 2, 3, 4], "label": "fox"}]}"#;
        let map = r#"{"id": 7, "meta": {"text": "t"}, "objects": {"box": [[1, 2, 3, 4]], "label": ["fox"]}}"#;
        for json in [list, map] {
            let draft = read(json, &pairs, BoxForm::Pixels).expect("a row");
            assert_eq!((draft.row.image_id.as_str(), draft.row.caption_long.as_deref()), ("7", Some("t")));
            assert_eq!(draft.regions[0].region.category.as_deref(), Some("fox"));
            assert_eq!(draft.regions[0].fields[0], "objects[0].box");
        }
        let map = FieldMap::parse(&pairs.map(String::from)).expect("pairs");
        assert!(map.wants("objects") && map.wants("meta") && map.wants("height") && !map.wants("rest"));
    }

    #[test]
    fn a_bad_region_goes_alone() {
        let json = r#"{"image_id": "a", "regions": [{"bbox": "left"}, {"bbox": [0, 0, 1, 1]}]}"#;
        let draft = read(json, &[], BoxForm::Fractions).expect("a row");
        assert_eq!((draft.regions.len(), draft.rejects.len()), (1, 1));
        assert_eq!(
            draft.rejects[0].to_string(),
            "x, record 3 (a), field regions[0].bbox: the text `left`; expected a list"
        );
    }

    #[test]
    fn maps_of_unknown_fields_are_refused() {
        let error = FieldMap::parse(&["captoin=x".to_owned()]).expect_err("no field");
        assert!(error.starts_with("`captoin` is none of our fields: image_id, "), "{error}");
        assert!(FieldMap::parse(&["caption_long".to_owned()]).is_err());
    }
}
