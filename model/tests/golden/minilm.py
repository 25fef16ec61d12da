"""Golden files minilm.txt (one caption a line) and minilm.safetensors: all-MiniLM-L6-v2 by transformers, fp32.

    scripts/fetch-minilm.sh .cache/minilm
    pip install torch==2.11.0 transformers==5.23.0 numpy safetensors && python minilm.py .cache/minilm

Mean pooling over the attention mask and L2 normalization, as sentence-transformers does. Vectors are kept as f16
(that changes a cosine by less than 1e-7).
"""

import os
import random
import sys

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoModel, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
COLOURS = "red, teal, off-white, dark green, golden, #ff8800, brownish, translucent".split(", ")
THINGS = "umbrella, fire engine, tabby cat, saxophone, passport, kite, ice-cream cone, Ferris wheel, stethoscope".split(", ")
PLACES = ["in the upper left corner", "behind the fence", "next to a smaller one", "half hidden by a leaf", "at (12, 40)"]
DETAILS = [
    "Its outline is crisp and its surface slightly glossy.",
    "It is the second largest thing in the picture, after the lighthouse.",
    "Nobody seems to be looking at it; the light falls from the right.",
    "A thin shadow runs along its lower edge, fading towards the viewer.",
    "Compared with its neighbours it looks newer, cleaner and a little out of place.",
]
ODD = [
    "x",
    "?!",
    "  leading   and   inner   spaces  ",
    "UPPER CASE, lower case and CamelCase words",
    "Café crème brûlée, naïve façade, Ångström, Straße",
    "一只黑猫坐在红色的椅子上",
    "Кошка сидит на красном стуле",
    "an emoji 🦊 between words 🚒🚒",
    "http://example.org/a?b=c&d=e#f 1,234.56 kg (approx.)",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "tabs\tand\u00a0no-break\u2009spaces and a zero\u200bwidth one",
    "[MASK] and [SEP] written out, and [UNK] too",
    "e\u0301 composed of two code points",
    "word " * 400,
    "a photo of a " + "very " * 248 + "long queue",
]


def captions() -> list:
    rng = random.Random(20260101)
    texts = list(ODD)
    while len(texts) < 200:
        text = f"a {rng.choice(COLOURS)} {rng.choice(THINGS)} {rng.choice(PLACES)}"
        for _ in range(rng.choice([0, 0, 1, 2, 4, 8, 14])):
            text += " " if text.endswith(".") else ". "
            text += rng.choice(DETAILS)
        texts.append(text)
    return texts


folder = sys.argv[1]
texts = captions()
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
vectors, counts = [], []
with torch.no_grad():
    for text in texts:
        batch = tokenizer([text], truncation=True, max_length=256, return_tensors="pt")
        hidden = model(**batch).last_hidden_state
        weight = batch["attention_mask"][..., None].float()
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        vectors.append(torch.nn.functional.normalize(mean, dim=-1)[0].numpy())
        counts.append(batch["input_ids"].shape[1])
with open(os.path.join(HERE, "minilm.txt"), "w", encoding="utf-8", newline="\n") as out:
    out.write("".join(t.replace("\\", "\\\\").replace("\n", "\\n") + "\n" for t in texts))
save_file(
    {"vectors": np.stack(vectors).astype(np.float16), "tokens": np.array(counts, dtype=np.float32)},
    os.path.join(HERE, "minilm.safetensors"),
)
print(len(texts), "texts, tokens from", min(counts), "to", max(counts))
