//! What can be wrong with a file of `torch.save`, and what to do about it.

use std::path::PathBuf;

/// A torch.save file could not be read. Whatever the file says, nothing in it was executed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFileError {
    /// The file system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        #[source]
        source: std::io::Error,
    },
    /// The file begins as another kind of file.
    #[error("{} is not a torch.save zip file: {container}", path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        container: Container,
    },
    /// The zip container is cut short or damaged.
    #[error("{} is a damaged or truncated torch.save file; fetch it again", path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// The container reader's own words.
        #[source]
        source: rawzip::Error,
    },
    /// A record of the container is missing or not as torch writes it.
    #[error("{}: record `{record}` {fault}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The record's name within the container.
        record: String,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// The pickle refers to something that no state dict needs. Python would import and call it.
    #[error(
        "{} refers to `{global}`, which is not one of the tensors, containers and numbers that a state dict is made of; \
         Python's pickle would import it and could run code. Nothing was run. Save the weights alone with \
         `torch.save(model.state_dict(), path)`, or as safetensors",
        path.display()
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// `module.name`.
        global: String,
    },
    /// The pickle is malformed.
    #[error("{}: the pickle in it is damaged at byte {at}: {fault}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Where in `data.pkl`, in bytes.
        at: usize,
        /// What is wrong there.
        fault: PickleFault,
    },
    /// There are no named tensors where a checkpoint keeps them.
    #[error(
        "{} holds no state dict: expected a dict of tensors at the root or under one of {expected}, found {found}",
        path.display()
    )]
    NoStateDict {
        /// The file.
        path: PathBuf,
        /// Keys that are looked under.
        expected: String,
        /// The root's type or its first keys.
        found: String,
    },
    /// No tensor has this name.
    #[error("{} holds no tensor `{name}`", path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// As asked for.
        name: String,
    },
}

/// What a file is that is not a zip file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Container {
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// torch before 1.6, or `_use_new_zipfile_serialization=False`.
    #[error(
        "it is in the older format without a zip container; load it with `torch.load(path, weights_only=True)` and save it \
         again with `torch.save`"
    )]
    Legacy,
    /// torch before 0.4.
    #[error("it is a tar file of torch before 0.4; load and save it again with a recent torch")]
    Tar,
    /// Anything else.
    #[error("it begins with none of the formats that are read here (torch.save zip, safetensors)")]
    Unknown,
    /// A TorchScript program.
    #[error("it is a TorchScript program; save the module's `state_dict()` instead")]
    Script,
}

/// What can be wrong with a record of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Not there.
    #[error("is missing")]
    Missing,
    /// Two of one name: readers would disagree on which counts.
    #[error("is there twice")]
    Twice,
    /// torch stores records as they are.
    #[error("is compressed or encrypted, which torch.save never does")]
    NotStored,
    /// It reaches beyond the file.
    #[error("ends at byte {end} of a file of {file} bytes: the file is truncated")]
    BeyondFile {
        /// Where the record would end.
        end: u64,
        /// The file's size.
        file: u64,
    },
    /// More than is read into memory at once.
    #[error("has {bytes} bytes, at most {max} are read")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A storage whose size is not what its tensors say.
    #[error("has {found} bytes, its tensors say {expected}")]
    Size {
        /// By the pickle.
        expected: u64,
        /// In the container.
        found: u64,
    },
    /// Written on a big-endian machine.
    #[error("does not say `little`: big-endian files are not read")]
    ByteOrder,
}

/// What can be wrong with a pickle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleFault {
    /// The bytes end within an instruction, or before STOP.
    #[error("it ends too early")]
    Truncated,
    /// Protocol 2 to 5 are read.
    #[error("protocol {0} (2 to 5 are read)")]
    Protocol(u8),
    /// An instruction that torch.save does not write.
    #[error("opcode 0x{0:02x}, which torch.save does not write")]
    Opcode(u8),
    /// An instruction found too little on the stack.
    #[error("an instruction finds too little on the stack")]
    StackUnderflow,
    /// A value of another type than the instruction needs.
    #[error("{expected} expected, found {found}")]
    Type {
        /// What the instruction needs.
        expected: &'static str,
        /// What lies there.
        found: &'static str,
    },
    /// Nothing was memorized under this number.
    #[error("memo {0} is empty")]
    Memo(u32),
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Text,
    /// More values than any checkpoint has.
    #[error("more than {0} values")]
    TooMany(usize),
    /// A call with arguments that torch does not write.
    #[error("`{0}` with arguments that torch does not write")]
    Arguments(&'static str),
    /// A tensor whose sizes cannot be.
    #[error("{0}")]
    Tensor(#[from] TensorFault),
}

/// What can be wrong with a tensor's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TensorFault {
    /// Sizes and strides differ in number, or there are too many.
    #[error("a tensor of {sizes} sizes and {strides} strides")]
    Rank {
        /// Number of sizes.
        sizes: usize,
        /// Number of strides.
        strides: usize,
    },
    /// A negative size, stride or offset, or their product beyond 64 bits.
    #[error("a tensor with a negative or enormous size, stride or offset")]
    Range,
    /// The last element lies behind the end of the storage.
    #[error("a tensor that ends at element {end} of a storage of {storage}")]
    BeyondStorage {
        /// One past the last element.
        end: u64,
        /// Elements of the storage.
        storage: u64,
    },
    /// More elements than the storage has: expanded with stride 0.
    #[error("a tensor of {elements} elements over a storage of {storage}: call `.contiguous()` before saving")]
    Expanded {
        /// Elements of the tensor.
        elements: u64,
        /// Elements of the storage.
        storage: u64,
    },
}
