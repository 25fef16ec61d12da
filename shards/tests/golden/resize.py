"""Writes resize.txt: Pillow's resizing of pictures that both sides compute from a hash, as hex.

    python -m venv v && v/bin/pip install numpy pillow && v/bin/python resize.py > resize.txt

Grey levels stay in 64..191: bicubic overshoots, and where it leaves 0..255 the result depends on which axis is resized
first (both libraries clip between the passes).

A line a case: <rgb|mask> <w> <h> <new w> <new h> <hex bytes>. Images bicubic, masks bilinear, both antialiased.
"""
import numpy as np
from PIL import Image

U64 = (1 << 64) - 1


def mix(z):
    z &= U64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & U64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
    return z ^ (z >> 31)


for w, h, nw, nh in [(97, 61, 32, 32), (20, 24, 40, 36), (64, 64, 24, 24), (33, 90, 33, 30)]:
    image = np.array([[[64 + ((mix(y // 5 * 1000 + x // 4 * 3 + c) >> 8) & 127) for c in range(3)] for x in range(w)] for y in range(h)], np.uint8)
    out = Image.fromarray(image).resize((nw, nh), Image.Resampling.BICUBIC)
    print("rgb", w, h, nw, nh, out.tobytes().hex())
    mask = np.array([[255 * (mix(y // 6 * 1000 + x // 7) & 1) for x in range(w)] for y in range(h)], np.uint8)
    out = Image.fromarray(mask).resize((nw, nh), Image.Resampling.BILINEAR)
    print("mask", w, h, nw, nh, out.tobytes().hex())
