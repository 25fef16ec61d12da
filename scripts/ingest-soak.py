"""A million records of COCO's layout and a webdataset stream of gigabytes through a pipe, one record in twenty malformed in one
of twelve ways, through `pixfleet shards ingest`: every malformed record must be named with its kind and none else, and the
process must keep to its memory. Then the same JSON and the start of the same stream through Python's json, tarfile and
pyarrow, for the time it takes them.

    python ingest-soak.py --program target/release/pixfleet --out target/ingest-soak --records 1000000 --gb 10
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# What is allowed at the peak (VmHWM), in MB: run.rs and joined.rs say what is held. COCO: batches of records without pictures,
# 32 MB of JSON of a range and as much again for its parts, 50 bytes an image, and a part of 128 MB that may be held twice
# while it is finished. The stream: a dry run writes nothing; batches of 2 MB on each core and their decoded pictures.
COCO_MB = 480
STREAM_MB = 300
MALFORMED_EVERY = 20
SIDE = (320, 240)


def malformed(way, record):
    """The record, spoilt in one of twelve ways: its text, and the kind that it must be refused as."""
    spoil = lambda **fields: json.dumps({**record, **fields})
    x, y, w, h = record["bbox"]
    return (
        ("syntax", lambda: json.dumps(record)[:-1] + ", }"),
        ("syntax", lambda: json.dumps("a text")),
        ("syntax", lambda: spoil(bbox=[float("nan"), y, w, h])),
        ("field", lambda: json.dumps({name: value for name, value in record.items() if name != "bbox"})),
        ("field", lambda: spoil(bbox="left")),
        ("field", lambda: spoil(category_id=999)),
        ("box", lambda: spoil(bbox=[x, y, w])),
        ("box", lambda: spoil(bbox=[x, y, 2 * SIDE[0], SIDE[1]])),
        ("box", lambda: spoil(bbox=[x, y, 0, h])),
        ("mask", lambda: spoil(segmentation=[[x, y, x + w, y, x]])),
        ("mask", lambda: spoil(segmentation={"size": [SIDE[1], SIDE[0]], "counts": [17, 20]})),
        ("orphan", lambda: spoil(image_id=-5)),
    )[way % 12]


def annotation(draw, number, images):
    x, y = draw.randrange(1, 200), draw.randrange(1, 120)
    w, h = draw.randrange(8, 100), draw.randrange(8, 100)
    ring = []
    for corner in range(10):
        ring += [round(x + w * (corner % 5) / 4, 2), round(y + (h if corner > 4 else 0) + draw.random(), 2)]
    segmentation = [[min(v, (SIDE[0], SIDE[1])[i % 2]) for i, v in enumerate(ring)]]
    fields = {"id": number, "image_id": draw.randrange(images), "category_id": 1 + number % 80, "iscrowd": 0}
    return {**fields, "bbox": [x, y, w, h], "area": w * h, "segmentation": segmentation}


def write_coco(path, records):
    """A tenth of the records are images. Returns {(list, record): kind} of what is malformed."""
    draw, expected, images = random.Random(7), {}, records // 10
    with open(path, "w", buffering=1 << 20) as file:
        # Annotations first: what they belong to is known only later.
        file.write('{"info": {}, "annotations": [')
        for number in range(records - images):
            record = annotation(draw, number, images)
            text = json.dumps(record)
            if number % MALFORMED_EVERY == 3:
                kind, spoilt = malformed(number // MALFORMED_EVERY, record)
                expected["annotations", number], text = kind, spoilt()
            file.write((", " if number else "") + text)
        file.write('], "images": [')
        for number in range(images):
            image = {"id": number, "file_name": f"{number:012}.jpg", "width": SIDE[0], "height": SIDE[1]}
            file.write((", " if number else "") + json.dumps(image))
        file.write('], "categories": ' + json.dumps([{"id": i, "name": f"thing {i}"} for i in range(1, 81)]) + "}")
    return expected


def pictures(split):
    """The pictures of a split, to be repeated."""
    tables = (pq.read_table(path, columns=["image"]) for path in sorted(Path(split).glob("*.parquet")))
    return [row["image"]["bytes"] for table in tables for row in table.to_pylist()]


def member(name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def stream(sink, size, faces, expected):
    """Writes about `size` bytes of a webdataset; notes in `expected` what is malformed."""
    number = written = 0
    while written < size:
        face = faces[number % len(faces)]
        record = {"caption_long": f"picture {number}", "regions": [{"bbox": [0.1, 0.1, 0.5, 0.5], "short_expr": "a thing"}]}
        text = json.dumps(record).encode()
        if number % MALFORMED_EVERY == 3:
            region = record["regions"][0]
            box = lambda value: json.dumps({**record, "regions": [{**region, "bbox": value}]}).encode()
            mask = lambda value: json.dumps({**record, "regions": [{**region, "mask": value}]}).encode()
            size_of = {"size": [8, 8]}
            way = number // MALFORMED_EVERY % 12
            kind, text, face = (
                ("syntax", text[:-1], face),
                ("syntax", b"[1, 2]", face),
                ("syntax", box([0.1, float("nan"), 0.5, 0.5]), face),
                ("field", text.replace(b'"picture', b'["picture"], "x": "picture'), face),
                ("field", box("left"), face),
                ("box", box([0.1, 0.1, 0.5]), face),
                ("box", box([0.1, 0.1, 1.5, 0.5]), face),
                ("box", box([0.5, 0.5, 0.5, 0.5]), face),
                ("mask", mask({**size_of, "counts": [10, 20]}), face),
                ("mask", mask([[1, 2, 3]]), face),
                ("picture_damaged", text, face[: len(face) // 3]),
                ("picture_missing", text, None),
            )[way]
            expected[number] = kind
        data = member(f"{number:09}.json", text)
        if face is not None:
            data += member(f"{number:09}.jpg", face)
        sink.write(data)
        written += len(data)
        number += 1
    sink.write(bytes(1024))
    return number, written


def run(command, feed=None):
    """Standard output by lines, seconds, and the peak of memory in MB of the process."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE if feed else None, stdout=subprocess.PIPE)
    feeder = threading.Thread(target=feed, args=(process.stdin,)) if feed else None
    if feeder:
        feeder.start()
    lines = [json.loads(line) for line in process.stdout]
    if feeder:
        feeder.join()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    return lines, time.monotonic() - began, usage.ru_maxrss / 1000


def held(what, found, expected, peak, bound):
    missing, foreign = expected.keys() - found.keys(), found.keys() - expected.keys()
    wrong = [place for place in expected.keys() & found.keys() if expected[place] != found[place]]
    print(f"  {len(expected)} malformed, {len(found)} named; {len(missing)} missed, {len(foreign)} too many, {len(wrong)} of another kind")
    print(f"  peak of memory {peak:.0f} MB of {bound} MB")
    for place in (*sorted(missing)[:5], *sorted(foreign)[:5], *sorted(wrong)[:5]):
        print(f"    {place}: expected {expected.get(place)}, found {found.get(place)}")
    return not (missing or foreign or wrong) and peak <= bound


def coco(arguments):
    path = arguments.out / "instances.json"
    expected = write_coco(path, arguments.records)
    size = path.stat().st_size
    print(f"COCO: {arguments.records} records, {size / 1e6:.0f} MB of JSON", flush=True)
    out = arguments.out / "coco"
    command = [arguments.program, "shards", "ingest", "coco", path, "--no-images", "--out", out, "--restart", "--json"]
    lines, seconds, peak = run(command)
    found = {}
    for part in sorted((out / "ingest/train").glob("rejects-*.jsonl")):
        for line in part.read_text().splitlines():
            reject = json.loads(line)
            place = (reject["file"].split(": ")[1], reject["record"])
            assert place not in found, f"{place} is named twice"
            found[place] = reject["kind"]
    counts = lines[-1]["counts"]
    print(f"  pixfleet: {seconds:.1f} s, {size / 1e6 / seconds:.1f} MB/s of JSON; {counts['rows']} rows, {counts['regions']} regions")
    good = held("COCO", found, expected, peak, COCO_MB)
    good &= counts["regions"] == arguments.records - arguments.records // 10 - len(expected)
    peer("json and pyarrow", "coco", path, size)
    path.unlink()
    return good


def webdataset(arguments, faces):
    size = int(arguments.gb * 1e9)
    expected, sent = {}, []
    command = [arguments.program, "shards", "ingest", "webdataset", "-", "--dry-run", "--json"]

    def feed(pipe):
        sent[:] = stream(pipe, size, faces, expected)
        pipe.close()

    print(f"webdataset: {arguments.gb} GB through a pipe", flush=True)
    lines, seconds, peak = run(command, feed)
    found = {line["record"]: line["kind"] for line in lines[:-1]}
    assert len(found) == len(lines) - 1, "a record is named twice"
    records, written = sent
    print(f"  pixfleet: {seconds:.1f} s, {written / 1e6 / seconds:.1f} MB/s; {records} pictures, all decoded")
    good = held("webdataset", found, expected, peak, STREAM_MB)
    # Python decodes no picture here, so for its sake pixfleet looks at headers alone.
    short = min(size, int(1e9))
    with open(arguments.out / "short.tar", "wb") as file:
        stream(file, short, faces, {})
    _, seconds, _ = run([*command[:4], arguments.out / "short.tar", "--dry-run", "--json", "--headers-only"])
    print(f"  pixfleet, headers only, {short / 1e9} GB: {seconds:.1f} s, {short / 1e6 / seconds:.1f} MB/s")
    peer("tarfile, json and pyarrow", "webdataset", arguments.out / "short.tar", short)
    (arguments.out / "short.tar").unlink()
    return good


def peer(name, what, path, size):
    """The same work in a process of its own, for its memory's sake."""
    _, seconds, peak = run([sys.executable, __file__, "--peer", what, "--out", path])
    print(f"  {name}: {seconds:.1f} s, {size / 1e6 / seconds:.1f} MB/s, peak {peak:.0f} MB", flush=True)


def peer_coco(path):
    """The file as one document, joined by image, written as Parquet. NaN is JSON to Python; boxes are checked, masks are not."""
    text = path.read_text()
    # json refuses the whole document for one malformed record; that record is left out here beforehand.
    document = json.loads(text.replace(", }", "}"))
    names = {category["id"]: category["name"] for category in document["categories"]}
    rows = {image["id"]: {**image, "regions": []} for image in document["images"]}
    for record in document["annotations"]:
        try:
            x, y, w, h = record["bbox"]
            image = rows[record["image_id"]]
            box = [x / image["width"], y / image["height"], (x + w) / image["width"], (y + h) / image["height"]]
            if not (0 <= box[0] < box[2] <= 1.01 and 0 <= box[1] < box[3] <= 1.01):
                continue
            image["regions"].append({"bbox": box, "category": names[record["category_id"]]})
        except (KeyError, ValueError, TypeError):
            continue
    pq.write_table(pa.Table.from_pylist(list(rows.values())), path.with_suffix(".parquet"), compression="zstd")
    path.with_suffix(".parquet").unlink()


def peer_webdataset(path):
    """Groups of the stream, their JSON, boxes checked, written as Parquet into nothing."""
    schema = pa.schema([("key", pa.string()), ("caption_long", pa.string()), ("bbox", pa.list_(pa.float64())), ("jpg", pa.binary())])
    batch, group = [], {}
    with tarfile.open(path, mode="r|") as tar, pq.ParquetWriter("/dev/null", schema) as sink:
        for info in tar:
            key, ending = info.name.split(".", 1)
            if group.get("key") != key:
                group = {"key": key}
            group[ending] = tar.extractfile(info).read()
            if "jpg" not in group:
                continue
            try:
                record = json.loads(group["json"])
                box = record["regions"][0]["bbox"]
                if len(box) != 4 or not all(0 <= v <= 1 for v in box) or not isinstance(record["caption_long"], str):
                    continue
                row = {"key": key, "caption_long": record["caption_long"], "bbox": box, "jpg": group["jpg"]}
            except (KeyError, ValueError, TypeError):
                continue
            batch.append(row)
            if len(batch) == 64:
                sink.write_table(pa.Table.from_pylist(batch, schema))
                batch = []


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", help="pixfleet")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", help="folder of a split whose pictures are repeated")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--gb", type=float, default=10.0)
    parser.add_argument("--peer", choices=("coco", "webdataset"))
    arguments = parser.parse_args()
    if arguments.peer:
        return {"coco": peer_coco, "webdataset": peer_webdataset}[arguments.peer](arguments.out)
    arguments.out.mkdir(parents=True, exist_ok=True)
    faces = pictures(arguments.pictures)
    good = [coco(arguments), webdataset(arguments, faces)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
