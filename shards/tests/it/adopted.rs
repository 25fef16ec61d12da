//! Files as other programs write them, made here with the types and habits that differ from ours. (Files that those programs
//! wrote themselves: `tests/tests/it/strangers.rs`.)

use crate::support::{memory, png, put, row};
use arrow_array::builder::{BinaryBuilder, FixedSizeListBuilder, Float64Builder, ListBuilder, StructBuilder};
use arrow_array::{
    Array, ArrayRef, BinaryArray, DictionaryArray, Int64Array, LargeStringArray, RecordBatch, StructArray,
    types::Int32Type,
};
use arrow_schema::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use pixfleet_cluster::index::DatasetIndex;
use pixfleet_shards::{Columns, Location, RowGroupReader, index, verify};
use std::sync::Arc;

const ROWS: i64 = 7;

/// 32 bytes that do not compress.
fn hash(i: i64) -> Vec<u8> {
    (0..32).map(|j| pixfleet_cluster::rng::mix(32 * i as u64 + j) as u8).collect()
}

/// A region's box; each number may be null.
type Corners = [Option<f64>; 4];

/// What differs from file to file.
struct Foreign {
    widths: Vec<Option<i64>>,
    /// By row; a null row, and null regions.
    regions: Vec<Option<Vec<Option<Corners>>>>,
    pictures: Vec<Option<Vec<u8>>>,
    hashes: Vec<Option<Vec<u8>>>,
    properties: WriterProperties,
}

impl Foreign {
    fn good() -> Self {
        let corners = |i: i64| [Some(0.0), Some(0.0), Some(0.5 + i as f64 / 100.0), Some(0.5)];
        Self {
            widths: (0..ROWS).map(|_| Some(48)).collect(),
            regions: (0..ROWS).map(|i| Some((0..i % 3).map(|r| Some(corners(i + r))).collect())).collect(),
            pictures: (0..ROWS).map(|i| Some(png(48, 32, i as u64).to_vec())).collect(),
            hashes: (0..ROWS).map(|i| Some(hash(i))).collect(),
            properties: plain().build(),
        }
    }

    fn file(&self) -> Vec<u8> {
        let rows = self.widths.len() as i64;
        let bytes =
            |all: &[Option<Vec<u8>>]| Arc::new(all.iter().map(Option::as_deref).collect::<BinaryArray>()) as ArrayRef;
        let image = StructArray::from(vec![
            (Arc::new(Field::new("sha256", DataType::Binary, true)), bytes(&self.hashes)),
            (Arc::new(Field::new("bytes", DataType::Binary, true)), bytes(&self.pictures)),
        ]);
        let source: DictionaryArray<Int32Type> = (0..rows).map(|_| Some("custom")).collect();
        let heights: Int64Array = (0..rows).map(|_| Some(32)).collect();
        let ids: LargeStringArray = (0..rows).map(|i| Some(format!("id {i}"))).collect();
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("image", Arc::new(image) as ArrayRef, true),
            ("regions", self.regions(), true),
            ("height", Arc::new(heights) as ArrayRef, true),
            ("width", Arc::new(Int64Array::from(self.widths.clone())) as ArrayRef, true),
            ("stars", Arc::new(Int64Array::from(vec![5; rows as usize])) as ArrayRef, true),
            ("source", Arc::new(source) as ArrayRef, true),
            ("image_id", Arc::new(ids) as ArrayRef, true),
        ])
        .expect("columns of one length");
        let properties = Some(self.properties.clone());
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), properties).expect("a writer");
        writer.write(&batch).expect("a batch");
        writer.into_inner().expect("a file")
    }

    fn regions(&self) -> ArrayRef {
        let of = Field::new_list_field(DataType::Float64, true);
        let fields = Fields::from(vec![
            Field::new_fixed_size_list("bbox", of, 4, true),
            Field::new("mask_rle", DataType::Binary, true),
        ]);
        let boxes = FixedSizeListBuilder::new(Float64Builder::new(), 4);
        let builders: Vec<Box<dyn arrow_array::builder::ArrayBuilder>> =
            vec![Box::new(boxes), Box::new(BinaryBuilder::new())];
        let mut lists = ListBuilder::new(StructBuilder::new(fields, builders));
        for row in &self.regions {
            for region in row.iter().flatten() {
                let table = lists.values();
                let corners: &mut FixedSizeListBuilder<Float64Builder> = table.field_builder(0).expect("as built");
                for number in region.unwrap_or_default() {
                    corners.values().append_option(number);
                }
                corners.append(true);
                table.field_builder::<BinaryBuilder>(1).expect("as built").append_null();
                table.append(region.is_some());
            }
            lists.append(row.is_some());
        }
        Arc::new(lists.finish())
    }
}

/// As other programs write by default: snappy, dictionaries, several pictures a page, no index of pages.
fn plain() -> parquet::file::properties::WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
}

async fn indexed(location: &Location, file: Vec<u8>) -> DatasetIndex {
    put(location, file).await;
    index::build(location, &mut |_, _| {}).await.expect("a file of another program is adopted")
}

#[tokio::test]
async fn other_types_an_other_order_and_no_keys_are_read() {
    let place = memory();
    let index = indexed(&place.location, Foreign::good().file()).await;
    let file = &index.splits["train"].files[0];
    let regions: i64 = (0..ROWS).map(|i| i % 3).sum();
    assert_eq!((i64::from(file.row_groups[0].rows), i64::from(file.row_groups[0].regions)), (ROWS, regions));
    assert_eq!(file.content.as_ref().map(String::len), Some(32), "the index keeps a hash");

    let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
    let rows = reader.read(0, &[5, 1], Columns::ROWS).await.expect("good rows");
    assert_eq!((rows[0].image_id.as_str(), rows[0].width, rows[0].height), ("id 5", 48, 32));
    assert_eq!(rows[0].source, "custom");
    assert_eq!(
        rows[0].regions.iter().map(|r| r.bbox).collect::<Vec<_>>(),
        [[0.0, 0.0, 0.55, 0.5], [0.0, 0.0, 0.56, 0.5]]
    );
    assert_eq!(rows[1].image.bytes, Some(png(48, 32, 1)));
    assert_eq!(rows[1].image.sha256, Some(hash(1)[..].try_into().expect("32 bytes")));

    let before = reader.fetched().requests();
    reader.read(0, &[0, 2, 6], Columns::ROWS).await.expect("good rows");
    assert_eq!(reader.fetched().requests(), before, "pictures of one chunk are kept together");

    let report = verify::verify(&place.location, &mut |_| {}).await.expect("a readable store");
    assert_eq!((report.rows, report.regions), (ROWS as u64, regions as u64));
    assert_eq!(report.faults.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test]
async fn a_byte_that_flips_after_the_index_is_noticed() {
    let place = memory();
    let mut bytes = Foreign::good().file();
    indexed(&place.location, bytes.clone()).await;
    // The first bytes after the magic ones are a page of the first column's hashes: any value is a hash.
    let at = bytes.windows(32).position(|w| w == hash(3)).expect("hashes are stored plainly");
    bytes[at] ^= 1;
    put(&place.location, bytes).await;
    let report = verify::verify(&place.location, &mut |_| {}).await.expect("a readable store");
    let said: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|s| s.contains("its bytes are not those that were written")), "{said:?}");
}

/// What a reader says of row 1 of a file that `spoil` had its way with; its neighbours are good.
async fn said(spoil: impl Fn(&mut Foreign)) -> String {
    let place = memory();
    let mut file = Foreign::good();
    spoil(&mut file);
    let index = indexed(&place.location, file.file()).await;
    let reader = RowGroupReader::new(place.location.clone(), &index, "train", None).expect("a split");
    reader.read(0, &[0, 2], Columns::ROWS).await.expect("good neighbours");
    reader.read(0, &[1], Columns::ROWS).await.expect_err("a null where none may be").to_string()
}

#[tokio::test]
async fn nulls_where_none_may_be_are_named_by_row() {
    let at = "train/part-00000.parquet, row group 0, row 1, field";
    assert_eq!(said(|f| f.widths[1] = None).await, format!("{at} width: null; write the picture's size in pixels"));
    assert_eq!(
        said(|f| f.widths[1] = Some(1 << 40)).await,
        format!("{at} width: 2147483647 pixels; expected 1 to 32768")
    );
    assert_eq!(said(|f| f.regions[1] = None).await, format!("{at} regions: null; write an empty list for no regions"));
    assert_eq!(
        said(|f| f.regions[1] = Some(vec![None])).await,
        format!("{at} regions[0]: null; leave the region out of the list")
    );
    assert_eq!(
        said(|f| f.regions[1] = Some(vec![Some([Some(0.0), None, Some(1.0), Some(1.0)])])).await,
        format!("{at} regions[0].bbox: number 1 of 4 is null; write 4 numbers")
    );
    assert_eq!(
        said(|f| f.hashes[1] = Some(b"00ff".to_vec())).await,
        format!("{at} image.sha256: 4 bytes; expected the 32 bytes of a SHA-256, not its hexadecimal digits")
    );
}

#[tokio::test]
async fn more_pictures_than_are_read_together_say_how_to_write_fewer() {
    let place = memory();
    let rows = 260;
    let file = |properties| Foreign {
        widths: vec![Some(48); rows],
        regions: vec![Some(Vec::new()); rows],
        pictures: vec![Some(vec![0; 1 << 20]); rows],
        hashes: vec![None; rows],
        properties,
    };
    let plain = plain().set_dictionary_enabled(false);
    put(&place.location, file(plain.clone().build()).file()).await;
    let error = index::build(&place.location, &mut |_, _| {}).await.expect_err("260 MiB in one piece");
    let said = error.to_string();
    assert!(said.starts_with("train/part-00000.parquet, row group 0: its 260 pictures are 2726"), "{said}");
    assert!(said.contains("write at most 255 rows a row group (pyarrow and polars: row_group_size=255;"), "{said}");
    indexed(&place.location, file(plain.set_offset_index_disabled(false).build()).file()).await;
}

#[tokio::test]
async fn a_picture_beside_its_struct_is_named() {
    let place = memory();
    let ours = row(1);
    let columns: [(&str, ArrayRef); 4] = [
        ("image_id", Arc::new(arrow_array::StringArray::from(vec![ours.image_id]))),
        ("width", Arc::new(Int64Array::from(vec![48]))),
        ("height", Arc::new(Int64Array::from(vec![32]))),
        ("image", Arc::new(BinaryArray::from(vec![&b"..."[..]]))),
    ];
    let regions = Foreign { regions: vec![Some(Vec::new())], ..Foreign::good() }.regions();
    assert_eq!(regions.len(), 1);
    let batch = RecordBatch::try_from_iter(columns.into_iter().chain([("regions", regions)])).expect("one row");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("a batch");
    put(&place.location, writer.into_inner().expect("a file")).await;
    let error = index::build(&place.location, &mut |_, _| {}).await.expect_err("no struct");
    assert_eq!(
        error.to_string(),
        "train/part-00000.parquet: column `image` is BYTE_ARRAY, expected a struct with `bytes`, `path` or `url`; write the file again with that type"
    );
}
