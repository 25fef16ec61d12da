"""Writes a split of shards as other formats, with those formats' own tools: COCO with pycocotools, AlphaCLIP's GRIT and
FineHARD as JSON, webdataset with webdataset, Parquet with pyarrow. `pixfleet shards ingest` reads them, and
factory-compare.py holds what comes of it against the split.

    python factory-write.py --split mini/train --out factory
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

# Every third mask is written as numbers instead of COCO's compressed text, as older tools do.
PLAIN_EVERY = 3


def rows(split):
    for path in sorted(Path(split).glob("*.parquet")):
        for group in range(pq.ParquetFile(path).num_row_groups):
            yield from pq.ParquetFile(path).read_row_group(group).to_pylist()


def runs(region):
    """COCO's run-length encoding, as pycocotools takes it."""
    return {"size": list(region["mask_size"]), "counts": region["mask_rle"]}


def plain_counts(rle):
    """The runs as numbers: what pycocotools makes of the mask, counted down the columns."""
    pixels = coco_mask.decode(rle).ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff(np.concatenate(([0], changes, [pixels.size]))).tolist()
    return counts if pixels[0] == 0 else [0, *counts]


def segmentation(region, number):
    rle = runs(region)
    if number % PLAIN_EVERY == 0:
        return {"size": rle["size"], "counts": plain_counts(rle)}
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def write_coco(split, out):
    (out / "images").mkdir(parents=True)
    instances = {"info": {"description": "a split of shards"}, "licenses": [], "images": [], "annotations": [], "categories": []}
    captions = {"images": [], "annotations": []}
    categories = {}
    for number, row in enumerate(rows(split)):
        name = f"{row['image_id']}.jpg"
        (out / "images" / name).write_bytes(row["image"]["bytes"])
        image = {"id": 1000 + number, "file_name": name, "width": row["width"], "height": row["height"]}
        instances["images"].append(image)
        captions["images"].append(image)
        for text in (row["caption_short"], row["caption_long"]):
            captions["annotations"].append({"id": len(captions["annotations"]), "image_id": image["id"], "caption": text})
        for region in row["regions"]:
            x1, y1, x2, y2 = (np.float64(v) * side for v, side in zip(region["bbox"], (row["width"], row["height"]) * 2))
            category = categories.setdefault(region["category"], len(categories) + 1)
            annotation = {
                "id": len(instances["annotations"]) + 1,
                "image_id": image["id"],
                "category_id": category,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": int(coco_mask.area(runs(region))),
                "segmentation": segmentation(region, len(instances["annotations"])),
                "iscrowd": 0,
            }
            instances["annotations"].append(annotation)
    instances["categories"] = [{"id": id, "name": name} for name, id in categories.items()]
    # COCO's files are not sorted by image, and neither are these.
    instances["annotations"].sort(key=lambda a: a["id"] * 7919 % 104729)
    (out / "instances.json").write_text(json.dumps(instances))
    (out / "captions.json").write_text(json.dumps(captions))
    # The format's own reader reads it.
    read = COCO(out / "instances.json")
    annotation = read.loadAnns(read.getAnnIds())[0]
    assert read.annToMask(annotation).sum() == annotation["area"]


def write_alphaclip(split, out):
    out.mkdir(parents=True)
    for number, row in enumerate(rows(split)):
        caption, expressions = "", []
        for region in row["regions"]:
            start = len(caption) + (2 if caption else 0)
            caption += ("; " if caption else "") + region["caption_object"]
            expressions.append([float(start), float(len(caption)), *region["bbox"], 0.5])
        record = {
            "key": row["image_id"],
            "id": number,
            "url": f"https://example.org/{number}.jpg",
            "caption": caption or row["caption_short"],
            "width": row["width"],
            "height": row["height"],
            "clip_similarity_vitb32": 0.25,
            "clip_similarity_vitl14": 0.125,
            "noun_chunks": [],
            "ref_exps": expressions,
            "seudo_masks": [segmentation(region, i) for i, region in enumerate(row["regions"])],
        }
        (out / f"{row['image_id']}.jpg").write_bytes(row["image"]["bytes"])
        (out / f"{row['image_id']}.json").write_text(json.dumps(record))


def write_finehard(split, out):
    (out / "images").mkdir(parents=True)
    (out / "jsonfiles").mkdir()
    items = []
    for row in rows(split):
        (out / "images" / f"{row['image_id']}.jpg").write_bytes(row["image"]["bytes"])
        boxes = [
            {
                "bbox": [*region["bbox"], 0.75],
                "short_expr": region["short_expr"],
                "long_expr": region["long_expr"],
                "flag_short_neg": int(bool(region["hard_negs"])),
                "short_expr_negs": {str(i): text for i, text in enumerate(region["hard_negs"])},
            }
            for region in row["regions"]
        ]
        item = {"f_path": f"grit-20m/data-12m/{row['image_id']}.jpg", "caption": row["caption_long"]}
        items.append({**item, "short_caption": row["caption_short"], "bbox_info": boxes})
    half = len(items) // 2
    for number, part in enumerate((items[:half], items[half:])):
        (out / "jsonfiles" / f"{number}.json").write_text(json.dumps(part))


def write_webdataset(split, out):
    out.mkdir(parents=True)
    own = ("category", "caption_object", "caption_context", "caption_merged", "check_ok", "short_expr", "long_expr", "hard_negs", "hard_neg_kinds")
    with webdataset.ShardWriter(str(out / "%05d.tar"), maxcount=64, verbose=0) as sink:
        for row in rows(split):
            regions = [
                {"bbox": region["bbox"], "mask": segmentation(region, i), **{name: region[name] for name in own}}
                for i, region in enumerate(row["regions"])
            ]
            texts = {name: row[name] for name in ("source", "lang", "caption_long", "caption_short")}
            sink.write({"__key__": row["image_id"], "jpg": row["image"]["bytes"], "json": {**texts, "regions": regions}})


def write_parquet(split, out):
    """Large types, other names, boxes as x, y, width, height in pixels."""
    out.mkdir(parents=True)
    objects = pa.struct(
        [
            ("xywh", pa.list_(pa.float64(), 4)),
            ("label", pa.large_string()),
            ("counts", pa.large_binary()),
            ("size", pa.list_(pa.int64())),
            ("short", pa.string()),
            ("long", pa.string()),
            ("wrong", pa.list_(pa.string())),
        ]
    )
    schema = pa.schema(
        [
            ("name", pa.large_string()),
            ("img", pa.struct([("data", pa.large_binary())])),
            ("text", pa.string()),
            ("summary", pa.string()),
            ("made", pa.timestamp("s")),
            ("objects", pa.large_list(objects)),
        ]
    )
    table = []
    for row in rows(split):
        found = []
        for region in row["regions"]:
            x1, y1, x2, y2 = (np.float64(v) * side for v, side in zip(region["bbox"], (row["width"], row["height"]) * 2))
            texts = {"short": region["short_expr"], "long": region["long_expr"], "wrong": region["hard_negs"]}
            mask = {"counts": region["mask_rle"], "size": region["mask_size"]}
            found.append({"xywh": [x1, y1, x2 - x1, y2 - y1], "label": region["category"], **mask, **texts})
        picture = {"data": row["image"]["bytes"]}
        texts = {"text": row["caption_long"], "summary": row["caption_short"]}
        table.append({"name": row["image_id"], "img": picture, **texts, "made": 0, "objects": found})
    pq.write_table(pa.Table.from_pylist(table, schema), out / "data.parquet", compression="snappy", row_group_size=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", required=True, help="folder of the split's Parquet files")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to; it is emptied")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    for name, write in (
        ("coco", write_coco),
        ("alphaclip-grit", write_alphaclip),
        ("finehard", write_finehard),
        ("webdataset", write_webdataset),
        ("parquet", write_parquet),
    ):
        write(arguments.split, arguments.out / name)
        print(f"{name}: written", flush=True)


if __name__ == "__main__":
    main()
