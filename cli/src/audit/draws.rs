//! What each row of a split leaves to chance, read from its narrow columns: so that an audit can draw again what a run drew.

use crate::progress;
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use pixfleet_cluster::RunSpec;
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_cluster::spec::{DataSpec, Needs};
use pixfleet_shards::sample::{Drawable, SampleKey};
use pixfleet_shards::{Columns, Location, RowGroupReader};

/// Row groups that are read at the same time.
const IN_FLIGHT: usize = 4;

/// Of all rows, in index order.
pub(super) struct DataDraws {
    seed: u64,
    data: DataSpec,
    needs: Needs,
    /// Numbers of the regions that may be drawn, row after row.
    regions: Vec<u32>,
    /// Where each row's regions end in these.
    ends: Vec<usize>,
    captions: Vec<bool>,
}

impl DataDraws {
    /// Reads the split that `spec` trains on.
    ///
    /// # Errors
    /// A dataset that cannot be read, or that is no more what `index` says.
    pub(super) async fn read(spec: &RunSpec, index: &DatasetIndex) -> Result<Self> {
        let reader = RowGroupReader::new(Location::parse(&spec.data.url)?, index, &spec.data.split, None)?;
        let needs = spec.needs();
        let groups: Vec<u32> = reader.split().row_groups().map(|group| group.rows).collect();
        let total = groups.len() as u64;
        let (regions, ends, captions) = (Vec::new(), Vec::new(), Vec::new());
        let mut draws = Self { seed: spec.run.seed, data: spec.data.clone(), needs, regions, ends, captions };
        let captioned = draws.needs.draws_region();
        let mut read = futures::stream::iter((0u32..).zip(groups))
            .map(|(group, rows)| choices(&reader, group, rows, captioned))
            .buffered(IN_FLIGHT);
        let bar = progress::bar("data", "row groups");
        for done in 1.. {
            let Some(rows) = read.try_next().await.with_context(|| format!("cannot read {}", spec.data.url))? else {
                break;
            };
            rows.into_iter().for_each(|row| draws.push(row));
            progress::set(&bar, done, total);
        }
        bar.finish_and_clear();
        Ok(draws)
    }

    fn push(&mut self, row: Drawable) {
        self.regions.extend(row.regions);
        self.ends.push(self.regions.len());
        self.captions.push(row.caption);
    }

    /// What the run draws of a row in an epoch, as evidence has it; 0 of a row that cannot be trained on.
    pub(super) fn word(&self, epoch: u64, row_number: u64) -> u64 {
        let row = row_number as usize;
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        let choices = Drawable { regions: self.regions[start..self.ends[row]].to_vec(), caption: self.captions[row] };
        choices.drawn_word(SampleKey { seed: self.seed, epoch, row_number }, &self.data, &self.needs).unwrap_or(0)
    }
}

/// Of the rows of a row group. Regions and captions are read apart, for a row whose captions are bad may have trained on vectors.
async fn choices(reader: &RowGroupReader, group: u32, rows: u32, captioned: bool) -> Result<Vec<Drawable>> {
    let rows: Vec<u32> = (0..rows).collect();
    let regions = Columns { geometry: true, ..Columns::default() };
    let captions = Columns::default().with_image_captions();
    let read = async |columns: Columns| reader.read_each(group, &rows, columns).await;
    let found = read(regions).await?;
    let texts = if captioned { read(captions).await? } else { Vec::new() };
    let caption = |i: usize| match texts.get(i) {
        Some(Ok(row)) => row.image_text().is_some(),
        // A caption that breaks a rule is one nevertheless.
        Some(Err(_)) => true,
        None => false,
    };
    let of = |(i, row): (usize, &Result<_, _>)| {
        row.as_ref().map_or_else(|_| Drawable::default(), |row| Drawable::of(row, caption(i)))
    };
    Ok(found.iter().enumerate().map(of).collect())
}
