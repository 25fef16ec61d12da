//! What is ingested, from where and how.

use crate::draft::PictureCheck;
use crate::error::IngestError;
use crate::fetch::Politeness;
use crate::formats::Format;
use crate::formats::row::FieldMap;
use crate::geometry::BoxForm;
use crate::input::{Input, STDIN};
use crate::pictures::PicturesFrom;
use crate::records::groups::Groups;
use crate::records::joined::{Images, Speaker};
use crate::records::parquet::Rows;
use crate::records::plain::{Elements, Lines};
use crate::records::{InTurn, PartKind, Position, Records};
use crate::reject::RejectLimit;
use pixfleet_shards::WriterOptions;
use std::sync::Arc;

/// What is ingested, from where and how.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// The format of the source.
    pub format: Format,
    /// A file or folder, by path or URL; `-` is standard input.
    pub source: String,
    /// COCO: the file of captions. RefCOCO: COCO's instances.
    pub beside: Option<String>,
    /// Where pictures are that do not come with their records.
    pub pictures: PicturesFrom,
    /// How pictures that are not there are fetched by their addresses; `None`: they are not.
    pub fetch: Option<Politeness>,
    /// Which of their fields are ours.
    pub map: FieldMap,
    /// In which form boxes stand, for formats that do not fix it.
    pub boxes: BoxForm,
    /// How closely pictures are looked at.
    pub check: PictureCheck,
    /// The split that is written.
    pub split: String,
    /// Rows at most.
    pub limit: Option<u64>,
    /// Rejects that end the ingest; `None`: any number is told, and none ends it.
    pub max_rejects: Option<RejectLimit>,
    /// Sizes of what is written.
    pub writer: WriterOptions,
    /// Whether an earlier ingest of the split is forgotten.
    pub restart: bool,
}

/// The opened source.
pub(crate) struct Opened {
    pub(crate) input: Input,
    beside: Option<Input>,
    format: Format,
    map: FieldMap,
}

impl Ingest {
    pub(crate) async fn open(&self) -> Result<Opened, IngestError> {
        self.check()?;
        let mut input = Input::open(&self.source, self.format.endings()).await?;
        if self.format == Format::Webdataset {
            // They lie beside the pictures' tar files, and hold none.
            input = input.without(crate::vectors::ENDING);
        }
        let beside = match &self.beside {
            Some(url) => Some(Input::open(url, &[".json"]).await?.counted_by(&input)),
            None => None,
        };
        Ok(Opened { input, beside, format: self.format, map: self.map.clone() })
    }

    fn check(&self) -> Result<(), IngestError> {
        let name = self.format.name();
        let is_from_stdin = self.source == STDIN;
        let is_stream = matches!(self.format, Format::Webdataset | Format::Jsonl);
        if is_from_stdin && !is_stream {
            let text = format!("{name} cannot be read from standard input: give a file, a folder or a URL");
            return Err(IngestError::Options(text));
        }
        if is_from_stdin && self.format == Format::Jsonl && self.pictures == PicturesFrom::Beside {
            let text = "say where the pictures of the lines are with --images".to_owned();
            return Err(IngestError::Options(text));
        }
        if self.format == Format::Refcoco && self.beside.is_none() {
            let text = "refcoco needs COCO's instances beside the references: --instances FILE".to_owned();
            return Err(IngestError::Options(text));
        }
        if self.split.is_empty() || self.split.contains('/') || ["index", "ingest", "vectors"].contains(&&*self.split) {
            return Err(IngestError::Options(format!("`{}` is no name of a split", self.split)));
        }
        Ok(())
    }

    /// What tells this ingest from others: source, options, sizes.
    pub(crate) fn digest(&self, opened: &Opened) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(self.format.name().as_bytes());
        for input in std::iter::once(&opened.input).chain(&opened.beside) {
            hash.update(b"\n");
            input.digest(&mut hash);
        }
        for (ours, theirs) in self.map.pairs() {
            hash.update(format!("\n{ours}={theirs}").as_bytes());
        }
        let rest = (&self.pictures, self.fetch.is_some(), self.boxes, self.check, &self.split, self.limit, self.writer);
        hash.update(format!("\n{rest:?}").as_bytes());
        hash.finalize().to_hex()[..32].to_owned()
    }
}

impl Opened {
    /// The records from `at` on; for threads that may block.
    pub(crate) fn records(&self, at: Position) -> Result<Box<dyn Records>, IngestError> {
        let (input, format, map) = (self.input.clone(), self.format, self.map.clone());
        if let Format::Coco | Format::Lvis | Format::Refcoco = format {
            let (instances, others) = self.speakers()?;
            let open = move |_| Ok(Box::new(Images::open(&instances, &others)?) as Box<dyn Records>);
            return Ok(Box::new(InTurn::from(at, 1, open)?));
        }
        let is_folder_of_files = |i: &Input| i.files.iter().all(|f| !has_ending(&f.name, &[".tar", ".parquet"]));
        let is_grouped = matches!(format, Format::AlphaclipGrit | Format::Grit) && is_folder_of_files(&input);
        let files = if is_grouped { 1 } else { input.files.len() as u32 };
        let open = move |file: u32| -> Result<Box<dyn Records>, IngestError> {
            if is_grouped {
                return Ok(Box::new(Groups::of_folder(input.clone())));
            }
            let file = &input.files[file as usize];
            let name = Arc::clone(&file.name);
            Ok(match format {
                Format::Finehard => Box::new(Elements::new(name, input.read(file)?)),
                Format::Jsonl => Box::new(Lines::new(name, input.read(file)?, None)),
                Format::FgOvd => Box::new(Lines::new(name, input.read(file)?, Some("img_path"))),
                Format::Parquet => Box::new(Rows::open(&input, file, |column| map.wants(column))?),
                Format::Grit if has_ending(&name, &[".parquet"]) => {
                    let wanted = |column: &str| crate::formats::grit::COLUMNS.contains(&column);
                    Box::new(Rows::open(&input, file, wanted)?)
                }
                Format::Webdataset | Format::AlphaclipGrit | Format::Grit => Box::new(Groups::of_tar(&input, file)?),
                Format::Coco | Format::Lvis | Format::Refcoco => unreachable!("read above"),
            })
        };
        Ok(Box::new(InTurn::from(at, files, open)?))
    }

    /// Who speaks of COCO's images: the instances first.
    fn speakers(&self) -> Result<(Speaker, Vec<Speaker>), IngestError> {
        let one = |input: &Input, kind| match input.files.as_slice() {
            [file] => Ok(Speaker { kind, input: input.clone(), file: file.clone() }),
            files => {
                let names: Vec<_> = files.iter().map(|f| f.name.as_ref()).collect();
                Err(IngestError::Options(format!("{}: expected one file, not {}", input.url, names.join(", "))))
            }
        };
        let beside = |kind| self.beside.as_ref().map(|input| one(input, kind)).transpose();
        if self.format == Format::Refcoco {
            let instances = beside(PartKind::Annotation)?.expect("checked when it was opened");
            return Ok((instances, vec![one(&self.input, PartKind::Reference)?]));
        }
        Ok((one(&self.input, PartKind::Annotation)?, beside(PartKind::Caption)?.into_iter().collect()))
    }
}

fn has_ending(name: &str, endings: &[&str]) -> bool {
    let name = name.to_lowercase();
    endings.iter().any(|ending| name.ends_with(ending))
}
