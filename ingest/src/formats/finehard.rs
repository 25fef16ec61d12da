//! FineHARD of FG-CLIP (`data/data.md` of its repository): lists of items with `f_path`, `caption`, `short_caption` and
//! `bbox_info`; Chinese items of FG-CLIP 2 have `is_cn` and no boxes. And FG-OVD as FG-CLIP reads it: lines with `img_path`,
//! `bbox` as x, y, width, height in pixels, `pos_expression`, `neg_expression`.

use crate::cell::{Cell, Wrong, list, needed, number, text, texts};
use crate::draft::{Draft, DraftRegion};
use crate::geometry::BoxForm;
use crate::reject::{RejectKind, Spot};
use pixfleet_shards::{ImageRow, Region};

/// What paths begin with where the items were written.
const PREFIX: &str = "grit-20m/data-12m/";

/// The row of an item of FineHARD.
pub(crate) fn draft(cell: &Cell, spot: Spot, source: &str) -> Result<Draft, Wrong> {
    let path = needed(text(cell, "f_path")?, "f_path", "the path of the picture")?;
    let path = path.strip_prefix(PREFIX).unwrap_or(&path).to_owned();
    let is_chinese = match cell.get("is_cn") {
        Some(Cell::Bool(is)) => *is,
        Some(told) => told.as_whole("is_cn")? != 0,
        None => false,
    };
    let mut row = ImageRow {
        image_id: path.rsplit_once('.').map_or(path.as_str(), |(stem, _)| stem).to_owned(),
        source: source.into(),
        lang: Some(if is_chinese { "zh" } else { "en" }.into()),
        caption_long: text(cell, "caption")?,
        caption_short: text(cell, "short_caption")?,
        ..ImageRow::default()
    };
    let spot = spot.keyed(row.image_id.clone());
    row.image.path = Some(path);
    let mut draft = Draft::new(spot, row);
    for (i, found) in list(cell, "bbox_info")?.iter().enumerate() {
        let field = format!("bbox_info[{i}]");
        match region(found) {
            Ok((region, bbox)) => {
                let fields = [format!("{field}.bbox"), field];
                draft.regions.push(DraftRegion { region, bbox, mask: None, spot: draft.spot.clone(), fields });
            }
            Err(wrong) => draft.rejects.push(draft.spot.reject(wrong.within(&field))),
        }
    }
    Ok(draft)
}

fn region(cell: &Cell) -> Result<(Region, Vec<f64>), Wrong> {
    let expected = "x1, y1, x2, y2 in 0..1, and a score";
    let mut bbox = needed(cell.get("bbox"), "bbox", expected)?.as_numbers("bbox")?;
    let score = if bbox.len() == 5 { bbox.pop() } else { number(cell, "score")? };
    let region = Region {
        score: score.map(|v| v as f32),
        short_expr: text(cell, "short_expr")?,
        long_expr: text(cell, "long_expr")?,
        hard_negs: negatives(cell)?,
        ..Region::default()
    };
    Ok((region, bbox))
}

/// Those of a region that has them (`flag_short_neg`), in the order of their keys' numbers.
fn negatives(cell: &Cell) -> Result<Vec<String>, Wrong> {
    let field = "short_expr_negs";
    let is_without = cell.get("flag_short_neg").map(|f| f.as_whole("flag_short_neg")).transpose()? == Some(0);
    match cell.get(field) {
        None => Ok(Vec::new()),
        Some(_) if is_without => Ok(Vec::new()),
        Some(Cell::Map(members)) => {
            let mut texts = members
                .iter()
                .map(|(key, text)| {
                    Ok((key.parse::<u64>().unwrap_or(u64::MAX), text.as_text(&format!("{field}.{key}"))?))
                })
                .collect::<Result<Vec<_>, Wrong>>()?;
            texts.sort_by_key(|(number, _)| *number);
            Ok(texts.into_iter().map(|(_, text)| text).collect())
        }
        Some(_) => texts(cell, field),
    }
}

/// The row of the lines of FG-OVD that speak of one picture. Lines that cannot be read are refused one by one; an error is
/// what is wrong with the first where none can.
pub(crate) fn fg_ovd(lines: &[(Spot, Vec<u8>)], source: &str) -> Result<Draft, Wrong> {
    let (first, _) = lines.first().expect("a record has a line");
    let mut draft: Option<Draft> = None;
    let mut rejects = Vec::new();
    for (spot, line) in lines {
        match expression(line) {
            Ok((path, region, bbox)) => {
                let draft = draft.get_or_insert_with(|| {
                    let mut row = ImageRow { source: source.into(), lang: Some("en".into()), ..ImageRow::default() };
                    row.image_id = path.rsplit_once('.').map_or(path.as_str(), |(stem, _)| stem).to_owned();
                    row.image.path = Some(path);
                    let spot = first.clone().keyed(row.image_id.clone());
                    Draft { boxes: BoxForm::SizedPixels, ..Draft::new(spot, row) }
                });
                let fields = ["bbox".into(), "mask".into()];
                draft.regions.push(DraftRegion { region, bbox, mask: None, spot: spot.clone(), fields });
            }
            Err(wrong) if lines.len() == 1 => return Err(wrong),
            Err(wrong) => rejects.push((spot, wrong)),
        }
    }
    let Some(mut draft) = draft else {
        return Err(rejects.into_iter().next().map(|(_, wrong)| wrong).expect("no line was good"));
    };
    draft.rejects = rejects.into_iter().map(|(spot, wrong)| spot.reject(wrong)).collect();
    Ok(draft)
}

fn expression(line: &[u8]) -> Result<(String, Region, Vec<f64>), Wrong> {
    let cell = Cell::parse(line)?;
    let path = needed(text(&cell, "img_path")?, "img_path", "the path of the picture")?;
    let bbox = needed(cell.get("bbox"), "bbox", "x, y, width, height in pixels")?.as_numbers("bbox")?;
    let positive = match cell.get("pos_expression") {
        // Written as a text, or as a list of one.
        Some(Cell::List(texts)) => texts.first().map(|t| t.as_text("pos_expression[0]")).transpose()?,
        Some(found) => Some(found.as_text("pos_expression")?),
        None => None,
    };
    let short_expr = Some(needed(positive, "pos_expression", "a text")?);
    let hard_negs = texts(&cell, "neg_expression")?;
    if hard_negs.is_empty() {
        return Err(Wrong::new(RejectKind::Field, "neg_expression", "nothing", "a list of texts"));
    }
    Ok((path, Region { short_expr, hard_negs, ..Region::default() }, bbox))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_has_captions_boxes_and_negatives_in_order() {
        let json = r#"{"f_path": "grit-20m/data-12m/coyo_image_3/00012/000120001.jpg", "caption": "long", "short_caption": "s",
            "bbox_info": [{"bbox": [0.1, 0.2, 0.5, 0.6, 0.87], "short_expr": "a fox", "long_expr": "a red fox",
                           "flag_short_neg": 1, "short_expr_negs": {"10": "n10", "2": "n2", "1": "n1"}},
                          {"bbox": [0.1, 0.2, 0.5, 0.6], "short_expr": "b", "flag_short_neg": 0, "short_expr_negs": {"1": ""}},
                          {"short_expr": "c"}]}"#;
        let draft =
            draft(&Cell::parse(json.as_bytes()).expect("JSON"), Spot::new(&"x".into(), 0), "finehard").expect("a row");
        assert_eq!(draft.row.image_id, "coyo_image_3/00012/000120001");
        assert_eq!(draft.row.image.path.as_deref(), Some("coyo_image_3/00012/000120001.jpg"));
        assert_eq!((draft.regions[0].region.score, draft.regions[0].bbox.len()), (Some(0.87), 4));
        assert_eq!(draft.regions[0].region.hard_negs, ["n1", "n2", "n10"]);
        assert!(draft.regions[1].region.hard_negs.is_empty());
        assert_eq!(draft.rejects[0].field, "bbox_info[2].bbox");
    }

    #[test]
    fn lines_of_one_picture_are_one_row() {
        let line = |n: u64, json: &str| (Spot::new(&"x".into(), n), json.as_bytes().to_vec());
        let good =
            r#"{"img_path": "val/1.jpg", "bbox": [1, 2, 3, 4], "pos_expression": "a", "neg_expression": ["b", "c"]}"#;
        let listed = good.replace(r#""a""#, r#"["a"]"#);
        let draft = fg_ovd(&[line(4, good), line(5, r#"{"img_path": "val/1.jpg"}"#), line(6, &listed)], "fg-ovd")
            .expect("a row");
        let texts: Vec<_> = draft.regions.iter().map(|r| r.region.short_expr.as_deref()).collect();
        assert_eq!((texts, draft.rejects[0].record), (vec![Some("a"); 2], 5));
        assert_eq!(fg_ovd(&[line(0, "{}")], "fg-ovd").expect_err("nothing").field, "img_path");
    }
}
