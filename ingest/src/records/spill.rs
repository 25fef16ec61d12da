//! Texts put aside on local disk, in files without a name that go with the process, and read back in order.

use crate::error::IngestError;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, Write};

/// Bytes that are buffered of each file.
const BUFFER: usize = 1 << 16;

/// A text that was put aside, and the numbers that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aside {
    pub(crate) numbers: [u64; 3],
    pub(crate) text: Vec<u8>,
}

/// A file that is written.
pub(crate) struct Spill(BufWriter<File>);

impl Spill {
    pub(crate) fn new() -> Result<Self, IngestError> {
        let file = tempfile::tempfile().map_err(IngestError::Spill)?;
        Ok(Self(BufWriter::with_capacity(BUFFER, file)))
    }

    pub(crate) fn put(&mut self, numbers: [u64; 3], text: &[u8]) -> Result<(), IngestError> {
        let mut head = [0u8; 32];
        for (at, number) in numbers.iter().chain([&(text.len() as u64)]).enumerate() {
            head[8 * at..8 * at + 8].copy_from_slice(&number.to_le_bytes());
        }
        self.0.write_all(&head).and_then(|()| self.0.write_all(text)).map_err(IngestError::Spill)
    }

    /// From its begin.
    pub(crate) fn into_reader(self) -> Result<Asides, IngestError> {
        let mut file = self.0.into_inner().map_err(|e| IngestError::Spill(e.into_error()))?;
        file.rewind().map_err(IngestError::Spill)?;
        Ok(Asides(BufReader::with_capacity(BUFFER, file)))
    }
}

/// A file that is read.
pub(crate) struct Asides(BufReader<File>);

impl Asides {
    /// The next text; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Aside>, IngestError> {
        let mut head = [0u8; 32];
        match self.0.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(IngestError::Spill)?,
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[8 * at + i]));
        let mut text = vec![0; number(3) as usize];
        self.0.read_exact(&mut text).map_err(IngestError::Spill)?;
        Ok(Some(Aside { numbers: [number(0), number(1), number(2)], text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_aside_comes_back_in_order() {
        let mut spill = Spill::new().expect("a file");
        spill.put([1, 2, 3], b"one").expect("room");
        spill.put([4, 5, u64::MAX], b"").expect("room");
        let mut asides = spill.into_reader().expect("a file");
        let first = asides.next().expect("reads").expect("one");
        assert_eq!((first.numbers, first.text.as_slice()), ([1, 2, 3], &b"one"[..]));
        assert_eq!(asides.next().expect("reads").map(|a| a.numbers), Some([4, 5, u64::MAX]));
        assert_eq!(asides.next().expect("reads"), None);
    }
}
