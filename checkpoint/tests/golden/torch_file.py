"""Writes the torch.save files that `torch_file` is tested on, and their tensors as `torch_file.safetensors`.

    .cache/peers/bin/python checkpoint/tests/golden/torch_file.py     (torch 2.11, safetensors, numpy)

Each file `x.pt` holds what `x/<name>` holds in the safetensors file, except the last ones, which have to be refused.
"""

import argparse
import collections
import os
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
expected = {}


def keep(file, tensors):
    expected.update({f"{file}/{name}": t.detach().contiguous().clone() for name, t in tensors.items()})


def numbers(*shape):
    return torch.randn(*shape, generator=generator)


generator = torch.Generator().manual_seed(8)

plain = {
    "half": numbers(3, 2).half(),
    "bfloat16": numbers(5).bfloat16(),
    "float": numbers(2, 3, 4),
    "double": numbers(2).double(),
    "long": torch.tensor([1, -2, 2**40]),
    "int": torch.tensor([[1, -2]], dtype=torch.int32),
    "short": torch.tensor([-7], dtype=torch.int16),
    "char": torch.tensor([-7, 7], dtype=torch.int8),
    "byte": torch.tensor([0, 255], dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(4.6052),
    "empty": torch.zeros(0, 3),
}
torch.save(plain, HERE / "plain.pt")
keep("plain", plain)
torch.save(plain, HERE / "protocol5.pt", pickle_protocol=5)
keep("protocol5", plain)

base = numbers(4, 6)
views = {
    "base": base,
    "transposed": base.t(),
    "column": base[:, 2],
    "inner": base[1:3, 1:6:2],
    "tail": base.flatten()[-5:],
    "permuted": numbers(2, 3, 4).permute(2, 0, 1),
    "one": base[2:3, 5:6],
}
torch.save(views, HERE / "views.pt")
keep("views", views)

model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
optimizer = torch.optim.AdamW(model.parameters())
model(numbers(4, 3)).sum().backward()
optimizer.step()
weights = model.state_dict()
training = {
    "epoch": 3,
    "best": 0.25,
    "args": argparse.Namespace(lr=1e-3, names=["a", "b"]),
    "milestones": collections.Counter([3, 3, 4]),
    "optimizer": optimizer.state_dict(),
    "model": collections.OrderedDict((f"module.{k}", v) for k, v in weights.items()),
}
torch.save(training, HERE / "training.pt")
keep("training", weights)

parameters = {name: torch.nn.Parameter(t) for name, t in [("weight", numbers(2, 2)), ("bias", numbers(2))]}
torch.save({"state_dict": parameters}, HERE / "parameters.pt")
keep("parameters", parameters)

save_file(expected, HERE / "torch_file.safetensors")

# To be refused: a module whole, the format before 1.6, and a pickle that would run a command.
torch.save(torch.nn.Linear(2, 1), HERE / "module.pt")
torch.save({"weight": numbers(2)}, HERE / "legacy.pt", _use_new_zipfile_serialization=False)


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/pixfleet-a-pickle-ran",)


torch.save({"weight": numbers(2), "hook": Command()}, HERE / "command.pt")
