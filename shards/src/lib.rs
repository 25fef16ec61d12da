//! LongGRIT on object storage: Parquet schema, writing, index, ranged reads, pixels, samples and batches; and
//! mini-LongGRIT, a dataset composed from drawings. Knows no tensors.

mod access;
mod adopt;
pub mod batch;
mod cache;
pub mod claims;
mod decode;
pub mod embed;
mod encode;
pub mod error;
mod file;
pub mod filter;
pub mod hard_neg;
pub mod index;
pub mod inspect;
pub mod mini;
pub mod mix;
mod numbers;
mod pages;
mod patience;
pub mod pixels;
pub mod reader;
pub mod row;
pub mod sample;
pub mod schema;
mod source;
pub mod stats;
pub mod store;
pub mod text_vectors;
pub mod token_report;
pub mod tokens;
pub mod verify;
pub mod writer;

pub use access::{Fetched, Gate};
pub use error::{FieldFault, Place, ShardError};
pub use hard_neg::{HardNegCounts, HardNegKind};
pub use reader::RowGroupReader;
pub use row::{ImageRow, ImageSource, Region};
pub use schema::Columns;
pub use store::Location;
pub use tokens::{Tokenizer, TokenizerError, Tokens};
pub use writer::{ShardWriter, WriterOptions, Written};
