"""Writes rle.txt: what pycocotools says about masks and polygons that both sides compute from a hash.

    python -m venv v && v/bin/pip install numpy pycocotools==2.0.11 && v/bin/python rle.py > rle.txt

A line a mask: m <index> <h> <w> <area> <x> <y> <w> <h of the box> <compressed counts, or #fnv1a64 beyond 100 bytes>
A line a polygon: p <index> <h> <w> <area> <compressed counts, or #fnv1a64>
"""
import numpy as np
from pycocotools import mask as coco

U64 = (1 << 64) - 1


def mix(z):
    z &= U64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & U64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
    return z ^ (z >> 31)


def draw(i, k, n):
    return mix((i << 32) + k) % n


def short(text):
    if len(text) <= 100:
        return text.decode()
    h = 0xCBF29CE484222325
    for b in text:
        h = ((h ^ b) * 0x100000001B3) & U64
    return "#%016x" % h


def make(i):
    big = i % 100 == 99
    h, w = (480, 640) if big else (1 + draw(i, 1, 97), 1 + draw(i, 2, 113))
    kind = 5 + i % 3 if big else i % 8
    y, x = np.mgrid[0:h, 0:w].astype(np.int64)
    m = np.zeros((h, w), np.uint8)
    if kind == 1:
        m[:] = 1
    elif kind == 2:
        m[draw(i, 3, h), draw(i, 4, w)] = 1
    elif kind in (3, 4):
        p = 2 if kind == 3 else 16
        for yy in range(h):
            for xx in range(w):
                m[yy, xx] = mix((i << 32) + 1000 + yy * w + xx) % p == 0
    elif kind == 5:
        for r in range(3):
            y0, x0 = draw(i, 10 + r, h), draw(i, 20 + r, w)
            m[y0 : y0 + 1 + draw(i, 30 + r, h), x0 : x0 + 1 + draw(i, 40 + r, w)] = 1
    elif kind == 6:
        m[:] = (x + y // (1 + draw(i, 3, 9))) % 7 < 3
    elif kind == 7:
        cy, cx, a, b = draw(i, 3, h), draw(i, 4, w), 1 + draw(i, 5, h), 1 + draw(i, 6, w)
        m[:] = (y - cy) ** 2 * b * b + (x - cx) ** 2 * a * a <= a * a * b * b
    return m


for i in range(2000):
    m = make(i)
    r = coco.encode(np.asfortranarray(m))
    assert (coco.decode(r) == m).all()
    box = " ".join(str(int(v)) for v in coco.toBbox(r))
    print("m", i, m.shape[0], m.shape[1], int(coco.area(r)), box, short(r["counts"]))

for i in range(300):
    h, w = 8 + draw(i, 1, 60), 8 + draw(i, 2, 60)
    rings = []
    for ring in range(1 + i % 2):
        n = 3 + draw(i, 3 + ring, 7)
        k = 100 + 100 * ring
        rings.append([c for j in range(n) for c in (draw(i, k + 2 * j, 4 * w) / 4, draw(i, k + 2 * j + 1, 4 * h) / 4)])
    r = coco.merge(coco.frPyObjects(rings, h, w))
    print("p", i, h, w, int(coco.area(r)), short(r["counts"]))
