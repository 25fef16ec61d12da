//! Vectors put aside on local disk, in a file without a name that goes with the process, and read back in any order.

use crate::error::IngestError;
use half::f16;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

/// Bytes that are buffered while it is written.
const BUFFER: usize = 1 << 20;

/// Vectors of one width, by the order in which they came.
pub(super) struct Shelf {
    file: BufWriter<File>,
    width: usize,
    count: u32,
    /// Bytes of the vector at hand.
    bytes: Vec<u8>,
}

impl Shelf {
    pub(super) fn new(width: usize) -> Result<Self, IngestError> {
        let file = tempfile::tempfile().map_err(IngestError::Spill)?;
        Ok(Self { file: BufWriter::with_capacity(BUFFER, file), width, count: 0, bytes: Vec::new() })
    }

    /// Puts a vector of its width aside, and says where.
    pub(super) fn put(&mut self, vector: &[f16]) -> Result<u32, IngestError> {
        debug_assert_eq!(vector.len(), self.width);
        self.bytes.clear();
        self.bytes.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
        self.file.write_all(&self.bytes).map_err(IngestError::Spill)?;
        self.count += 1;
        Ok(self.count - 1)
    }

    /// All that was put is to be read.
    pub(super) fn finish(&mut self) -> Result<(), IngestError> {
        self.file.flush().map_err(IngestError::Spill)
    }

    /// The vector at `slot`, after [`Shelf::finish`].
    pub(super) fn get(&self, slot: u32) -> Result<Vec<f32>, IngestError> {
        let mut bytes = vec![0; 2 * self.width];
        let at = u64::from(slot) * bytes.len() as u64;
        self.file.get_ref().read_exact_at(&mut bytes, at).map_err(IngestError::Spill)?;
        Ok(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_back_in_any_order() {
        let mut shelf = Shelf::new(2).expect("a file");
        let vectors = [[0.5f32, -2.0], [1.25, 3.0], [65504.0, 0.0]];
        let slots = vectors.map(|v| shelf.put(&v.map(f16::from_f32)).expect("room"));
        shelf.finish().expect("room");
        for (vector, slot) in vectors.iter().zip(slots).rev() {
            assert_eq!(shelf.get(slot).expect("reads"), vector);
        }
        assert!(shelf.get(3).is_err());
    }
}
