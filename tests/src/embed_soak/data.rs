//! A dataset of captions: many small files, and texts that several of them have.

use super::EmbedSoakArgs;
use crate::dice::Dice;
use anyhow::Result;
use pixfleet_shards::text_vectors::{TextHash, text_hash};
use pixfleet_shards::writer::{PartWriter, WriterOptions, part_path};
use pixfleet_shards::{ImageRow, ImageSource, Location, Region, index};
use std::collections::BTreeSet;

/// Short texts that all files draw from.
const SHARED: u32 = 400;
/// Words of a long text.
const WORDS: usize = 60;

/// A data file's path within the dataset.
pub(super) fn path(file: u32) -> String {
    part_path("train", file)
}

/// Writes and indexes it; the hashes of its texts.
pub(super) fn write(args: &EmbedSoakArgs, url: &str) -> Result<BTreeSet<TextHash>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let location = Location::parse(url)?;
    let (mut dice, mut distinct) = (Dice::new(args.seed), BTreeSet::new());
    for file in 0..args.files {
        let mut part = PartWriter::new(path(file), WriterOptions::default())?;
        for row in 0..args.rows {
            let short = format!("thing number {} of all", dice.between(0.0, f64::from(SHARED)) as u32);
            let long = long_text(&mut dice, file, row);
            distinct.extend([text_hash(&short), text_hash(&long)]);
            part.push(image_row(file * args.rows + row, short, long))?;
        }
        runtime.block_on(location.put(&path(file), part.finish()?))?;
    }
    runtime.block_on(index::build(&location, &mut |_, _| {}))?;
    Ok(distinct)
}

fn long_text(dice: &mut Dice, file: u32, row: u32) -> String {
    let words = ["red", "fox", "wall", "stone", "on", "under", "the", "a", "bicycle", "rain", "looks", "behind"];
    let drawn: Vec<&str> = (0..WORDS).filter_map(|_| dice.pick(&words).copied()).collect();
    format!("picture {row} of file {file}: {}", drawn.join(" "))
}

fn image_row(i: u32, short: String, long: String) -> ImageRow {
    let region = Region {
        bbox: [0.1, 0.1, 0.6, 0.6],
        caption_object: Some(short),
        caption_merged: Some(long),
        ..Region::default()
    };
    ImageRow {
        image_id: format!("picture-{i}"),
        source: "custom".into(),
        // Captions alone are read.
        image: ImageSource { url: Some(format!("https://example.org/{i}.png")), ..ImageSource::default() },
        width: 8,
        height: 8,
        regions: vec![region],
        ..ImageRow::default()
    }
}
