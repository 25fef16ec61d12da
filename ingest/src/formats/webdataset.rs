//! webdataset: files of one key in a tar, the picture beside what is said of it. `json` has fields as our rows have them (or
//! mapped to them) and as img2dataset writes them; `txt` is the short caption, if the JSON has none.

use super::row::{self, FieldMap};
use crate::cell::{Cell, Wrong, needed};
use crate::draft::{Draft, Picture};
use crate::geometry::BoxForm;
use crate::records::Member;
use crate::reject::{RejectKind, Spot};

/// Endings of pictures.
const PICTURES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// The picture among the files of one key.
pub(crate) fn picture_of(members: &[Member]) -> Result<&Member, Wrong> {
    let found = members.iter().find(|m| PICTURES.contains(&m.ending.as_str()));
    found.ok_or_else(|| {
        let names: Vec<_> = members.iter().map(|m| m.ending.as_str()).collect();
        let found = format!("files that end with {}", names.join(", "));
        Wrong::new(RejectKind::PictureMissing, "", found, format!("one that ends with {}", PICTURES.join(", ")))
    })
}

/// The row of the files of one key.
pub(crate) fn draft(
    members: &[Member],
    spot: Spot,
    map: &FieldMap,
    boxes: BoxForm,
    source: &str,
) -> Result<Draft, Wrong> {
    let json = members.iter().find(|m| m.ending == "json");
    let cell = match json {
        Some(member) => Cell::parse(&member.bytes).map_err(|w| w.within("json"))?,
        None => Cell::Map(Vec::new()),
    };
    let picture = picture_of(members)?;
    let key = needed(spot.key.clone(), "key", "a name before the first dot")?;
    let mut draft = row::draft(&cell, spot, map, boxes, source)?;
    if draft.row.image_id == key {
        // No id in the JSON: the key's last part, which names the picture.
        draft.row.image_id = key.rsplit('/').next().unwrap_or(&key).to_owned();
    }
    let text = |cell: &Cell| match cell.get("caption") {
        Some(Cell::Text(text)) if !text.trim().is_empty() => Some(text.clone()),
        Some(_) | None => None,
    };
    let beside = || {
        let member = members.iter().find(|m| m.ending == "txt")?;
        let text = String::from_utf8_lossy(&member.bytes).trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    if draft.row.caption_short.is_none() && draft.row.caption_long.is_none() {
        draft.row.caption_short = text(&cell).or_else(beside);
    }
    if draft.row.image.url.is_none() {
        draft.row.image.url = crate::cell::text(&cell, "url")?;
    }
    draft.row.image.path = Some(picture.name.clone());
    draft.picture = Picture::Here(picture.bytes.clone());
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(ending: &str, bytes: &[u8]) -> Member {
        Member { ending: ending.into(), name: format!("00/a.{ending}"), bytes: bytes.to_vec().into() }
    }

    fn read(members: &[Member]) -> Result<Draft, Wrong> {
        let spot = Spot::new(&"a.tar".into(), 0).keyed("00/a");
        draft(members, spot, &FieldMap::default(), BoxForm::Fractions, "custom")
    }

    #[test]
    fn a_picture_and_a_text_are_a_row() {
        let draft = read(&[member("jpg", b"x"), member("txt", b"a fox\n")]).expect("a row");
        assert_eq!((draft.row.image_id.as_str(), draft.row.caption_short.as_deref()), ("a", Some("a fox")));
        assert_eq!(draft.row.image.path.as_deref(), Some("00/a.jpg"));
    }

    #[test]
    fn json_of_img2dataset_and_of_ours() {
        let json = br#"{"caption": "a dog", "url": "http://x", "key": "a", "status": "success"}"#;
        let draft = read(&[member("jpg", b"x"), member("json", json)]).expect("a row");
        assert_eq!(draft.row.image.url.as_deref(), Some("http://x"));
        assert_eq!(draft.row.caption_short.as_deref(), Some("a dog"));
        let json = br#"{"image_id": "z", "caption_long": "long", "regions": [{"bbox": [0, 0, 1, 1]}]}"#;
        let draft = read(&[member("json", json), member("png", b"x")]).expect("a row");
        assert_eq!((draft.row.image_id.as_str(), draft.regions.len()), ("z", 1));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = read(&[member("json", b"{}")]).expect_err("no picture");
        assert_eq!((error.kind, error.found.as_str()), (RejectKind::PictureMissing, "files that end with json"));
        let error = read(&[member("jpg", b"x"), member("json", b"{,}")]).expect_err("no JSON");
        assert_eq!((error.kind, error.field.as_str()), (RejectKind::Syntax, "json"));
    }
}
