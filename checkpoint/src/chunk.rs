//! A part of a checkpoint as objects: one, or several for a long part. Each is small enough to be created in one request,
//! which either makes the whole object or, where one lies already, none.

use std::ops::Range;

/// The longest object. Readers cut a part as its writer did, so this belongs to the format of
/// [`pixfleet_cluster::Manifest::VERSION`].
pub(crate) const CHUNK_BYTES: u64 = 16 << 20;

/// Chunks of one part that are on their way at a time.
pub(crate) const CHUNKS_IN_FLIGHT: usize = 4;

/// The objects of the part at `path`, relative to the run's folder, and which of its bytes each one holds.
pub(crate) fn chunks(path: &str, bytes: u64) -> impl Iterator<Item = (String, Range<u64>)> + use<> {
    let path = path.to_string();
    (0..bytes.div_ceil(CHUNK_BYTES).max(1)).map(move |i| {
        let key = if bytes <= CHUNK_BYTES { path.clone() } else { format!("{path}.{i:05}") };
        (key, i * CHUNK_BYTES..bytes.min((i + 1) * CHUNK_BYTES))
    })
}
