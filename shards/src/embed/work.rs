//! One process's share of embedding: it claims units until all are done.

use super::shared::{Piece, Shared};
use super::texts::{Scan, Source, texts};
use super::vectors::Vectors;
use super::{EmbedError, EmbedJob, EmbedProgress, is_current};
use crate::access::Access;
use crate::claims::{Claim, Claims, Dealt, Tally, UnitState};
use crate::error::ShardError;
use crate::patience::patiently;
use crate::row::ImageRow;
use crate::text_vectors::{RowVectors, TextHash, VectorsWriter, text_hash};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Texts that an encoder gets at once: enough to sort by length, little enough that a stop is noticed.
const TEXTS_AT_ONCE: usize = 2048;
/// How often others are looked at while they have all that is left.
const PAUSE: Duration = Duration::from_secs(1);

/// A unit of work, by its place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Piece(usize),
    File(usize),
}

/// An encoder of texts.
type Encode<'a, E> = &'a mut (dyn FnMut(&[String]) -> Result<Vec<Vec<f32>>, E> + Send);

pub(super) struct Work<'a, E> {
    pub(super) job: EmbedJob<'a>,
    pub(super) access: &'a Access,
    pub(super) source: &'a Source,
    pub(super) scan: &'a Scan,
    pub(super) pieces: &'a [Piece],
    pub(super) claims: Claims,
    /// Vectors from elsewhere.
    pub(super) known: Vectors,
    pub(super) shared: Shared<'a>,
    pub(super) encode: Encode<'a, E>,
    pub(super) progress: &'a mut (dyn FnMut(EmbedProgress) + Send),
    pub(super) done: EmbedProgress,
}

impl<E: std::error::Error + 'static> Work<'_, E> {
    /// Until all of `units` are done, by whomever.
    pub(super) async fn all(&mut self, units: Vec<Unit>) -> Result<(), EmbedError<E>> {
        let names: Vec<String> = units.iter().map(|&unit| self.name(unit)).collect();
        for (state, (&unit, name)) in self.claims.states(&names).await?.iter().zip(units.iter().zip(&names)) {
            // Done, but what came of it was deleted.
            if *state == UnitState::Done && !self.is_there(unit).await? {
                self.claims.reopen(name).await?;
            }
        }
        let before = self.done;
        loop {
            let states = self.claims.states(&names).await?;
            self.tell(before, &units, &states);
            self.check_stop()?;
            match self.claims.try_next(&names).await? {
                Dealt::Unit(claim) => {
                    self.done.waiting_for = 0;
                    let place = names.iter().position(|name| name == claim.unit());
                    let unit = units[place.expect("a claim is on one of the units that were asked for")];
                    self.unit(unit, claim).await?;
                }
                Dealt::Held => {
                    self.done.waiting_for = Tally::of(&states).held as u32;
                    tokio::time::sleep(PAUSE.min(self.job.lease / 4)).await;
                }
                Dealt::Done => break,
            }
        }
        self.done.waiting_for = 0;
        self.tell(before, &units, &vec![UnitState::Done; units.len()]);
        Ok(())
    }

    /// The version is part of a file's name: what was done for another one is not done.
    fn name(&self, unit: Unit) -> String {
        match unit {
            Unit::Piece(i) => self.pieces[i].name.clone(),
            Unit::File(i) => {
                let data = &self.source.files[i].index;
                format!("{}@{}", data.path, &blake3::hash(data.version().as_bytes()).to_hex()[..8])
            }
        }
    }

    async fn is_there(&self, unit: Unit) -> Result<bool, ShardError> {
        match unit {
            Unit::Piece(i) => self.job.location.exists(&self.pieces[i].path(self.job.key)).await,
            Unit::File(i) => Ok(is_current(self.access, self.job.key, &self.source.files[i].index).await),
        }
    }

    /// Counts what all processes have done of `units` on top of what there was `before`.
    fn tell(&mut self, before: EmbedProgress, units: &[Unit], states: &[UnitState]) {
        (self.done.rows, self.done.texts) = (before.rows, before.texts);
        for (unit, _) in units.iter().zip(states).filter(|(_, state)| **state == UnitState::Done) {
            match *unit {
                Unit::Piece(i) => self.done.texts += self.pieces[i].texts.len() as u64,
                Unit::File(i) => {
                    self.done.texts += self.scan.own[i];
                    self.done.rows += self.source.files[i].rows();
                }
            }
        }
        (self.progress)(self.done);
    }

    fn check_stop(&self) -> Result<(), EmbedError<E>> {
        if self.job.stop.load(Ordering::Relaxed) { Err(EmbedError::Stopped) } else { Ok(()) }
    }

    /// One unit, from claim to done.
    async fn unit(&mut self, unit: Unit, claim: Claim) -> Result<(), EmbedError<E>> {
        self.done.taken_over += u32::from(claim.turn() > 1);
        // Whoever had it may have published and been lost before it could say so.
        if claim.turn() == 1 || !self.is_there(unit).await? {
            match self.make(unit).await {
                Ok((path, bytes)) => {
                    if claim.still_held().await? {
                        patiently(|| self.job.location.put(&path, bytes.clone())).await?;
                    }
                }
                Err(error) => {
                    // The first error is the one to tell.
                    if let Err(error) = claim.leave().await {
                        tracing::warn!(%error, "a unit could not be given back; others wait for the lease");
                    }
                    return Err(error);
                }
            }
        }
        if claim.finish().await? {
            self.done.units += 1;
        }
        Ok(())
    }

    /// The path and bytes of a unit's vectors.
    async fn make(&mut self, unit: Unit) -> Result<(String, Bytes), EmbedError<E>> {
        match unit {
            Unit::Piece(i) => {
                let piece = &self.pieces[i];
                let wanted = piece.texts.iter().map(|text| (text_hash(text), text.clone())).collect();
                let vectors = self.vectors(wanted, piece.texts.len() as u64)?;
                Ok(piece.file(self.job.key, &vectors)?)
            }
            Unit::File(i) => {
                let source = self.source;
                let file = &source.files[i];
                let groups = source.captions(file).await?;
                let (mut wanted, mut seen, mut count) = (Vec::new(), BTreeSet::new(), 0);
                for text in groups.iter().flat_map(|rows| texts(rows)) {
                    let hash = text_hash(text);
                    if seen.insert(hash) {
                        wanted.push((hash, text.to_owned()));
                    }
                    count += 1;
                }
                seen.retain(|hash| self.scan.shared.contains_key(hash));
                let mut vectors = Vectors::default();
                self.shared.copy(&seen, &mut vectors).await?;
                wanted.retain(|(hash, _)| !vectors.contains(hash));
                vectors.extend(self.vectors(wanted, count)?);
                let mut writer = VectorsWriter::new(self.job.key, &file.index, vectors.dim().unwrap_or(1))?;
                for rows in &groups {
                    writer.push_row_group(&rows.iter().map(|row| entries(row, &vectors)).collect::<Vec<_>>())?;
                }
                Ok(writer.finish()?)
            }
        }
    }

    /// Vectors of `wanted`, known or encoded; `count` is how often the unit's texts stand there.
    fn vectors(&mut self, mut wanted: Vec<(TextHash, String)>, count: u64) -> Result<Vectors, EmbedError<E>> {
        let mut vectors = Vectors::default();
        wanted.retain(|(hash, _)| !vectors.copy(hash, &self.known));
        self.done.cached += count - wanted.len() as u64;
        let wanted: Vec<String> = wanted.into_iter().map(|(_, text)| text).collect();
        for chunk in wanted.chunks(TEXTS_AT_ONCE) {
            self.check_stop()?;
            let encoded = (self.encode)(chunk).map_err(EmbedError::Encode)?;
            if encoded.len() != chunk.len() {
                let (found, expected) = (format!("{} vectors", encoded.len()), chunk.len().to_string());
                return Err(ShardError::Encoder { found, expected }.into());
            }
            for (text, vector) in chunk.iter().zip(&encoded) {
                vectors.put(text, vector)?;
            }
            self.done.encoded += chunk.len() as u64;
            (self.progress)(self.done);
        }
        Ok(vectors)
    }
}

/// A row of a vectors file.
fn entries(row: &ImageRow, vectors: &Vectors) -> RowVectors {
    RowVectors {
        short: row.regions.iter().map(|r| vectors.entry(r.short_text())).collect(),
        long: row.regions.iter().map(|r| vectors.entry(r.long_text())).collect(),
        image: vectors.entry(row.image_text()),
    }
}
