"""Modules under the names of published checkpoints, written from their description (method.md 1.2, 1.3, 1.5, 1.6, 4.1) in
plain PyTorch. `import_official.py` loads pixfleet's files into them.

Each has `features(inputs)`: the L2-normalized outputs by the names of `pixfleet probe`.
"""

import torch
import torch.nn.functional as F
from torch import nn

END = 49407
KEEP = 20


class Named(nn.Module):
    """A module that is its parts."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def heads_of(x, heads):
    n, length, width = x.shape
    return x.view(n, length, heads, width // heads).transpose(1, 2)


def merge(x):
    n, heads, length, width = x.shape
    return x.transpose(1, 2).reshape(n, length, heads * width)


# FG-CLIP v1: Hugging Face's names.


class HfAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.heads = width // 64

    def forward(self, x, causal):
        q, k, v = (heads_of(p(x), self.heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(merge(F.scaled_dot_product_attention(q, k, v, is_causal=causal)))


class HfBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.self_attn = HfAttention(width)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = Named(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width))

    def feed(self, x):
        return x + self.mlp.fc2(quick_gelu(self.mlp.fc1(self.layer_norm2(x))))

    def forward(self, x, causal):
        return self.feed(x + self.self_attn(self.layer_norm1(x), causal))

    def without_attention(self, x):
        return self.feed(x + self.self_attn.out_proj(self.self_attn.v_proj(self.layer_norm1(x))))


class FgClip1(nn.Module):
    def __init__(self, image=224, patch=16, width=768, depth=12, text_width=512, text_depth=12, embed=512):
        super().__init__()
        self.grid = image // patch
        self.vision_model = Named(
            embeddings=Named(
                class_embedding=nn.Parameter(torch.zeros(width)),
                patch_embedding=nn.Conv2d(3, width, patch, patch, bias=False),
                position_embedding=nn.Embedding(self.grid**2 + 1, width),
            ),
            pre_layrnorm=nn.LayerNorm(width),
            encoder=Named(layers=nn.ModuleList(HfBlock(width) for _ in range(depth))),
            post_layernorm=nn.LayerNorm(width),
        )
        self.text_model = Named(
            embeddings=Named(
                token_embedding=nn.Embedding(END + 1, text_width),
                position_embedding=nn.Embedding(77, text_width),
                position_embedding_ori=nn.Embedding(248, text_width),
                position_embedding_res=nn.Embedding(248, text_width),
            ),
            encoder=Named(layers=nn.ModuleList(HfBlock(text_width) for _ in range(text_depth))),
            final_layer_norm=nn.LayerNorm(text_width),
        )
        self.visual_projection = nn.Linear(width, embed, bias=False)
        self.text_projection = nn.Linear(text_width, embed, bias=False)
        self.text_filip_projection = nn.Linear(text_width, embed, bias=False)
        for name in ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg"):
            setattr(self, name, nn.Parameter(torch.tensor(2.6592)))

    def before_last(self, pixels):
        v = self.vision_model
        patches = v.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([v.embeddings.class_embedding.expand(len(pixels), 1, -1), patches], 1)
        x = v.pre_layrnorm(x + v.embeddings.position_embedding.weight)
        for block in v.encoder.layers[:-1]:
            x = block(x, False)
        return x

    def image(self, pixels):
        x = self.vision_model.encoder.layers[-1](self.before_last(pixels), False)
        return F.normalize(self.visual_projection(self.vision_model.post_layernorm(x[:, 0])), dim=-1)

    def text(self, ids, long):
        e = self.text_model.embeddings
        length = ids.shape[1]
        if long:
            early = (torch.arange(length, device=ids.device) < KEEP)[:, None]
            positions = torch.where(early, e.position_embedding_ori.weight[:length], e.position_embedding_res.weight[:length])
        else:
            positions = e.position_embedding.weight[:length]
        x = e.token_embedding(ids) + positions
        for block in self.text_model.encoder.layers:
            x = block(x, True)
        ends = (ids == END).int().argmax(1)
        pooled = self.text_model.final_layer_norm(x)[torch.arange(len(ids), device=ids.device), ends]
        return F.normalize((self.text_filip_projection if long else self.text_projection)(pooled), dim=-1)

    def features(self, inputs):
        return {
            "image_features": self.image(inputs["pixels"]),
            "text_long_features": self.text(inputs["text_long"], True),
            "text_short_features": self.text(inputs["text_short"], False),
        }


# OpenAI's CLIP: its own names, attention by torch's module.


class OpenAiBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = Named(c_fc=nn.Linear(width, 4 * width), c_proj=nn.Linear(4 * width, width))

    def forward(self, x, mask):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp.c_proj(quick_gelu(self.mlp.c_fc(self.ln_2(x))))


class OpenAiVision(nn.Module):
    def __init__(self, image=224, patch=16, width=768, depth=12, embed=512, alpha=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        if alpha:
            self.conv1_alpha = nn.Conv2d(1, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((image // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Named(resblocks=nn.ModuleList(OpenAiBlock(width) for _ in range(depth)))
        self.proj = nn.Parameter(torch.zeros(width, embed))

    def forward(self, pixels, mask=None):
        x = self.conv1(pixels)
        if mask is not None:
            x = x + self.conv1_alpha(mask)
        x = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = self.ln_pre(x + self.positional_embedding)
        for block in self.transformer.resblocks:
            x = block(x, None)
        return F.normalize(self.ln_post(x[:, 0]) @ self.proj, dim=-1)


class OpenAiClip(nn.Module):
    def __init__(self, text_width=512, text_depth=12, embed=512):
        super().__init__()
        self.visual = OpenAiVision(embed=embed)
        self.token_embedding = nn.Embedding(END + 1, text_width)
        self.positional_embedding = nn.Parameter(torch.zeros(77, text_width))
        self.transformer = Named(resblocks=nn.ModuleList(OpenAiBlock(text_width) for _ in range(text_depth)))
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(torch.zeros(text_width, embed))
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))

    def text(self, ids):
        length = ids.shape[1]
        later = torch.full((length, length), float("-inf")).triu(1)
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        for block in self.transformer.resblocks:
            x = block(x, later)
        # The end is the largest id.
        return F.normalize(self.ln_final(x)[torch.arange(len(ids)), ids.argmax(1)] @ self.text_projection, dim=-1)

    def features(self, inputs):
        return {
            "image_features": self.visual(inputs["pixels"]),
            "text_short_features": self.text(inputs["text_short"]),
        }


# PixCLIP: EVA02-CLIP-B-16 with a mask, and the adapter over stored text vectors.


class Rope(nn.Module):
    def __init__(self, grid, half=32, theta=10000.0, trained=16):
        super().__init__()
        frequencies = theta ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)
        turns = torch.arange(grid, dtype=torch.float64) / grid * trained
        axis = (turns[:, None] * frequencies).repeat_interleave(2, 1)
        rows = axis[:, None, :].expand(grid, grid, half)
        columns = axis[None, :, :].expand(grid, grid, half)
        angles = torch.cat([rows, columns], -1).reshape(grid * grid, 2 * half)
        self.register_buffer("freqs_cos", angles.cos().float())
        self.register_buffer("freqs_sin", angles.sin().float())

    def forward(self, x):
        first, second = x[..., 0::2], x[..., 1::2]
        turned = torch.stack([-second, first], -1).flatten(-2)
        return x * self.freqs_cos + turned * self.freqs_sin


class EvaAttention(nn.Module):
    def __init__(self, width, rope):
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.inner_attn_ln = nn.LayerNorm(width, 1e-6)
        self.proj = nn.Linear(width, width)
        self.rope = rope
        self.heads = width // 64

    def forward(self, x):
        q, k, v = (heads_of(p(x), self.heads) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (torch.cat([t[:, :, :1], self.rope(t[:, :, 1:])], 2) for t in (q, k))
        return self.proj(self.inner_attn_ln(merge(F.scaled_dot_product_attention(q, k, v))))


class EvaMlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, 1e-6)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class EvaBlock(nn.Module):
    def __init__(self, width, hidden, rope):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.attn, self.mlp = EvaAttention(width, rope), EvaMlp(width, hidden)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Eva02(nn.Module):
    def __init__(self, image=224, patch=16, width=768, hidden=2048, depth=12, embed=1280, alpha=True):
        super().__init__()
        grid = image // patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid**2 + 1, width))
        self.patch_embed = Named(proj=nn.Conv2d(3, width, patch, patch))
        if alpha:
            self.alpha_patch_embed = Named(proj=nn.Conv2d(1, width, patch, patch))
        self.rope = Rope(grid)
        self.blocks = nn.ModuleList(EvaBlock(width, hidden, self.rope) for _ in range(depth))
        self.norm = nn.LayerNorm(width, 1e-6)
        self.head = nn.Linear(width, embed)

    def tokens(self, pixels, mask):
        """The class token and the patches, normed but not projected."""
        x = self.patch_embed.proj(pixels) + self.alpha_patch_embed.proj(mask)
        x = torch.cat([self.cls_token.expand(len(pixels), -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def project(self, token):
        return F.normalize(self.head(token), dim=-1)

    def forward(self, pixels, mask):
        return self.project(self.tokens(pixels, mask)[:, 0])


class Residual(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.fn = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.0), nn.Linear(hidden, width))

    def forward(self, x):
        return x + self.fn(self.ln(x))


class PixClip(nn.Module):
    def __init__(self, text_width=4096, hidden=8192, layers=4, embed=1280, visual=None):
        super().__init__()
        self.visual = Eva02(embed=embed, **(visual or {}))
        adaptor = [Residual(text_width, hidden) for _ in range(layers)]
        adaptor += [nn.LayerNorm(text_width), nn.Linear(text_width, embed)]
        self.text = Named(text_adaptor=nn.Sequential(*adaptor))
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))

    def adapted(self, text):
        return F.normalize(self.text.text_adaptor(F.normalize(text, dim=1)), dim=-1)

    def features(self, inputs):
        return {
            "image_features": self.visual(inputs["pixels"], inputs["mask"]),
            "text_features": self.adapted(inputs["text"]),
        }
