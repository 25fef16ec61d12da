//! Files of a tar stream, in order: ustar with GNU's long names and POSIX pax headers (IEEE Std 1003.1, `pax`), which
//! is what Python's tarfile, GNU tar and img2dataset write. Nothing is sought, so a pipe will do.

use crate::error::IngestError;
use bytes::Bytes;
use std::io::Read;

const BLOCK: usize = 512;
/// Bytes of one file at most.
pub(crate) const FILE_MAX: u64 = 256 << 20;
/// Bytes of names and pax headers at most.
const HEADER_MAX: u64 = 1 << 20;

/// A file of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TarFile {
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
}

/// Reads a tar stream.
pub(crate) struct Tar<R> {
    file: String,
    input: R,
    offset: u64,
    has_end: bool,
}

impl<R: Read> Tar<R> {
    pub(crate) fn new(file: impl Into<String>, input: R) -> Self {
        Self { file: file.into(), input, offset: 0, has_end: false }
    }

    /// Whether the block of zeros was read that ends a tar; some writers leave it out.
    pub(crate) fn has_end(&self) -> bool {
        self.has_end
    }

    /// The next regular file; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<TarFile>, IngestError> {
        let (mut long_name, mut long_size) = (None, None);
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = long_size.take().unwrap_or(header.size);
            match header.kind {
                b'L' => long_name = Some(text(&self.body(size, HEADER_MAX)?)),
                b'x' => {
                    for (key, value) in pax(&self.body(size, HEADER_MAX)?) {
                        match key.as_str() {
                            "path" => long_name = Some(value),
                            "size" => long_size = value.parse().ok(),
                            _ => {}
                        }
                    }
                }
                b'0' | 0 | b'7' => {
                    let name = long_name.take().unwrap_or(header.name);
                    let bytes = self.body(size, FILE_MAX)?.into();
                    return Ok(Some(TarFile { name, bytes }));
                }
                // Folders, links, global headers.
                _ => {
                    long_name = None;
                    self.body(size, FILE_MAX)?;
                }
            }
        }
    }

    fn header(&mut self) -> Result<Option<Header>, IngestError> {
        let mut block = [0u8; BLOCK];
        match self.fill(&mut block)? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(self.cut("the file ends within a header")),
        }
        if block.iter().all(|&b| b == 0) {
            self.has_end = true;
            return Ok(None);
        }
        let sum = |b: &[u8; BLOCK]| -> u64 {
            b.iter().enumerate().map(|(i, &v)| if (148..156).contains(&i) { 32 } else { u64::from(v) }).sum()
        };
        if octal(&block[148..156]) != Some(sum(&block)) {
            return Err(self.broken("a header whose checksum is wrong", "a tar header every 512 bytes; fetch it again"));
        }
        let size = number(&block[124..136]);
        let size = size.ok_or_else(|| self.broken("a size that is no number", "a size in octal digits"))?;
        let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
        let is_ustar = &block[257..262] == b"ustar" && block[262] != b' ';
        let name = if is_ustar && !prefix.is_empty() { format!("{prefix}/{name}") } else { name };
        Ok(Some(Header { name, size, kind: block[156] }))
    }

    /// The bytes of a file and the padding after it.
    fn body(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, IngestError> {
        if size > limit {
            return Err(self.broken(&format!("a file of {size} bytes"), "files of 256 MiB at most"));
        }
        let mut bytes = vec![0u8; (size as usize).next_multiple_of(BLOCK)];
        // The last file's padding may be left out.
        if (self.fill(&mut bytes)? as u64) < size {
            return Err(self.cut("the file ends within a member"));
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<usize, IngestError> {
        let mut filled = 0;
        while filled < into.len() {
            match self.input.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(IngestError::Read { file: self.file.clone(), source }),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }

    fn cut(&self, found: &'static str) -> IngestError {
        IngestError::Cut { file: self.file.clone(), offset: self.offset, found }
    }

    fn broken(&self, found: &str, expected: &'static str) -> IngestError {
        IngestError::Broken { file: self.file.clone(), offset: self.offset, found: found.into(), expected }
    }
}

struct Header {
    name: String,
    size: u64,
    kind: u8,
}

/// Text up to its zero byte.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn octal(field: &[u8]) -> Option<u64> {
    u64::from_str_radix(text(field).trim(), 8).ok()
}

/// Octal digits, or base 256 where the first bit is set (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    field[1..].iter().try_fold(u64::from(field[0] & 0x7f), |n, &b| n.checked_mul(256)?.checked_add(u64::from(b)))
}

/// Records `<length> <key>=<value>\n` of a pax header.
fn pax(body: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = body;
    while let Some(space) = rest.iter().position(|&b| b == b' ') {
        let length: Option<usize> = std::str::from_utf8(&rest[..space]).ok().and_then(|t| t.parse().ok());
        let Some(length) = length.filter(|&l| l > space + 1 && l <= rest.len()) else { break };
        let record = String::from_utf8_lossy(&rest[space + 1..length - 1]).into_owned();
        if let Some((key, value)) = record.split_once('=') {
            found.push((key.to_owned(), value.to_owned()));
        }
        rest = &rest[length..];
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One file as a tar writer would put it.
    pub(crate) fn entry(name: &str, kind: u8, bytes: &[u8]) -> Vec<u8> {
        let mut block = vec![0u8; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend_from_slice(bytes);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    fn all(bytes: &[u8]) -> Result<Vec<(String, usize)>, IngestError> {
        let mut tar = Tar::new("a.tar", bytes);
        let mut found = Vec::new();
        while let Some(file) = tar.next()? {
            found.push((file.name, file.bytes.len()));
        }
        Ok(found)
    }

    #[test]
    fn files_come_with_short_and_long_names() {
        let long = format!("{}/x.jpg", "folder".repeat(30));
        let record = format!("{} path={long}\n", long.len() + 10);
        assert_eq!(record.len(), long.len() + 10, "three digits");
        let mut bytes = entry("00/a.jpg", b'0', &[7; 700]);
        bytes.extend(entry("00", b'5', b""));
        bytes.extend(entry("././@LongLink", b'L', format!("{long}\0").as_bytes()));
        bytes.extend(entry("short", b'0', b"one"));
        bytes.extend(entry("pax", b'x', record.as_bytes()));
        bytes.extend(entry("short", b'0', b""));
        bytes.extend([0; 1024]);
        assert_eq!(all(&bytes).expect("a tar"), [("00/a.jpg".into(), 700), (long.clone(), 3), (long, 0)]);
    }

    #[test]
    fn damage_is_named_with_its_byte() {
        let good = entry("a.jpg", b'0', &[7; 700]);
        let error = all(&good[..1000]).expect_err("cut").to_string();
        assert_eq!(error, "a.tar, byte 1000: the file ends within a member; expected a whole tar file; fetch it again");
        let mut bad = good.clone();
        bad[3] ^= 1;
        assert!(all(&bad).expect_err("damaged").to_string().contains("checksum is wrong"));
        assert!(matches!(all(&good[..300]), Err(IngestError::Cut { offset: 300, .. })));
        assert_eq!(all(&good[..512 + 700]).expect("padding may be missing").len(), 1);
    }
}
