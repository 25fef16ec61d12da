//! What a reader keeps: opened files, narrow columns of row groups, pictures and vectors of rows.
//!
//! Each kind has its shelf; the least recently used leave first. Pictures and vectors leave before narrow columns, for a row
//! is read once an epoch, the narrow columns of its row group by every step that reads from there. What is not there is
//! fetched by one of those who ask for it, while the others wait.

use crate::decode::Decoded;
use crate::file::ShardFile;
use crate::schema::Columns;
use crate::text_vectors::RowVectors;
use bytes::Bytes;
use pixfleet_cluster::evidence::Origin;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// Bytes of opened files (footers and indexes of pages) that are kept.
const FILES_BYTES: usize = 64 << 20;

/// What one asks for and one fetches.
pub(crate) type Cell<T> = Arc<OnceCell<T>>;

/// The narrow columns of a row group, row by row.
pub(crate) type Narrow = Arc<Vec<Decoded>>;

/// A picture, if there is one, and where it was found.
#[derive(Clone, Default)]
pub(crate) struct FoundImage {
    pub(crate) bytes: Option<Bytes>,
    pub(crate) origin: Option<Origin>,
}

/// Vectors, and the row of the data that they say they are of.
pub(crate) type FoundVectors = Arc<(RowVectors, Origin)>;

/// What is kept of single rows of a row group.
#[derive(Default)]
pub(crate) struct GroupRows {
    pub(crate) images: HashMap<u32, FoundImage>,
    /// By row, and whether their hashes were read with them.
    pub(crate) vectors: HashMap<(u32, bool), FoundVectors>,
}

/// Shared by all who read through one reader.
pub(crate) struct Cache {
    bytes_max: usize,
    shelves: Mutex<Shelves>,
}

struct Shelves {
    files: Shelf<String, Cell<ShardFile>>,
    narrow: Shelf<(u32, Columns), Cell<Narrow>>,
    rows: Shelf<u32, GroupRows>,
    clock: u64,
}

struct Shelf<K, V> {
    kept: HashMap<K, Kept<V>>,
    bytes: usize,
}

struct Kept<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Hash + Eq + Clone, V> Shelf<K, V> {
    fn new() -> Self {
        Self { kept: HashMap::new(), bytes: 0 }
    }

    fn get(&mut self, key: &K, now: u64) -> Option<&mut V> {
        let kept = self.kept.get_mut(key)?;
        kept.used = now;
        Some(&mut kept.value)
    }

    fn get_or_new(&mut self, key: K, now: u64) -> &mut V
    where
        V: Default,
    {
        let kept = self.kept.entry(key).or_insert_with(|| Kept { value: V::default(), bytes: 0, used: 0 });
        kept.used = now;
        &mut kept.value
    }

    /// What `key` stands for has grown by so many bytes; it may have left meanwhile.
    fn grow(&mut self, key: &K, bytes: usize) {
        if let Some(kept) = self.kept.get_mut(key) {
            kept.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Removes the one of those with any bytes that was used longest ago; `false` if there is none.
    fn drop_oldest(&mut self) -> bool {
        let heavy = self.kept.iter().filter(|(_, kept)| kept.bytes > 0);
        let Some(key) = heavy.min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone()) else { return false };
        self.bytes -= self.kept.remove(&key).map_or(0, |kept| kept.bytes);
        true
    }
}

impl Cache {
    /// Keeps at most about `bytes_max` of rows and narrow columns.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let shelves = Shelves { files: Shelf::new(), narrow: Shelf::new(), rows: Shelf::new(), clock: 0 };
        Self { bytes_max, shelves: Mutex::new(shelves) }
    }

    /// Bytes of rows and narrow columns that are kept now.
    pub(crate) fn bytes(&self) -> usize {
        let shelves = self.lock();
        shelves.narrow.bytes + shelves.rows.bytes
    }

    /// The cell of the file at `path` within the dataset.
    pub(crate) fn file(&self, path: &str) -> Cell<ShardFile> {
        let mut shelves = self.lock();
        let now = shelves.tick();
        Arc::clone(shelves.files.get_or_new(path.to_owned(), now))
    }

    /// A file was opened.
    pub(crate) fn opened(&self, path: &str, file: &ShardFile) {
        let mut shelves = self.lock();
        shelves.files.grow(&path.to_owned(), file.footer().memory_size());
        while shelves.files.bytes > FILES_BYTES && shelves.files.drop_oldest() {}
    }

    /// The cell of a row group's narrow columns.
    pub(crate) fn narrow(&self, row_group: u32, columns: Columns) -> Cell<Narrow> {
        let mut shelves = self.lock();
        let now = shelves.tick();
        Arc::clone(shelves.narrow.get_or_new((row_group, columns), now))
    }

    /// Narrow columns of so many bytes were fetched.
    pub(crate) fn narrowed(&self, row_group: u32, columns: Columns, bytes: usize) {
        let mut shelves = self.lock();
        shelves.narrow.grow(&(row_group, columns), bytes);
        self.make_room(shelves);
    }

    /// What `look` finds among the rows of a row group.
    pub(crate) fn find<T: Default>(&self, row_group: u32, look: impl FnOnce(&GroupRows) -> T) -> T {
        let mut shelves = self.lock();
        let now = shelves.tick();
        shelves.rows.get(&row_group, now).map_or_else(T::default, |rows| look(rows))
    }

    /// Keeps something of `bytes` with a row group.
    pub(crate) fn keep(&self, row_group: u32, bytes: usize, put: impl FnOnce(&mut GroupRows)) {
        let mut shelves = self.lock();
        let now = shelves.tick();
        put(shelves.rows.get_or_new(row_group, now));
        shelves.rows.grow(&row_group, bytes);
        self.make_room(shelves);
    }

    fn make_room(&self, mut shelves: MutexGuard<'_, Shelves>) {
        while shelves.narrow.bytes + shelves.rows.bytes > self.bytes_max
            && (shelves.rows.drop_oldest() || shelves.narrow.drop_oldest())
        {}
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(cache: &Cache, row_group: u32, bytes: usize) {
        cache.keep(row_group, bytes, |rows| drop(rows.images.insert(0, FoundImage::default())));
    }

    fn has(cache: &Cache, row_group: u32) -> bool {
        cache.find(row_group, |rows| rows.images.contains_key(&0))
    }

    #[test]
    fn rows_leave_before_narrow_columns_and_the_oldest_first() {
        let cache = Cache::new(100);
        let narrow = |group| cache.narrow(group, Columns::TRAIN);
        narrow(0).set(Arc::default()).expect("nobody has asked yet");
        cache.narrowed(0, Columns::TRAIN, 40);
        keep(&cache, 1, 30);
        keep(&cache, 2, 30);
        assert!(has(&cache, 1) && has(&cache, 2));
        // Row group 1 was looked at before 2.
        keep(&cache, 3, 20);
        assert!(!has(&cache, 1) && has(&cache, 2) && has(&cache, 3) && narrow(0).initialized());
        assert_eq!(cache.bytes(), 90);
        cache.narrowed(0, Columns::TRAIN, 100);
        assert!(!has(&cache, 2) && !has(&cache, 3) && !narrow(0).initialized());
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn what_left_while_it_was_fetched_is_not_counted() {
        let cache = Cache::new(10);
        let cell = cache.narrow(7, Columns::TRAIN);
        cache.narrowed(7, Columns::TRAIN, 11);
        assert!(!Arc::ptr_eq(&cell, &cache.narrow(7, Columns::TRAIN)));
        cache.narrowed(8, Columns::TRAIN, 5);
        assert_eq!(cache.bytes(), 0);
    }
}
