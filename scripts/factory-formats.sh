#!/bin/bash
# Writes mini-LongGRIT as five other formats with their own tools, ingests each and compares with what was written, row for row:
# factory-formats.sh PROGRAMS PYTHON FOLDER
set -eu -o pipefail
bin=$1 python=$2 folder=$3
mini=$folder/mini
[ -e "$mini/index/latest.json" ] || "$bin/pixfleet" shards build mini --scenes 300 --test-scenes 20 --seed 5 --out "$mini"
"$python" scripts/factory-write.py --split "$mini/train" --out "$folder/formats"
rm -rf "$folder/shards"
ingest() { # FORMAT SOURCE OPTIONS...
    format=$1
    echo "--- $format"
    "$bin/pixfleet" shards ingest "$format" "$folder/formats/$format/$2" --out "$folder/shards/$format" --max-rejects 0 "${@:3}"
}
coco=$folder/formats/coco
ingest coco instances.json --captions "$coco/captions.json" --images "$coco/images"
ingest alphaclip-grit ""
ingest finehard jsonfiles --images "$folder/formats/finehard/images"
ingest webdataset ""
ingest parquet "" --boxes xywh --map image_id=name,image.bytes=img.data,caption_long=text,caption_short=summary \
    --map regions.bbox=objects.xywh,regions.category=objects.label,regions.mask_rle=objects.counts \
    --map regions.mask_size=objects.size,regions.short_expr=objects.short,regions.long_expr=objects.long \
    --map regions.hard_negs=objects.wrong
for format in coco alphaclip-grit finehard webdataset parquet; do
    "$bin/pixfleet" shards verify "$folder/shards/$format"
done
"$python" scripts/factory-compare.py --split "$mini/train" --ingested "$folder/shards"
