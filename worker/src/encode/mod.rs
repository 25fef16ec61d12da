//! `pixfleet encode`: embeddings of a split as one Parquet file, a row per region.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `image_id` | string | key of the image |
//! | `region` | int32 | number of the region within its image |
//! | `region_embedding` | fixed list of D float32 | PixCLIP: image with the region's mask; FG-CLIP: pooled from the patch map by the region's box |
//! | `image_embedding` | fixed list of D float32 | the image, with an all-ones mask where the tower has a mask |
//! | `short_embedding` | fixed list of D float32, nullable | the region's short text |
//! | `long_embedding` | fixed list of D float32, nullable | PixCLIP: the region's long text; FG-CLIP: the image's long caption |
//!
//! All embeddings are L2-normalized, so a dot product is the cosine.

use crate::eval::captions::features as captions;
use crate::eval::features::{FeatureJob, ImageFeatures, RegionFeatures, encode_split};
use crate::eval::subject::{Subject, SubjectArgs};
use anyhow::{Context, Result};
use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, Int32Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What was typed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pixfleet encode s3://bucket/runs/base --split test --out embeddings.parquet")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// The Parquet file to write.
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let subject = runtime.block_on(Subject::open(&args.subject))?;
    let mut table = Table::create(&args.out, subject.model.vision().sizes().embed())?;
    let bad = if subject.needs.draws_region() {
        let job = job(&subject, args.subject.limit)?;
        encode_split(&job, |images| table.push(&images))?
    } else {
        let config = subject.config(captions::needs(&subject))?;
        let split = captions::encode_split(&subject, &config, args.subject.limit)?;
        table.push(&split.by_image())?;
        split.bad
    };
    let rows = table.finish()?;
    eprintln!("{rows} regions of {} in {}; {bad} bad rows left out", args.subject.split(), args.out.display());
    Ok(ExitCode::SUCCESS)
}

fn job(subject: &Subject, limit: Option<u64>) -> Result<FeatureJob<'_>> {
    Ok(FeatureJob {
        reader: &subject.reader,
        config: subject.mask_config()?,
        model: &subject.model,
        device: subject.device,
        boxes: false,
        limit,
    })
}

/// The file, while it grows. It gets its name when it is whole.
struct Table {
    schema: SchemaRef,
    dim: i32,
    path: PathBuf,
    partial: PathBuf,
    writer: ArrowWriter<File>,
    rows: u64,
}

impl Table {
    fn create(path: &Path, dim: i64) -> Result<Self> {
        let dim = i32::try_from(dim).context("the joint space is too wide for a list")?;
        let list = |name: &str, nullable| Field::new(name, DataType::FixedSizeList(Arc::new(item()), dim), nullable);
        let schema = Arc::new(Schema::new(vec![
            Field::new("image_id", DataType::Utf8, false),
            Field::new("region", DataType::Int32, false),
            list("region_embedding", false),
            list("image_embedding", false),
            list("short_embedding", true),
            list("long_embedding", true),
        ]));
        let partial = path.with_extension("parquet.part");
        let file = File::create(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), None)?;
        Ok(Self { schema, dim, path: path.to_owned(), partial, writer, rows: 0 })
    }

    fn push(&mut self, images: &[ImageFeatures]) -> Result<()> {
        let regions = || images.iter().flat_map(|image| image.regions.iter().map(move |region| (image, region)));
        let mut ids = StringBuilder::new();
        let mut numbers = Int32Builder::new();
        for (image, region) in regions() {
            ids.append_value(&image.image_id);
            numbers.append_value(i32::try_from(region.index)?);
        }
        let column = |of: fn(&ImageFeatures, &RegionFeatures) -> Option<Vec<f32>>| -> ArrayRef {
            let mut list = FixedSizeListBuilder::new(Float32Builder::new(), self.dim).with_field(Arc::new(item()));
            for (image, region) in regions() {
                let values = of(image, region);
                list.append(values.is_some());
                list.values().append_slice(&values.unwrap_or_else(|| vec![0.0; self.dim as usize]));
            }
            Arc::new(list.finish())
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(ids.finish()),
            Arc::new(numbers.finish()),
            column(|_, region| Some(region.mask.clone())),
            column(|image, _| Some(image.full.clone())),
            column(|_, region| region.short.as_ref().map(|t| t.embedding.clone())),
            column(|_, region| region.long.as_ref().map(|t| t.embedding.clone())),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.rows += batch.num_rows() as u64;
        self.writer.write(&batch).with_context(|| format!("cannot write {}", self.partial.display()))
    }

    fn finish(self) -> Result<u64> {
        self.writer.close()?;
        std::fs::rename(&self.partial, &self.path).with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self.rows)
    }
}

fn item() -> Field {
    Field::new("item", DataType::Float32, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::features::Text;
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Float32Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    #[test]
    fn a_row_per_region_with_nulls_where_a_text_is_missing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("out.parquet");
        let text = |v: f32| Some(Text { text: "t".into(), embedding: vec![v, -v] });
        let region = |index, short: Option<Text>| RegionFeatures {
            index,
            mask: vec![index as f32, 1.0],
            boxed: vec![],
            short,
            long: None,
        };
        let image = ImageFeatures {
            image_id: "a".into(),
            row_group: 0,
            row: 0,
            full: vec![0.5, 0.5],
            regions: vec![region(0, text(2.0)), region(1, None)],
        };
        let mut table = Table::create(&path, 2).expect("created");
        table.push(&[image]).expect("pushed");
        assert!(!path.exists(), "a file that is not whole has no name yet");
        assert_eq!(table.finish().expect("finished"), 2);
        let file = File::open(&path).expect("there");
        let batch = ParquetRecordBatchReaderBuilder::try_new(file).expect("parquet").build().expect("reader").next();
        let batch = batch.expect("a batch").expect("good");
        let list = |name: &str| batch.column_by_name(name).expect("column").as_fixed_size_list().clone();
        let numbers = |name: &str, i: usize| list(name).value(i).as_primitive::<Float32Type>().values().to_vec();
        assert_eq!(numbers("region_embedding", 1), [1.0, 1.0]);
        assert_eq!(numbers("image_embedding", 1), [0.5, 0.5]);
        assert_eq!(numbers("short_embedding", 0), [2.0, -2.0]);
        assert!(list("short_embedding").is_null(1) && list("long_embedding").is_null(0));
    }
}
