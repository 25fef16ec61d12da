"""Holds what was ingested from other formats (factory-write.py) against the split that these were written from, row for row
and field for field: pictures byte by byte, masks pixel by pixel as pycocotools decodes them, boxes to a millionth.

    python factory-compare.py --split mini/train --ingested factory/shards
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

BOX_NEAR = 1e-6

# By format: (field of the ingested row, how the source says it).
ROW = {
    "coco": [
        ("captions", lambda row: [row["caption_short"], row["caption_long"]]),
        ("caption_short", lambda row: row["caption_short"]),
    ],
    "alphaclip-grit": [("clip_sim_b32", lambda row: 0.25), ("clip_sim_l14", lambda row: 0.125)],
    "finehard": [(name, lambda row, name=name: row[name]) for name in ("caption_long", "caption_short", "lang")],
    "webdataset": [(name, lambda row, name=name: row[name]) for name in ("caption_long", "caption_short", "lang", "source")],
    "parquet": [(name, lambda row, name=name: row[name]) for name in ("caption_long", "caption_short")],
}
REGION = {
    "coco": ["category"],
    "alphaclip-grit": [],
    "finehard": ["short_expr", "long_expr", "hard_negs"],
    "webdataset": [
        "category",
        "caption_object",
        "caption_context",
        "caption_merged",
        "check_ok",
        "short_expr",
        "long_expr",
        "hard_negs",
        "hard_neg_kinds",
    ],
    "parquet": ["category", "short_expr", "long_expr", "hard_negs"],
}
WITHOUT_MASKS = {"finehard"}


def rows(split):
    table = [pq.read_table(path) for path in sorted(Path(split).glob("*.parquet"))]
    return [row for part in table for row in part.to_pylist()]


def key(format, row):
    """The image's key in the source: of COCO, whose ids are numbers, the name of its file."""
    return Path(row["image"]["path"]).stem if format == "coco" else row["image_id"]


def pixels(region):
    if region["mask_rle"] is None:
        return None
    return coco_mask.decode({"size": list(region["mask_size"]), "counts": region["mask_rle"]})


def region_faults(format, found, source):
    faults = [name for name in REGION[format] if found[name] != source[name]]
    if format == "alphaclip-grit" and found["caption_merged"] != source["caption_object"]:
        faults.append("caption_merged")
    if np.abs(np.subtract(found["bbox"], source["bbox"])).max() > BOX_NEAR:
        faults.append("bbox")
    mask, expected = pixels(found), None if format in WITHOUT_MASKS else pixels(source)
    if (mask is None) != (expected is None) or (mask is not None and not np.array_equal(mask, expected)):
        faults.append("mask")
    return faults


def row_faults(format, found, source):
    faults = [name for name, say in ROW[format] if found[name] != say(source)]
    if found["image"]["bytes"] != source["image"]["bytes"]:
        faults.append("image.bytes")
    if found["image"]["sha256"] != hashlib.sha256(source["image"]["bytes"]).digest():
        faults.append("image.sha256")
    faults += [name for name in ("width", "height") if found[name] != source[name]]
    if len(found["regions"]) != len(source["regions"]):
        return [*faults, f"{len(found['regions'])} regions for {len(source['regions'])}"]
    if format == "coco":
        # COCO's annotations have no order of their own: they are matched by their boxes.
        place = lambda region: tuple(np.round(region["bbox"], 5)) + (region["mask_rle"] or b"",)
        found["regions"].sort(key=place)
        source["regions"] = sorted(source["regions"], key=place)
    for i, (one, other) in enumerate(zip(found["regions"], source["regions"])):
        faults += [f"regions[{i}].{name}" for name in region_faults(format, one, other)]
    return faults


def compare(format, ingested, split):
    found, source = rows(ingested / format / "train"), rows(split)
    by_key = {key(format, row): row for row in found}
    faults = [f"{len(found)} rows for {len(source)}"] if len(found) != len(source) else []
    regions = 0
    for row in source:
        if row["image_id"] not in by_key:
            faults.append(f"{row['image_id']}: missing")
            continue
        faults += [f"{row['image_id']}: {name}" for name in row_faults(format, by_key[row["image_id"]], row)]
        regions += len(row["regions"])
    print(f"{format}: {len(source)} rows, {regions} regions, {len(faults)} differences", flush=True)
    for fault in faults[:20]:
        print(f"  {fault}")
    return not faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", required=True, help="folder of the split that the formats were written from")
    parser.add_argument("--ingested", required=True, type=Path, help="folder with an ingested dataset for each format")
    arguments = parser.parse_args()
    sys.exit(0 if all([compare(format, arguments.ingested, arguments.split) for format in ROW]) else 1)


if __name__ == "__main__":
    main()
