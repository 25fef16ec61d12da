//! Checkpoints: bytes <-> object store. Parts (one per rank), manifests, the choice of the newest good one, retention.
//!
//! No tensors of torch here: a tensor is a name, a dtype, a shape and bytes. A checkpoint exists if and only if its
//! manifest does, and a reader believes a manifest only after every part's digest agreed.
//!
//! The seam for asynchronous staging: [`encode`] turns host tensors into the bytes of a part and [`write_part`] is a
//! future that owns them, so nothing here needs the trainer to wait.
//!
//! Checkpoints of other programs are read by [`torch_file`].

mod attempts;
mod audited;
mod chunk;
mod error;
pub mod leaders;
mod ledger;
mod part;
mod read;
mod retention;
mod store;
pub mod torch_file;
mod write;

#[cfg(test)]
mod tests;

pub use attempts::Attempts;
pub use audited::{AuditError, Audited, audited};
pub use error::CheckpointError;
pub use ledger::{Ledger, LedgerError, Segment, each_segment, read_ledger};
pub use part::{EncodedPart, HostTensor, decode, encode, share};
pub use read::{Found, load, load_at, newest_good, newest_good_where, read_manifest, verify};
pub use retention::{Doomed, doomed, sweep};
pub use safetensors::Dtype;
pub use store::Folder;
pub use write::{PartKey, write_part};
