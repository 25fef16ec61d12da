//! A model's numbers: ordered, named fp32 tensors. The order is that of construction and is the same on every rank;
//! names are those of the systems' own checkpoints (method.md 1.6, 4.1).

mod file;
mod init;
mod role;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::HashMap;

use pixfleet_shim::lists;
use tch::{Device, Kind, Tensor};

pub use file::{LoadOptions, LoadReport, read_tensors, resize_positions, save_tensors};
pub use init::{Builder, Init};
pub use role::{ParamGroup, Role};
pub use weights::{Compute, Weights};

use crate::error::ModelError;

/// The place of a parameter in [`Params`]. Structure holds ids, not tensors, so that it works over any set with the
/// same layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub(crate) usize);

/// One named parameter: an fp32 leaf. It is trainable if and only if its tensor requires a gradient.
#[derive(Debug)]
pub struct Param {
    name: String,
    tensor: Tensor,
    role: Role,
}

impl Param {
    /// Its name, as in a checkpoint.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its tensor.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// What it is to the optimizer.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether an optimizer may change it.
    #[must_use]
    pub fn trainable(&self) -> bool {
        self.tensor.requires_grad()
    }
}

/// Ordered named fp32 parameters on one device.
#[derive(Debug)]
pub struct Params {
    entries: Vec<Param>,
    index: HashMap<String, usize>,
    device: Device,
}

impl Params {
    /// An empty set on `device`.
    #[must_use]
    pub fn new(device: Device) -> Self {
        Self { entries: Vec::new(), index: HashMap::new(), device }
    }

    /// Appends a parameter that learns like the vision tower's head; see [`Self::register`].
    ///
    /// # Panics
    /// As [`Self::register`].
    pub fn push(&mut self, name: &str, tensor: &Tensor, trainable: bool) -> ParamId {
        self.register(name, tensor, trainable, Role::plain(ParamGroup::Vision { above: 0 }, &tensor.size()))
    }

    /// Appends a parameter; `tensor` is copied to fp32 and to the set's device.
    ///
    /// # Panics
    /// If the name is taken: two modules built over one name is a bug of the caller.
    pub fn register(&mut self, name: &str, tensor: &Tensor, trainable: bool, role: Role) -> ParamId {
        let id = self.entries.len();
        let tensor = tensor.detach().to_kind(Kind::Float).to_device(self.device).contiguous().copy();
        let tensor = tensor.set_requires_grad(trainable);
        assert!(self.index.insert(name.to_owned(), id).is_none(), "two parameters are named `{name}`");
        self.entries.push(Param { name: name.to_owned(), tensor, role });
        ParamId(id)
    }

    /// The device that all tensors lie on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// How many parameters (tensors) there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.entries.iter()
    }

    /// The trainable ones in order.
    pub fn trainable(&self) -> impl Iterator<Item = &Param> {
        self.entries.iter().filter(|p| p.trainable())
    }

    /// The number of elements of all tensors.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.entries.iter().map(|p| p.tensor.numel() as u64).sum()
    }

    /// A tensor by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&i| &self.entries[i].tensor)
    }

    /// A parameter's id by name.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<ParamId> {
        self.index.get(name).map(|&i| ParamId(i))
    }

    /// A tensor by id.
    pub fn tensor(&self, id: ParamId) -> &Tensor {
        &self.entries[id.0].tensor
    }

    /// Overwrites a parameter's values in place: the leaf, its gradient hooks and its id stay.
    ///
    /// # Errors
    /// If there is no such name or the shapes differ.
    pub fn set(&mut self, name: &str, values: &Tensor) -> Result<(), ModelError> {
        let &id = self.index.get(name).ok_or_else(|| ModelError::NoSuchParameter { name: name.to_owned() })?;
        let target = &mut self.entries[id].tensor;
        if target.size() != values.size() {
            return Err(ModelError::Shape {
                what: name.to_owned(),
                expected: format!("{:?}", target.size()),
                found: values.size(),
            });
        }
        Ok(tch::no_grad(|| target.f_copy_(&values.detach())).map(|_| ())?)
    }

    /// Makes exactly the parameters trainable whose role satisfies `rule`.
    pub fn set_trainable(&mut self, rule: impl Fn(Role) -> bool) {
        for p in &mut self.entries {
            p.tensor = p.tensor.set_requires_grad(rule(p.role));
        }
    }

    /// Zeros in every gradient that is there; where it lies stays.
    ///
    /// # Errors
    /// [`ModelError::Kernel`].
    pub fn zero_grad(&mut self) -> Result<(), ModelError> {
        let grads: Vec<Tensor> = self.entries.iter().map(|p| p.tensor.grad()).filter(Tensor::defined).collect();
        Ok(lists::zero_all(&grads)?)
    }

    /// A copy that requires no gradient: a teacher's start.
    #[must_use]
    pub fn detached_copy(&self) -> Self {
        let mut copy = Self::new(self.device);
        for p in &self.entries {
            copy.register(&p.name, &p.tensor, false, p.role);
        }
        copy
    }

    /// `self <- decay * self + (1 - decay) * other`, element by element, in fp32: one step of an EMA teacher.
    ///
    /// # Errors
    /// If the two sets differ in names or shapes.
    pub fn ema_update(&mut self, other: &Self, decay: f64) -> Result<(), ModelError> {
        self.check_same_layout(other)?;
        let of = |set: &Self| set.entries.iter().map(|p| p.tensor.detach()).collect::<Vec<_>>();
        Ok(lists::lerp_all(&of(self), &of(other), 1.0 - decay)?)
    }

    /// Copies all values of `other`.
    ///
    /// # Errors
    /// If the two sets differ in names or shapes.
    pub fn copy_from(&mut self, other: &Self) -> Result<(), ModelError> {
        self.check_same_layout(other)?;
        tch::no_grad(|| {
            for (mine, theirs) in self.entries.iter_mut().zip(&other.entries) {
                mine.tensor.f_copy_(&theirs.tensor.detach())?;
            }
            Ok(())
        })
    }

    fn check_same_layout(&self, other: &Self) -> Result<(), ModelError> {
        if self.len() != other.len() {
            return Err(ModelError::SetsDiffer {
                detail: format!("{} against {} parameters", self.len(), other.len()),
            });
        }
        for (a, b) in self.entries.iter().zip(&other.entries) {
            if a.name != b.name || a.tensor.size() != b.tensor.size() {
                let detail = format!("`{}` {:?} against `{}` {:?}", a.name, a.tensor.size(), b.name, b.tensor.size());
                return Err(ModelError::SetsDiffer { detail });
            }
        }
        Ok(())
    }
}
