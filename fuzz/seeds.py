#!/usr/bin/env python3
"""Makes the seeds in fuzz/corpus from tests/data: run it after scripts/make-vectors.sh. The same files on every run."""

import gzip
import hashlib
import json
import shutil
import struct
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
BATCHES = HERE.parent / "tests/data/batches"
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
SMALL = 8000


def seed(target, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)


def split(stream):
    while stream:
        end = 12 + struct.unpack(">I", stream[8:12])[0]
        yield stream[:end]
        stream = stream[end:]


shutil.rmtree(CORPUS, ignore_errors=True)
for path in sorted(BATCHES.glob("*.bin")):
    whole = path.read_bytes()
    if len(whole) < SMALL:
        seed("batch_list", b"\xff" + whole)
        seed("batch_list", b"\x7e" + whole[:-7])
    for batch in split(whole):
        if len(batch) >= SMALL:
            continue
        seed("record_batch", b"\1" + batch)
        seed("record_batch", b"\0" + batch)
        codec = batch[22] & 7
        if codec:
            for limit in (20, 10):
                seed("decompress", bytes([codec - 1 | limit << 2]) + batch[61:])

# What the tools write, where the clients do not: two members, a name, checksums, stored blocks.
seed("decompress", bytes([0 | 20 << 2]) + gzip.compress(b"one", mtime=0) + gzip.compress(b"two" * 50, mtime=0))
for frame in (
    "04224d187c4051000000000000008d0d0000003f6162630300365062636162633d0307ad000000006f375639",
    "04224d184040c010000080303132333435363738396162636465660900" "00000c100050787" "97a787900000000",
):
    seed("decompress", bytes([2 | 20 << 2]) + bytes.fromhex(frame))
seed("decompress", bytes([1 | 20 << 2]) + b"\x0d\x30\x18\0\0\0\x01\x0csdfdsf\0")
for frame in ("28b52ffd045829000068692068694061a553", "28b52ffd005803001061", "502a4d1803000000ffffff28b52ffd2000010000"):
    seed("decompress", bytes([3 | 20 << 2]) + bytes.fromhex(frame))

for unit in (b"", b"\0", b"abc", bytes(range(256)), json.dumps({"order": 42, "total": 12.5}).encode()):
    for times in (1, 5, 200):
        seed("compress", bytes([times, 7]) + unit)

for envelope in (
    {"event_id": "0b7c", "event_type": "order.created", "occurred_at": "2026-11-24T21:51:00.123456+00:00", "data": {}},
    {"event_id": "ß", "event_type": "😀", "occurred_at": "", "data": [1, None, {"a": "\n"}], "more": 1e10},
    {"type": "email.send", "data": {"to": "a@example.org"}},
    {"type": 1, "data": 2},
    {"data": 2},
    [],
):
    seed("envelope", json.dumps(envelope).encode())
    seed("envelope", json.dumps(envelope, indent=1, ensure_ascii=False).encode())
for text in (
    b'{"type":"a","type":"b","data":1,"data":2}', b'{"type":"\\ud800","data":NaN}', b'{"type":"\xff"}', b"",
    b"2026-11-24T21:51:00.123456+00:00", b"2026-11-24 21:51:00", b"2026-11-24T21:51:00Z", b"2026-11-24T21:51:00+0530",
):
    seed("envelope", text)

# Metadata is behind the offset; what the crate itself writes is found by the second half of the target.
for base in (0, 42, 2**62):
    seed("offset_map", struct.pack("<q", base) + bytes(range(1, 40)))
    seed("offset_map", struct.pack("<q", base) + b"mu1:AAAqAAAAAA")
    seed("offset_map", struct.pack("<q", base) + bytes([1, 0] * 60))

# These three are read as structures: any bytes are one.
for target in ("round_trip", "kafka_protocol", "ack_tracker"):
    for n in range(8):
        data = b"".join(hashlib.sha256(bytes([n, i])).digest() for i in range(1 + n * 4))
        seed(target, data)
    seed(target, bytes(400))
    seed(target, bytes(range(256)) * 2)

print(sum(1 for f in CORPUS.rglob("*") if f.is_file()), "seeds,", sum(f.stat().st_size for f in CORPUS.rglob("*") if f.is_file()), "bytes")
