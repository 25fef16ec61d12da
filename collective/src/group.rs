//! A process group of one generation: its collectives, its timeout, its abort.
//!
//! Invariant: all ranks call the same operations in the same order with the same shapes and dtypes. Operations block
//! the calling thread until their result is there (on CUDA: until it is ordered on the current stream and healthy).

use std::sync::Arc;
use std::time::Duration;

use pixfleet_shim::group::RawGroup;
use pixfleet_shim::{Failure, HAS_NCCL};
use tch::{Device, TchError, Tensor};

use crate::abort::AbortHandle;
use crate::error::CollectiveError;
use crate::forming;
use crate::live::LiveGroup;
use crate::store::RendezvousStore;

/// Who moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// TCP between CPUs.
    Gloo,
    /// NVIDIA's library between GPUs; needs the `nccl` feature.
    Nccl,
}

/// The place of this rank in a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// This rank, `0..world`.
    pub rank: u32,
    /// The number of ranks, at least 1.
    pub world: u32,
    /// The generation: the prefix of every store key, so that generations never meet.
    pub generation: u64,
    /// The longest an operation (or the forming of the group) may block.
    pub timeout: Duration,
    /// Where the tensors live: [`Device::Cpu`] for Gloo, [`Device::Cuda`] for NCCL.
    pub device: Device,
    /// Gloo: the address or host name under which peers reach this process; see [`GroupConfig::loopback`].
    pub hostname: String,
}

impl GroupConfig {
    /// Ranks of one machine: Gloo over the loopback address, CPU tensors, a timeout of 30 s.
    #[must_use]
    pub fn loopback(rank: u32, world: u32, generation: u64) -> Self {
        Self {
            rank,
            world,
            generation,
            timeout: Duration::from_secs(30),
            device: Device::Cpu,
            hostname: "127.0.0.1".to_owned(),
        }
    }

    fn check(&self) -> Result<(), CollectiveError> {
        if self.rank < self.world {
            return Ok(());
        }
        let problem = format!("rank {} is not below the world size {}", self.rank, self.world);
        Err(CollectiveError::Shape { operation: "forming a group", problem })
    }
}

/// The ranks of one generation, joined. Send, not Sync: one thread (the trainer's) issues the operations.
#[derive(Debug)]
pub struct Group {
    live: Arc<LiveGroup>,
    config: GroupConfig,
    backend: Backend,
    abort: AbortHandle,
    one_thread: std::marker::PhantomData<std::cell::Cell<()>>,
}

impl Group {
    /// Joins the generation: blocks until every rank has come, or the timeout.
    ///
    /// # Errors
    /// [`CollectiveError::Store`] where the store failed or a peer did not come, [`CollectiveError::LostPeer`] or
    /// [`CollectiveError::Timeout`] where one came and went, [`CollectiveError::WithoutNccl`] for [`Backend::Nccl`] in
    /// a build without it.
    pub fn new(
        backend: Backend,
        store: Arc<dyn RendezvousStore>,
        config: GroupConfig,
    ) -> Result<Self, CollectiveError> {
        Self::form(backend, store, config, &AbortHandle::new())
    }

    /// As [`new`](Self::new), and `abort` already works while the group is being formed.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`CollectiveError::Aborted`].
    pub fn form(
        backend: Backend,
        store: Arc<dyn RendezvousStore>,
        config: GroupConfig,
        abort: &AbortHandle,
    ) -> Result<Self, CollectiveError> {
        config.check()?;
        if backend == Backend::Nccl && !HAS_NCCL {
            return Err(CollectiveError::WithoutNccl { what: "an NCCL group" });
        }
        let started = std::time::Instant::now();
        let live = Arc::new(forming::form(backend, store, &config, abort)?);
        if !abort.formed(live.links()) {
            return Err(CollectiveError::Aborted { operation: forming::OPERATION });
        }
        tracing::debug!(
            generation = config.generation,
            rank = config.rank,
            world = config.world,
            millis = started.elapsed().as_millis(),
            "group formed"
        );
        Ok(Self { live, config, backend, abort: abort.clone(), one_thread: std::marker::PhantomData })
    }

    /// This rank.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.config.rank
    }

    /// The number of ranks.
    #[must_use]
    pub fn world(&self) -> u32 {
        self.config.world
    }

    /// The generation this group belongs to.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.config.generation
    }

    /// Who moves the bytes.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Where the tensors of this group live.
    #[must_use]
    pub fn device(&self) -> Device {
        self.config.device
    }

    /// Every rank's `own`, stacked: `[W, ...own's shape]`. All ranks pass the same shape and dtype.
    ///
    /// # Errors
    /// As all operations: [`CollectiveError::LostPeer`], [`CollectiveError::Timeout`], [`CollectiveError::Aborted`]
    /// end the generation; [`CollectiveError::Torch`] is a wrong tensor.
    pub fn all_gather(&self, own: &Tensor) -> Result<Tensor, CollectiveError> {
        self.live.run("all_gather", |raw| raw.all_gather(own))
    }

    /// Rows of all ranks, concatenated in rank order: `own` is `[rows[rank], ...]`, the result `[sum(rows), ...]`.
    /// Ranks may differ in their number of rows; each must pass the same `rows`.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather); [`CollectiveError::Shape`] where `own` and `rows` disagree.
    pub fn all_gather_rows(&self, own: &Tensor, rows: &[i64]) -> Result<Tensor, CollectiveError> {
        let mine = rows.get(self.config.rank as usize).copied();
        let found = own.size();
        if rows.len() != self.config.world as usize || mine.is_none() || found.first().copied() != mine {
            let problem = format!("rank {} holds {found:?}, and the ranks' rows are {rows:?}", self.config.rank);
            return Err(CollectiveError::Shape { operation: "all_gather_rows", problem });
        }
        self.live.run("all_gather_rows", |raw| gather_rows(raw, own, rows))
    }

    /// As [`all_gather`](Self::all_gather) of flat tensors, into `output` `[W * own's length]`.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn all_gather_into(&self, output: &mut Tensor, own: &Tensor) -> Result<(), CollectiveError> {
        self.live.run("all_gather", |raw| raw.all_gather_into(output, own))
    }

    /// What every rank has for this one, in rank order: of `own`, flat, the first `to[0]` numbers go to rank 0, the next
    /// `to[1]` to rank 1; `from[r]` numbers come from rank r, which must agree with what it passes.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn all_to_all(&self, own: &Tensor, from: &[i64], to: &[i64]) -> Result<Tensor, CollectiveError> {
        self.live.run("all_to_all", |raw| raw.all_to_all(own, from, to))
    }

    /// The sum over ranks, in place. Every rank ends with the same bits.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn all_reduce_sum(&self, tensor: &mut Tensor) -> Result<(), CollectiveError> {
        self.live.run("all_reduce", |raw| raw.all_reduce_sum(tensor))
    }

    /// The sum over ranks of `input` `[W, ...]`, of which this rank receives its own slice `[...]`.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather); [`CollectiveError::Shape`] where the first dimension is not W.
    pub fn reduce_scatter_sum(&self, input: &Tensor) -> Result<Tensor, CollectiveError> {
        if input.size().first().copied() != Some(i64::from(self.config.world)) {
            let problem = format!("expected [{}, ...], found {:?}", self.config.world, input.size());
            return Err(CollectiveError::Shape { operation: "reduce_scatter", problem });
        }
        self.live.run("reduce_scatter", |raw| raw.reduce_scatter_sum(input))
    }

    /// Copies rank `source`'s tensor into everybody's, in place.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn broadcast(&self, tensor: &mut Tensor, source: u32) -> Result<(), CollectiveError> {
        self.live.run("broadcast", |raw| raw.broadcast(tensor, source))
    }

    /// Returns when every rank has come here.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather).
    pub fn barrier(&self) -> Result<(), CollectiveError> {
        self.live.run("barrier", |raw| raw.barrier())
    }

    /// Ends the generation in order: returns once no rank needs this one's connections any more, so that dropping
    /// the group looks like a loss to nobody.
    ///
    /// # Errors
    /// As [`all_gather`](Self::all_gather), and the store's.
    pub fn finish(self) -> Result<(), CollectiveError> {
        self.barrier()?;
        self.live.leave(self.config.world)
    }

    /// Seconds that operations have waited for other ranks so far, all added up: from their start to their result, on a GPU
    /// by its own clock and without the work that was ahead of them in its queue.
    #[must_use]
    pub fn waited_s(&self) -> f64 {
        self.live.waited_s()
    }

    /// What another thread holds to end a blocked operation.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    /// Types an error that came out of tch while this group worked below it (the [`Reducer`](crate::Reducer) inside
    /// `f_backward`): names the lost rank where its address tells it, and knows an abort.
    #[must_use]
    pub fn classify(&self, error: &TchError) -> CollectiveError {
        self.live.typed("backward", Failure::new(error.to_string()))
    }

    pub(crate) fn live(&self) -> &Arc<LiveGroup> {
        &self.live
    }
}

/// Pads every rank's rows to the longest, gathers, and takes the padding out in place: the gathered rows exist once.
fn gather_rows(raw: &RawGroup, own: &Tensor, rows: &[i64]) -> Result<Tensor, Failure> {
    let mut shape = own.size();
    let longest = rows.iter().copied().max().unwrap_or(0);
    shape[0] = longest - shape[0];
    let _no_grad = tch::no_grad_guard();
    let padded = if shape[0] == 0 {
        own.detach()
    } else {
        Tensor::f_cat(&[own.detach(), Tensor::f_zeros(&shape, (own.kind(), own.device()))?], 0)?
    };
    let all = raw.all_gather(&padded)?.f_flatten(0, 1)?;
    let mut end = 0;
    for (rank, &count) in (0i64..).zip(rows) {
        let from = rank * longest;
        if from != end && count > 0 {
            // A rank's rows may move onto themselves, so they go by way of a copy.
            let moved = all.f_narrow(0, from, count)?.f_detach_copy()?;
            all.f_narrow(0, end, count)?.f_copy_(&moved)?;
        }
        end += count;
    }
    Ok(all.f_narrow(0, 0, end)?)
}
