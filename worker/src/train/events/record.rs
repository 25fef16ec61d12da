//! What an event file is made of: protobuf messages of TensorFlow (the few fields that a curve needs) in the frames of
//! a TFRecord file.

use std::io::{self, Write};

use crc_fast::{CrcAlgorithm, checksum};
use prost::Message;

/// `tensorflow.Event`
#[derive(Clone, PartialEq, Message)]
pub(super) struct TfEvent {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    /// In a file's first event only.
    #[prost(string, optional, tag = "3")]
    pub(super) file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub(super) summary: Option<TfSummary>,
}

/// `tensorflow.Summary`
#[derive(Clone, PartialEq, Message)]
pub(super) struct TfSummary {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<Value>,
}

/// `tensorflow.Summary.Value`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    /// One of several kinds of value, so a zero is written too.
    #[prost(float, optional, tag = "2")]
    pub(super) simple_value: Option<f32>,
}

impl Value {
    /// A point of the curve `tag`.
    pub(super) fn scalar(tag: String, value: f64) -> Self {
        Self { tag, simple_value: Some(value as f32) }
    }
}

/// One frame: length and its checksum, message and its checksum.
///
/// # Errors
/// The writer's.
pub(super) fn write_record(to: &mut impl Write, event: &TfEvent) -> io::Result<()> {
    let message = event.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    to.write_all(&length)?;
    to.write_all(&masked_crc32c(&length).to_le_bytes())?;
    to.write_all(&message)?;
    to.write_all(&masked_crc32c(&message).to_le_bytes())
}

/// A checksum of data that may hold checksums: rotated and shifted, so that it is none of its own.
pub(super) fn masked_crc32c(bytes: &[u8]) -> u32 {
    let crc = u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).expect("a CRC-32 has 32 bits");
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}
