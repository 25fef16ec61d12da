"""Golden file eva02_b16.safetensors: timm's eva02_base_patch16_clip_224 in fp32 on the CPU.

    pip install torch==2.11.0 torchvision==0.26.0 timm==1.0.31 numpy safetensors && python eva02.py

Weights and inputs are filled from their names (common.py), so the file holds outputs only. timm knows no mask: the
alpha convolution (method.md 1.2.1) is added to the output of its patch embedding by a hook.
"""

import os

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from common import hash_fill, parameter_fill

HERE = os.path.dirname(os.path.abspath(__file__))
RENAMES = [
    ("attn.norm.", "attn.inner_attn_ln."),
    ("mlp.fc1_g.", "mlp.w1."),
    ("mlp.fc1_x.", "mlp.w2."),
    ("mlp.norm.", "mlp.ffn_ln."),
    ("mlp.fc2.", "mlp.w3."),
]


def ours(name: str) -> str:
    """timm's name -> PixCLIP's (method.md 1.6)."""
    for timm_part, part in RENAMES:
        name = name.replace(timm_part, part)
    return "visual." + name


torch.manual_seed(0)
model = timm.create_model("eva02_base_patch16_clip_224", pretrained=False, num_classes=1280).eval()
parameters = {ours(n): p for n, p in model.named_parameters()}
with torch.no_grad():
    for name, p in parameters.items():
        p.copy_(torch.from_numpy(parameter_fill(name, tuple(p.shape))))
alpha = {
    n: torch.from_numpy(parameter_fill("visual.alpha_patch_embed.proj." + n, s)).requires_grad_()
    for n, s in [("weight", (768, 1, 16, 16)), ("bias", (768,))]
}
pixels = torch.from_numpy(hash_fill("input.pixels", (2, 3, 224, 224), 2.0))
mask = torch.from_numpy(hash_fill("input.mask", (2, 1, 224, 224), 2.0))


def run(with_mask: bool):
    def add_alpha(_module, _inputs, tokens):
        return tokens + F.conv2d(mask, alpha["weight"], alpha["bias"], stride=16).flatten(2).transpose(1, 2)

    hook = model.patch_embed.register_forward_hook(add_alpha) if with_mask else None
    tokens = model.forward_features(pixels)  # after the final norm
    image = F.normalize(model.forward_head(tokens), dim=-1)
    if hook:
        hook.remove()
    return image, tokens[:, 1:].transpose(1, 2).reshape(2, 768, 14, 14)


out = {}
plain, _ = run(False)
out["image_without_mask"] = plain.detach().numpy()
image, patch_map = run(True)
out["image"] = image.detach().numpy()
out["map_slice"] = patch_map.detach().numpy()[:, ::32, ::3, ::3]
# A backward through both outputs.
loss = (image * torch.from_numpy(hash_fill("grad.image", (2, 1280), 1.0))).sum()
loss = loss + (patch_map * torch.from_numpy(hash_fill("grad.map", (2, 768, 14, 14), 1e-3))).sum()
loss.backward()
gradients = {n: p.grad for n, p in parameters.items()}
gradients |= {"visual.alpha_patch_embed.proj." + n: p.grad for n, p in alpha.items()}
for name in [
    "visual.cls_token",
    "visual.pos_embed",
    "visual.patch_embed.proj.weight",
    "visual.alpha_patch_embed.proj.weight",
    "visual.alpha_patch_embed.proj.bias",
    "visual.blocks.0.norm1.weight",
    "visual.blocks.0.attn.q_proj.weight",
    "visual.blocks.0.attn.q_proj.bias",
    "visual.blocks.5.attn.k_proj.weight",
    "visual.blocks.5.attn.v_proj.weight",
    "visual.blocks.5.attn.inner_attn_ln.weight",
    "visual.blocks.11.attn.proj.weight",
    "visual.blocks.11.mlp.w1.weight",
    "visual.blocks.11.mlp.w2.bias",
    "visual.blocks.11.mlp.ffn_ln.bias",
    "visual.blocks.11.mlp.w3.weight",
    "visual.norm.weight",
    "visual.head.weight",
]:
    # The first 512 numbers of each, and its norm.
    flat = gradients[name].flatten().numpy()
    out["grad." + name] = flat[:512]
    out["norm." + name] = np.array([np.sqrt((flat.astype(np.float64) ** 2).sum())], dtype=np.float32)
save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, os.path.join(HERE, "eva02_b16.safetensors"))
print({k: v.shape for k, v in out.items()}, "feature 0:", out["image"][0, :4])
