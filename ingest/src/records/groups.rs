//! Files grouped by their basename, as the webdataset library defines it: a key is the path up to the first dot of the
//! file's name, files of one key follow each other.

use super::tar::{Tar, TarFile};
use super::{Body, Found, Member, Position, Records};
use crate::error::IngestError;
use crate::input::{Counted, Input, InputFile};
use crate::reject::Spot;
use std::io::BufReader;
use std::sync::Arc;

/// Bytes of one group at most: a key that never changes would fill the memory.
const GROUP_MAX: usize = 512 << 20;

/// Key and ending of a path; `None` for a file without an ending, and for those whose name begins with a dot.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name + path[name..].find('.')?;
    (dot > name).then(|| (&path[..dot], &path[dot + 1..]))
}

/// Where files come from, in order.
trait Files: Send {
    fn next(&mut self) -> Result<Option<TarFile>, IngestError>;
}

impl Files for Tar<BufReader<Counted>> {
    fn next(&mut self) -> Result<Option<TarFile>, IngestError> {
        Tar::next(self)
    }
}

/// Files of a folder, in the order of their names.
struct Folder {
    input: Input,
    at: usize,
}

impl Files for Folder {
    fn next(&mut self) -> Result<Option<TarFile>, IngestError> {
        let Some(file) = self.input.files.get(self.at) else { return Ok(None) };
        self.at += 1;
        Ok(Some(TarFile { name: file.name.to_string(), bytes: self.input.whole(file)? }))
    }
}

/// Groups of a stream of files.
pub(crate) struct Groups {
    file: Arc<str>,
    files: Box<dyn Files>,
    ahead: Option<(String, Member)>,
    record: u64,
}

impl Groups {
    /// Of one tar file.
    pub(crate) fn of_tar(input: &Input, file: &InputFile) -> Result<Self, IngestError> {
        let tar = Tar::new(file.name.as_ref(), input.read(file)?);
        Ok(Self { file: Arc::clone(&file.name), files: Box::new(tar), ahead: None, record: 0 })
    }

    /// Of the files of a folder.
    pub(crate) fn of_folder(input: Input) -> Self {
        let file = "the folder".into();
        Self { file, files: Box::new(Folder { input, at: 0 }), ahead: None, record: 0 }
    }

    fn member(&mut self) -> Result<Option<(String, Member)>, IngestError> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        while let Some(TarFile { name, bytes }) = self.files.next()? {
            if let Some((key, ending)) = split(&name) {
                let (key, ending) = (key.to_owned(), ending.to_lowercase());
                return Ok(Some((key, Member { ending, name, bytes })));
            }
        }
        Ok(None)
    }
}

impl Records for Groups {
    fn next(&mut self) -> Result<Option<Found>, IngestError> {
        let Some((key, first)) = self.member()? else { return Ok(None) };
        let (mut bytes, mut members) = (first.bytes.len(), vec![first]);
        while let Some((other, member)) = self.member()? {
            if other != key {
                self.ahead = Some((other, member));
                break;
            }
            bytes += member.bytes.len();
            if bytes > GROUP_MAX {
                let (file, found) = (self.file.to_string(), format!("more than {bytes} bytes of the key `{key}`"));
                let expected = "512 MiB of files of one key at most";
                return Err(IngestError::Broken { file, offset: 0, found, expected });
            }
            members.push(member);
        }
        let spot = Spot::new(&self.file, self.record).keyed(key);
        self.record += 1;
        Ok(Some(Found { spot, body: Body::Group(members), after: Position::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_path_up_to_the_first_dot_of_the_name() {
        assert_eq!(split("00/a.b.jpg"), Some(("00/a", "b.jpg")));
        assert_eq!(split("v1.0/a.jpg"), Some(("v1.0/a", "jpg")));
        assert_eq!((split("v1.0/README"), split(".hidden")), (None, None));
    }
}
