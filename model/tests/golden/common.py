"""What the golden scripts of this folder share: the rule that fills a tensor from its name (`model::testing`)."""

import numpy as np

MASK = (1 << 64) - 1


def fnv1a64(name: str) -> int:
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def hash_fill(name: str, shape, scale: float) -> np.ndarray:
    """value[i] = ((mix(fnv1a64(name) + i) >> 40) / 2^24 - 0.5) * 2 * scale, mix = SplitMix64's finalizer."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(name)) + np.arange(int(np.prod(shape)), dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(40)).astype(np.float64) / 2.0**24
    return ((unit - 0.5) * 2.0 * scale).astype(np.float32).reshape(shape)


def parameter_fill(name: str, shape) -> np.ndarray:
    """The rule of `tests/goldens/main.rs`: matrices and convolutions +-1.7/sqrt(fan_in), norms 1 +- 0.2, the rest +-0.2."""
    if name.endswith(".weight") and len(shape) >= 2:
        return hash_fill(name, shape, 1.7 / float(np.prod(shape[1:])) ** 0.5)
    if name.endswith(".weight"):
        return (1.0 + hash_fill(name, shape, 0.2)).astype(np.float32)
    return hash_fill(name, shape, 0.2)
