"""Writes clip_pixels.txt: what transformers' CLIPImageProcessor (Pillow's bicubic, rescaled, normalized) makes of
pictures that both sides compute from a hash, each squashed into a square.

    python -m venv v && v/bin/pip install numpy pillow transformers==5.23.0 && v/bin/python clip_pixels.py > clip_pixels.txt

A line a case: <w> <h> <size> <hex of float32, little endian, [3, size, size]>. Grey levels stay in 64..191, as in resize.py.
"""
import numpy as np
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

U64 = (1 << 64) - 1


def mix(z):
    z &= U64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & U64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
    return z ^ (z >> 31)


for w, h, size in [(50, 30, 16), (19, 23, 24), (16, 16, 16)]:
    image = np.array([[[64 + ((mix(y // 5 * 1000 + x // 4 * 3 + c) >> 8) & 127) for c in range(3)] for x in range(w)] for y in range(h)], np.uint8)
    processor = CLIPImageProcessorPil(size={"height": size, "width": size}, do_center_crop=False)
    pixels = processor(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    print(w, h, size, pixels.astype("<f4").tobytes().hex())
