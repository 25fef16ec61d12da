//! Sizes that Parquet pages claim, read before anything is allocated for them.
//!
//! Every range of data that is fetched begins with a page header (a chunk or single pages of it). The headers are
//! walked here, in Thrift's compact protocol, and claims beyond the limits are refused; the `parquet` crate, which
//! trusts them, sees the bytes only afterwards.

/// Largest footer that is read.
pub(crate) const FOOTER_MAX: u64 = 64 << 20;
/// Largest column chunk that is fetched.
pub(crate) const CHUNK_MAX: u64 = 1 << 30;
/// Largest page after decompression. Some programs put all pictures of a row group into one page, or as DuckDB into pages
/// of up to 100 MB.
pub(crate) const PAGE_MAX: u64 = 256 << 20;
/// Most bytes of pictures that are read all together where single ones cannot be: a page may hold them all.
pub(crate) const PICTURES_MAX: u64 = PAGE_MAX;
/// Most values, nulls included, of one page: DuckDB's row group of 122 880 rows, with sixty boxes each, in one page.
pub(crate) const VALUES_MAX: u64 = 32 << 20;
/// Most rows of one row group.
pub(crate) const ROWS_MAX: u64 = 1 << 20;

/// What is wrong with a page header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageFault {
    /// Not a page header.
    Damaged,
    /// A claim beyond its limit.
    TooLarge {
        /// What is claimed.
        what: &'static str,
        /// How much of it.
        found: u64,
        /// The limit.
        limit: u64,
    },
}

/// Walks the pages in `bytes`.
pub(crate) fn check(mut bytes: &[u8]) -> Result<(), PageFault> {
    while !bytes.is_empty() {
        let mut header = Compact { bytes, depth: 0 };
        let page = header.page().ok_or(PageFault::Damaged)?;
        let claims = [
            ("a page size after decompression", page.uncompressed, PAGE_MAX),
            ("a page size", page.compressed, PAGE_MAX),
            ("a number of values in a page", page.values, VALUES_MAX),
        ];
        for (what, found, limit) in claims {
            let found = u64::try_from(found).map_err(|_| PageFault::Damaged)?;
            if found > limit {
                return Err(PageFault::TooLarge { what, found, limit });
            }
        }
        bytes = header.bytes.get(page.compressed as usize..).ok_or(PageFault::Damaged)?;
    }
    Ok(())
}

/// The claims of a page header.
#[derive(Default)]
struct Page {
    uncompressed: i64,
    compressed: i64,
    values: i64,
}

/// A reader of Thrift's compact protocol; every method is `None` at the end of the bytes or at nonsense.
struct Compact<'a> {
    bytes: &'a [u8],
    depth: u32,
}

impl Compact<'_> {
    fn page(&mut self) -> Option<Page> {
        let mut page = Page::default();
        let mut sizes = 0;
        let mut id = 0i64;
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (2, 5) => (page.uncompressed, sizes) = (self.zigzag()?, sizes | 1),
                (3, 5) => (page.compressed, sizes) = (self.zigzag()?, sizes | 2),
                (5 | 7 | 8, 12) => page.values = page.values.max(self.first_number()?),
                (_, kind) => self.skip(kind)?,
            }
        }
        (sizes == 3).then_some(page)
    }

    /// The largest of the counts (values, nulls, rows) of a page's inner header: its i32 fields 1 to 3.
    fn first_number(&mut self) -> Option<i64> {
        let (mut id, mut largest, mut seen) = (0i64, 0i64, false);
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (1, 5) => {
                    let n = self.zigzag()?;
                    // A negative count must not hide behind a larger neighbour.
                    (largest, seen) = (if n < 0 { return None } else { largest.max(n) }, true);
                }
                (_, kind) => self.skip(kind)?,
            }
        }
        seen.then_some(largest)
    }

    /// The kind of the next field, and its id; the inner `None` at the end of the struct.
    #[allow(clippy::option_option, reason = "outer: the bytes end; inner: the struct ends")]
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        let delta = i64::from(byte >> 4);
        *id = if delta == 0 { self.zigzag()? } else { *id + delta };
        Some(Some(byte & 15))
    }

    fn skip(&mut self, kind: u8) -> Option<()> {
        if self.depth > 8 {
            return None;
        }
        self.depth += 1;
        match kind {
            1 | 2 => {}
            3 => self.advance(1)?,
            4..=6 => _ = self.varint()?,
            7 => self.advance(8)?,
            8 => {
                let n = self.varint()?;
                self.advance(usize::try_from(n).ok()?)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let n = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                for _ in 0..n {
                    // Booleans take a byte as list elements.
                    if matches!(head & 15, 1 | 2) { self.advance(1)? } else { self.skip(head & 15)? }
                }
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind)?;
                }
            }
            _ => return None,
        }
        self.depth -= 1;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn advance(&mut self, n: usize) -> Option<()> {
        self.bytes = self.bytes.get(n..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let n = self.varint()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(out: &mut Vec<u8>, n: i64) {
        let mut z = ((n << 1) ^ (n >> 63)) as u64;
        while z >= 128 {
            out.push((z as u8 & 127) | 128);
            z >>= 7;
        }
        out.push(z as u8);
    }

    /// A v1 data page with these claims, and `body` bytes after its header.
    fn page(uncompressed: i64, compressed: i64, values: i64, body: usize) -> Vec<u8> {
        let mut out = vec![0x15];
        varint(&mut out, 0);
        for n in [uncompressed, compressed] {
            out.push(0x15);
            varint(&mut out, n);
        }
        out.extend([0x2c, 0x15]);
        varint(&mut out, values);
        for _ in 0..3 {
            out.push(0x15);
            varint(&mut out, 0);
        }
        out.extend([0, 0]);
        out.resize(out.len() + body, 7);
        out
    }

    #[test]
    fn claims_beyond_the_limits_are_refused() {
        assert_eq!(check(&[page(10, 4, 3, 4), page(20, 0, 1, 0)].concat()), Ok(()));
        let second = [page(10, 4, 3, 4), page(2_000_000_000, 4, 3, 4)].concat();
        let fault =
            PageFault::TooLarge { what: "a page size after decompression", found: 2_000_000_000, limit: PAGE_MAX };
        assert_eq!(check(&second), Err(fault));
        let fault = PageFault::TooLarge { what: "a number of values in a page", found: 1 << 30, limit: VALUES_MAX };
        assert_eq!(check(&page(10, 4, 1 << 30, 4)), Err(fault));
    }

    #[test]
    fn nonsense_is_damage() {
        assert_eq!(check(&page(10, 5, 3, 4)), Err(PageFault::Damaged), "a page that ends early");
        assert_eq!(check(&page(-1, 4, 3, 4)), Err(PageFault::Damaged));
        assert_eq!(check(&page(10, 4, -3, 4)), Err(PageFault::Damaged));
        assert_eq!(check(&[0xff; 64]), Err(PageFault::Damaged));
        assert_eq!(check(&[0x1c; 64]), Err(PageFault::Damaged), "structs without end");
    }
}
