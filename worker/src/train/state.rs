//! The state that makes a run what it is, on its three ways: into a checkpoint, out of one, and by broadcast to ranks
//! that joined or lag. Which tensors it has is the model's business ([`State`]).

use std::collections::HashMap;

use pixfleet_checkpoint::HostTensor;
use pixfleet_cluster::Step;
use pixfleet_cluster::spec::RunSpec;
use pixfleet_collective::Group;
use pixfleet_model::Model;
use pixfleet_model::optim::{AdamW, State};
use tch::{Device, Kind, Tensor};

use super::error::TrainError;
use super::initial::load_weights;
use super::snapshot::from_host;
use super::step::Core;

/// Tensors are broadcast in flat pieces of about this many bytes: few messages, little extra memory.
const PIECE_BYTES: usize = 64 << 20;

/// Model and optimizer.
pub(crate) struct Numbers {
    pub(crate) model: Model,
    pub(crate) optimizer: AdamW,
}

impl Numbers {
    /// Those of step 0: from the seed, with `weights` (a safetensors file) over them if the run file names some.
    ///
    /// # Errors
    /// If the file does not fit the model.
    pub(crate) fn initial(spec: &RunSpec, device: Device, weights: Option<&[u8]>) -> Result<Self, TrainError> {
        let needs = spec.needs();
        let mut model = Model::build(&spec.model, &needs, spec.run.seed, device);
        if let Some(bytes) = weights {
            let report = load_weights(&mut model, bytes, &spec.model, &needs)?;
            tracing::info!(?report, "weights loaded");
        }
        model.start_teacher(&needs);
        let optimizer = AdamW::new(&spec.optimizer, &model.params)?;
        Ok(Self { model, optimizer })
    }
}

/// Puts the state of step 0 in place.
///
/// # Errors
/// As [`Numbers::initial`].
pub(crate) fn start_afresh(core: &mut Core) -> Result<(), TrainError> {
    let Numbers { model, optimizer } = Numbers::initial(&core.spec, core.device, core.weights.as_deref())?;
    core.model = model;
    core.optimizer = optimizer;
    core.scales = None;
    Ok(())
}

fn state(core: &mut Core) -> State<'_> {
    State { params: &core.model.params, optimizer: &mut core.optimizer, teacher: core.model.teacher.as_ref() }
}

/// Every tensor of the state, sorted by name; the tensors are the live ones, not copies.
pub(crate) fn named(core: &mut Core) -> Vec<(String, Tensor)> {
    let mut tensors = state(core).tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// Digest of the state: equal on all ranks that hold the same.
///
/// # Errors
/// [`TrainError::Torch`] if the device fails.
pub(crate) fn digest(core: &mut Core) -> Result<u64, TrainError> {
    super::digest::digest(&named(core))
}

/// Overwrites the state with a checkpoint's; `step` is the next step to run.
///
/// # Errors
/// If a tensor is missing, foreign or of another shape; then nothing was changed.
pub(crate) fn restore(core: &mut Core, tensors: &[HostTensor], step: Step) -> Result<(), TrainError> {
    let named = tensors.iter().map(|t| Ok((t.name.clone(), from_host(t)?)));
    let saved = named.collect::<Result<HashMap<_, _>, TrainError>>()?;
    core.scales = None;
    Ok(state(core).restore(&saved, step.0)?)
}

/// Gives every rank the state of `source`. All ranks of the generation take part.
///
/// # Errors
/// The collective's; a receiver's state is then torn.
pub(crate) fn broadcast(core: &mut Core, group: &Group, source: u32, step: Step) -> Result<(), TrainError> {
    let mut piece: Vec<Tensor> = Vec::new();
    let mut bytes = 0;
    for (_, tensor) in named(core) {
        bytes += tensor.numel() * tensor.kind().elt_size_in_bytes();
        piece.push(tensor);
        if bytes >= PIECE_BYTES {
            broadcast_piece(&mut piece, group, source)?;
            bytes = 0;
        }
    }
    broadcast_piece(&mut piece, group, source)?;
    core.scales = None;
    state(core).set_steps(step.0);
    Ok(())
}

/// One flat message of several fp32 tensors.
fn broadcast_piece(piece: &mut Vec<Tensor>, group: &Group, source: u32) -> Result<(), TrainError> {
    if piece.is_empty() {
        return Ok(());
    }
    let torch = |source| TrainError::Torch { doing: "packing the state for broadcast", source };
    let flat: Result<Vec<Tensor>, _> = piece.iter().map(|t| t.f_to_kind(Kind::Float)?.f_reshape([-1])).collect();
    let mut flat = Tensor::f_cat(&flat.map_err(torch)?, 0).map_err(torch)?;
    group.broadcast(&mut flat, source)?;
    let mut start = 0;
    for mut tensor in piece.drain(..) {
        let count = tensor.numel() as i64;
        let values = flat.f_narrow(0, start, count).and_then(|v| v.f_reshape(tensor.size())).map_err(torch)?;
        tch::no_grad(|| tensor.f_copy_(&values)).map_err(torch)?;
        start += count;
    }
    Ok(())
}
