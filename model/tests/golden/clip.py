"""Golden file clip_b16.safetensors: CLIP ViT-B/16 with FG-CLIP's additions, in fp32 on the CPU.

    pip install torch==2.11.0 transformers==5.23.0 numpy safetensors && python clip.py

Weights and inputs are filled from their names (common.py), so the file holds outputs and token ids only. Images and
short texts are transformers' own CLIPModel. What it does not know is written here in plain PyTorch (method.md 1.3, 4.1):
the alpha convolution (a hook), the last block without attention, the long text path over stretched positions. The plain
text transformer is held against CLIPModel's on the short texts before it is used for the long ones.
"""

import os

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from transformers import CLIPConfig, CLIPModel

from common import hash_fill, parameter_fill

HERE = os.path.dirname(os.path.abspath(__file__))
START, END = 49406, 49407
KEEP = 20

config = CLIPConfig(
    vision_config=dict(
        image_size=224, patch_size=16, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072, hidden_act="quick_gelu", layer_norm_eps=1e-5,
    ),
    text_config=dict(
        vocab_size=49408, hidden_size=512, num_hidden_layers=12, num_attention_heads=8, intermediate_size=2048,
        max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5,
        bos_token_id=START, eos_token_id=END, pad_token_id=END,
    ),
    projection_dim=512,
)  # fmt: skip
config._attn_implementation = "eager"
model = CLIPModel(config).float().eval()
parameters = {n: p for n, p in model.named_parameters() if n != "logit_scale"}


def add(name: str, shape) -> None:
    parameters[name] = torch.nn.Parameter(torch.empty(shape))


add("vision_model.embeddings.alpha_patch_embedding.weight", (768, 1, 16, 16))
add("text_model.embeddings.position_embedding_ori.weight", (248, 512))
add("text_model.embeddings.position_embedding_res.weight", (248, 512))
add("text_filip_projection.weight", (512, 512))
with torch.no_grad():
    for name, p in parameters.items():
        p.copy_(torch.from_numpy(parameter_fill(name, tuple(p.shape))))


def tensor(name: str, shape, scale: float) -> torch.Tensor:
    return torch.from_numpy(hash_fill(name, shape, scale))


def token_ids(name: str, words: list, length: int) -> torch.Tensor:
    """Start, words, end; padded with the end token, as CLIP's tokenizer does."""
    ids = np.full((len(words), length), END)
    for row, count in enumerate(words):
        unit = hash_fill(f"{name}.{row}", (count,), 0.5) + np.float32(0.5)
        ids[row, 0] = START
        ids[row, 1 : count + 1] = (unit.astype(np.float64) * START).astype(np.int64)
    return torch.from_numpy(ids)


def norm(name: str, x: torch.Tensor) -> torch.Tensor:
    weight, bias = parameters[name + ".weight"], parameters[name + ".bias"]
    return F.layer_norm(x, weight.shape, weight, bias, 1e-5)


def linear(name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, parameters[name + ".weight"], parameters.get(name + ".bias"))


def mlp(at: str, x: torch.Tensor) -> torch.Tensor:
    hidden = linear(at + ".mlp.fc1", norm(at + ".layer_norm2", x))
    return x + linear(at + ".mlp.fc2", hidden * torch.sigmoid(1.702 * hidden))


def plain_text(ids: torch.Tensor, positions: torch.Tensor, projection: str) -> torch.Tensor:
    n, length = ids.shape
    x = parameters["text_model.embeddings.token_embedding.weight"][ids] + positions[:length]
    later = torch.full((length, length), float("-inf")).triu(1)
    for i in range(12):
        at = f"text_model.encoder.layers.{i}"
        y = norm(at + ".layer_norm1", x)
        q, k, v = (
            linear(f"{at}.self_attn.{p}_proj", y).view(n, length, 8, 64).transpose(1, 2) for p in ("q", "k", "v")
        )
        a = torch.softmax(q @ k.transpose(2, 3) / 8.0 + later, -1) @ v
        x = mlp(at, x + linear(at + ".self_attn.out_proj", a.transpose(1, 2).reshape(n, length, 512)))
    x = norm("text_model.final_layer_norm", x)
    first_end = [row.index(END) for row in ids.tolist()]
    return F.normalize(linear(projection, x[torch.arange(n), first_end]), dim=-1)


def stretch(table: torch.Tensor) -> torch.Tensor:
    """77 rows -> 248, row by row."""
    rows = list(table[:KEEP])
    for i in range(KEEP, 76):
        rows += [((4 - k) * table[i] + k * table[i + 1]) / 4 for k in range(4)]
    rows += [table[76] + k * (table[76] - table[75]) / 4 for k in range(4)]
    return torch.stack(rows)


def dense_map(before_last: torch.Tensor) -> torch.Tensor:
    """The input of the last block -> [n, 768, 14, 14]: the last block without attention, the norm, no projection."""
    at = "vision_model.encoder.layers.11"
    values = linear(at + ".self_attn.v_proj", norm(at + ".layer_norm1", before_last))
    x = mlp(at, before_last + linear(at + ".self_attn.out_proj", values))
    return norm("vision_model.post_layernorm", x[:, 1:]).transpose(1, 2).reshape(-1, 768, 14, 14)


pixels = tensor("input.pixels", (2, 3, 224, 224), 2.0)
mask = tensor("input.mask", (2, 1, 224, 224), 2.0)
short_ids = token_ids("input.short", [75, 3, 20, 41], 77)
long_ids = token_ids("input.long", [60, 246, 12], 248)
out = {"short_ids": short_ids.numpy().astype(np.float32), "long_ids": long_ids.numpy().astype(np.float32)}


def run(ids: torch.Tensor):
    return model(input_ids=ids, pixel_values=pixels, output_hidden_states=True)


with torch.no_grad():
    plain = run(short_ids)
    out["image_without_mask"] = plain.image_embeds.numpy()
    whole = norm("vision_model.post_layernorm", plain.vision_model_output.last_hidden_state[:, 1:])
    out["normal_map_slice"] = whole.transpose(1, 2).reshape(2, 768, 14, 14)[:, ::32, ::3, ::3].numpy()
    out["stretched_slice"] = stretch(parameters["text_model.embeddings.position_embedding.weight"])[:, ::64].numpy()
    positions = parameters["text_model.embeddings.position_embedding.weight"]
    states = plain.vision_model_output.hidden_states
    assert len(states) == 13 and torch.equal(states[-1], plain.vision_model_output.last_hidden_state)
    error = (plain_text(short_ids, positions, "text_projection") - plain.text_embeds).abs().max()
    print("plain text transformer against CLIPModel:", float(error))
    assert error < 2e-6


def add_alpha(_module, _inputs, patches):
    return patches + F.conv2d(mask, parameters["vision_model.embeddings.alpha_patch_embedding.weight"], stride=16)


model.vision_model.embeddings.patch_embedding.register_forward_hook(add_alpha)
both = run(short_ids)
image, short = both.image_embeds, both.text_embeds
patch_map = dense_map(both.vision_model_output.hidden_states[-2])
ori, res = (parameters[f"text_model.embeddings.position_embedding_{n}.weight"] for n in ("ori", "res"))
early = (torch.arange(248) < KEEP).float()[:, None]
long = plain_text(long_ids, ori * early + res * (1 - early), "text_filip_projection")
out |= {"image": image, "short": short, "long": long, "dense_map_slice": patch_map[:, ::32, ::3, ::3]}
# A region as FG-CLIP makes it: every patch projected, then cells of the map pooled, then normalized.
projected = linear("visual_projection", patch_map.permute(0, 2, 3, 1))
out["region"] = F.normalize(projected[:, 3:9, 2:7].mean((1, 2)), dim=-1)

loss = (image * tensor("grad.image", (2, 512), 1.0)).sum() + (short * tensor("grad.short", (4, 512), 1.0)).sum()
loss = loss + (long * tensor("grad.long", (3, 512), 1.0)).sum()
loss = loss + (patch_map * tensor("grad.map", (2, 768, 14, 14), 1e-3)).sum()
loss.backward()
VISION, TEXT = "vision_model.", "text_model."
for name in [
    VISION + "embeddings.class_embedding",
    VISION + "embeddings.patch_embedding.weight",
    VISION + "embeddings.alpha_patch_embedding.weight",
    VISION + "embeddings.position_embedding.weight",
    VISION + "pre_layrnorm.weight",
    VISION + "encoder.layers.0.self_attn.q_proj.weight",
    VISION + "encoder.layers.5.self_attn.k_proj.weight",
    VISION + "encoder.layers.5.self_attn.v_proj.bias",
    VISION + "encoder.layers.11.self_attn.out_proj.weight",
    VISION + "encoder.layers.11.self_attn.q_proj.weight",
    VISION + "encoder.layers.11.mlp.fc1.weight",
    VISION + "encoder.layers.11.mlp.fc2.bias",
    VISION + "post_layernorm.weight",
    "visual_projection.weight",
    TEXT + "embeddings.position_embedding.weight",
    TEXT + "embeddings.position_embedding_ori.weight",
    TEXT + "embeddings.position_embedding_res.weight",
    TEXT + "encoder.layers.0.self_attn.q_proj.weight",
    TEXT + "encoder.layers.6.mlp.fc2.weight",
    TEXT + "encoder.layers.11.self_attn.k_proj.weight",
    TEXT + "encoder.layers.11.layer_norm2.bias",
    TEXT + "final_layer_norm.weight",
    "text_projection.weight",
    "text_filip_projection.weight",
]:
    # 512 numbers of each, and its norm; of the two long position tables around row 20, where one takes over.
    flat = parameters[name].grad.flatten().numpy()
    start = KEEP * 512 - 256 if "position_embedding_" in name else 0
    out["grad." + name] = flat[start : start + 512]
    out["norm." + name] = np.array([np.sqrt((flat.astype(np.float64) ** 2).sum())], dtype=np.float32)
# Of the token embedding the start token's row: every text has it.
flat = parameters[TEXT + "embeddings.token_embedding.weight"].grad
out["grad_of_start"] = flat[START].numpy()

arrays = {k: np.ascontiguousarray(v.detach().numpy() if torch.is_tensor(v) else v) for k, v in out.items()}
save_file(arrays, os.path.join(HERE, "clip_b16.safetensors"))
print({k: v.shape for k, v in arrays.items()})
