//! A checkpoint in two halves: the trainer copies its share of the state to the host, the runtime packs and uploads
//! it. Between the two the trainer is free; that is the seam for asynchronous staging.

use std::time::Duration;

use pixfleet_checkpoint::{Dtype, HostTensor, PartKey, share, write_part};
use pixfleet_cluster::peer::Word;
use pixfleet_cluster::run::PartReport;
use tch::{Device, Kind, Tensor};
use tokio::task::JoinHandle;

use super::error::TrainError;
use super::trainer::Channels;

/// One rank's share of the state in host memory.
#[derive(Debug)]
pub(crate) struct Snapshot {
    key: PartKey,
    pub(crate) tensors: Vec<HostTensor>,
}

impl Snapshot {
    /// Copies the share of `key.rank` of the name-sorted `state`. Blocks until the copies are done; the parameters may
    /// change right after.
    ///
    /// # Errors
    /// [`TrainError::Torch`] if a copy fails.
    pub(crate) fn take(key: PartKey, state: &[(String, Tensor)]) -> Result<Self, TrainError> {
        debug_assert!(state.is_sorted_by(|a, b| a.0 < b.0), "shares are cut from the name-sorted list");
        let sizes: Vec<u64> = state.iter().map(|(_, t)| (t.numel() * t.kind().elt_size_in_bytes()) as u64).collect();
        let own = share(&sizes, key.rank, key.world);
        let tensors = state[own].iter().map(|(name, tensor)| to_host(name, tensor)).collect::<Result<_, _>>()?;
        Ok(Self { key, tensors })
    }

    /// Packs and uploads on the runtime, then reports the part. A store that fails is asked for as long as `patience`.
    pub(crate) fn upload(self, channels: &Channels, patience: Duration) -> Upload {
        let (run, words) = (channels.run.clone(), channels.words.clone());
        let Self { key, tensors } = self;
        Upload(channels.runtime.spawn(async move {
            let entry = write_part(&run, key, tensors, patience).await?;
            let part = PartReport { generation: key.generation, step: key.step, entry };
            words.send(Word::Part(part)).await.map_err(|_| TrainError::Dismissed)
        }))
    }
}

/// An upload under way. It ends when this is dropped: a part that is not in the store when its generation ends is of no
/// use to anybody.
#[derive(Debug)]
pub(crate) struct Upload(JoinHandle<Result<(), TrainError>>);

impl Upload {
    /// Waits until the part lies in the store and is reported. Cancel-safe.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn finished(&mut self) -> Result<(), TrainError> {
        (&mut self.0).await.map_err(TrainError::UploadCancelled)?
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The element types that a state has.
const DTYPES: [(Kind, Dtype); 5] = [
    (Kind::Float, Dtype::F32),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Half, Dtype::F16),
    (Kind::Double, Dtype::F64),
    (Kind::Int64, Dtype::I64),
];

/// A dense copy on the host.
pub(crate) fn to_host(name: &str, tensor: &Tensor) -> Result<HostTensor, TrainError> {
    let kind = tensor.kind();
    let dtype = DTYPES.iter().find(|(k, _)| *k == kind).map(|(_, d)| *d);
    let dtype = dtype.ok_or_else(|| wrong(name, "F32, BF16, F16, F64 or I64", &format!("{kind:?}")))?;
    let torch = |source| TrainError::Torch { doing: "copying the state to the host", source };
    let dense = tensor.detach().f_to_device(Device::Cpu).and_then(|t| t.f_contiguous()).map_err(torch)?;
    let mut bytes = vec![0u8; dense.numel() * kind.elt_size_in_bytes()];
    dense.f_copy_data_u8(&mut bytes, dense.numel()).map_err(torch)?;
    let shape = dense.size().iter().map(|&s| s as usize).collect();
    Ok(HostTensor { name: name.into(), dtype, shape, bytes: bytes.into() })
}

/// A tensor on the host from a checkpoint's bytes.
pub(crate) fn from_host(host: &HostTensor) -> Result<Tensor, TrainError> {
    let kind = DTYPES.iter().find(|(_, d)| *d == host.dtype).map(|(k, _)| *k);
    let kind = kind.ok_or_else(|| wrong(&host.name, "F32, BF16, F16, F64 or I64", &format!("{:?}", host.dtype)))?;
    let shape: Vec<i64> = host.shape.iter().map(|&s| s as i64).collect();
    Tensor::f_from_data_size(&host.bytes, &shape, kind)
        .map_err(|source| TrainError::Torch { doing: "reading a checkpoint's tensor", source })
}

fn wrong(name: &str, expected: &str, found: &str) -> TrainError {
    TrainError::State { name: name.into(), expected: expected.into(), found: found.into() }
}
