//! The closed list of what a pickle may refer to. A name that is not here is refused where it stands, before anything
//! could be made of it; a name that is here is an entry of an enum, never something that is looked up and called.

use safetensors::Dtype;

/// A class or function that a state dict may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`: what `state_dict()` returns.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`: a storage, an offset, sizes and strides.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: a tensor, and whether it requires a gradient.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`: another rebuild with a class and attributes beside it.
    RebuildFromType,
    /// `torch.FloatStorage` and its kin: the element type of a storage.
    Storage(Dtype),
    /// Classes that stand beside the weights in checkpoints of training. Their values are dropped, whatever they hold.
    Inert(&'static str),
}

const INERT: &[(&str, &str, &str)] = &[
    ("argparse", "Namespace", "argparse.Namespace"),
    ("collections", "Counter", "collections.Counter"),
    ("builtins", "set", "set"),
    ("__builtin__", "set", "set"),
    ("_codecs", "encode", "bytes"),
    ("numpy", "dtype", "numpy.dtype"),
    ("numpy.core.multiarray", "scalar", "numpy scalar"),
    ("numpy._core.multiarray", "scalar", "numpy scalar"),
    ("torch", "Size", "torch.Size"),
    ("torch", "device", "torch.device"),
    ("torch", "Tensor", "torch.Tensor"),
    ("torch.nn.parameter", "Parameter", "torch.nn.Parameter"),
    ("torch", "float32", "torch.dtype"),
    ("torch", "float16", "torch.dtype"),
    ("torch", "bfloat16", "torch.dtype"),
    ("torch", "float64", "torch.dtype"),
    ("torch", "int64", "torch.dtype"),
];

const STORAGES: &[(&str, Dtype)] = &[
    ("FloatStorage", Dtype::F32),
    ("DoubleStorage", Dtype::F64),
    ("HalfStorage", Dtype::F16),
    ("BFloat16Storage", Dtype::BF16),
    ("LongStorage", Dtype::I64),
    ("IntStorage", Dtype::I32),
    ("ShortStorage", Dtype::I16),
    ("CharStorage", Dtype::I8),
    ("ByteStorage", Dtype::U8),
    ("BoolStorage", Dtype::BOOL),
];

impl Global {
    /// The entry of that name, if it is in the list.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => return Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => return Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                return Some(Self::RebuildParameter);
            }
            ("torch._tensor", "_rebuild_from_type_v2") => return Some(Self::RebuildFromType),
            _ => {}
        }
        if module == "torch"
            && let Some((_, dtype)) = STORAGES.iter().find(|(n, _)| *n == name)
        {
            return Some(Self::Storage(*dtype));
        }
        INERT.iter().find(|(m, n, _)| *m == module && *n == name).map(|(_, _, kind)| Self::Inert(kind))
    }

    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OrderedDict => "collections.OrderedDict",
            Self::RebuildTensor => "torch._utils._rebuild_tensor_v2",
            Self::RebuildParameter => "torch._utils._rebuild_parameter",
            Self::RebuildFromType => "torch._tensor._rebuild_from_type_v2",
            Self::Storage(_) => "a torch storage class",
            Self::Inert(kind) => kind,
        }
    }
}
