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

# A broker's frames: start, tune, open-ok, declare-ok, deliver with a header and a body, a return, a close, a heartbeat.
def frame(kind, payload, channel=1):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def short(text):
    return bytes([len(text)]) + text


def field(name, tag, value):
    return short(name) + tag + value


def table(*fields):
    return struct.pack(">I", len(b"".join(fields))) + b"".join(fields)


def header(headers):
    return frame(2, struct.pack(">HHQH", 60, 0, 5, 0xB000) + short(b"text/plain") + headers + b"\2")


def long(text):
    return struct.pack(">I", len(text)) + text


deep = b"t\1"
for _ in range(40):
    deep = b"A" + long(deep)
frames = [
    frame(1, struct.pack(">HHBB", 10, 10, 0, 9) + table(field(b"product", b"S", long(b"RabbitMQ"))) + long(b"PLAIN") + long(b"en_US"), 0),
    frame(1, struct.pack(">HHHIH", 10, 30, 2047, 131072, 60), 0),
    frame(1, struct.pack(">HH", 10, 41) + short(b""), 0),
    frame(1, struct.pack(">HH", 50, 11) + short(b"tasks") + bytes(8)),
    frame(1, struct.pack(">HH", 60, 60) + short(b"ctag") + bytes(9) + short(b"") + short(b"k\xff")),
    header(table(field(b"a", b"I", bytes(4)), field(b"b", b"A", long(b"V" + b"t\1")), field(b"c", b"F", table(field(b"d", b"V", b""))))),
    header(table(field(b"n\xff", b"S", long(b"\xc3\x28")), field(b"x", b"x", long(b"\0\1")))),
    header(table(short(b"n") + deep)),
    header(table(field(b"b", b"?", b""))),
    frame(3, b"hello"),
    frame(1, struct.pack(">HHH", 60, 50, 312) + short(b"NO_ROUTE") + short(b"") + short(b"nobody")),
    frame(1, struct.pack(">HHH", 10, 50, 320) + short(b"CONNECTION_FORCED") + bytes(4), 0),
    frame(8, b"", 0),
    b"AMQP\0\0\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n",
]
for one in frames:
    seed("amqp_frames", b"\0" + one)
    seed("amqp_frames", b"\1" + one)
seed("amqp_frames", b"\0" + b"".join(frames[:13]))

for text in (
    "amqp://guest:guest@localhost:5672/", "amqps://u@[::1]:5671/%2F", "amqp://h", "AMQP://a%40b:p%3aq@h:1/v%2fh", "amqp://u:p%zz@h/",
    "amqp://u:p/q@h/", "amqp://u:p#q@h", "u:p@h:1", "amqp://h/a/b", "amqp://h/v?heartbeat=5", "amqp://h:99999", "amqp://[::1/", "secret-word\0",
):
    seed("amqp_url", text.encode())

for text in (
    "bootstrap.servers=a:9092\nlinger.ms=5\n# a comment\n! another\n", "client.id : two words \\\n  go on\n", "acks all\r\nsasl.password=hunter22-longer\r\n",
    "client.id=\\u00e9\\ud83d\\ude00\\t\\q\n", "linger.m=5", "linger.ms=five", "batch.size=-1", "no separator", "=x", "client.id=\\uZZ", "\ufeffclient.id=x\\",
    "amqp.url=amqp://u:p@h/\namqp.heartbeat.ms=1.5\n", "security.protocol=SASL_SSL", "compression.type=zstd\ncompression.codec=lz4\n",
):
    seed("properties", text.encode())

# These three are read as structures: any bytes are one.
for target in ("round_trip", "kafka_protocol", "ack_tracker"):
    for n in range(8):
        data = b"".join(hashlib.sha256(bytes([n, i])).digest() for i in range(1 + n * 4))
        seed(target, data)
    seed(target, bytes(400))
    seed(target, bytes(range(256)) * 2)

# Members of a group: how many bytes each has, then a subscription of versions 0 to 4; and an assignment alone.
def text(value):
    return struct.pack(">h", len(value)) + value


def places(*topics):
    return struct.pack(">i", len(topics)) + b"".join(
        text(name) + struct.pack(f">i{len(p)}i", len(p), *p) for name, *p in topics
    )


def subscription(version, topics, user_data, owned, generation, rack):
    out = struct.pack(">hi", version, len(topics)) + b"".join(map(text, topics))
    out += struct.pack(">i", -1) if user_data is None else struct.pack(">i", len(user_data)) + user_data
    out += owned * (version >= 1) + struct.pack(">i", generation) * (version >= 2)
    return out + text(rack) * (version >= 3) + b"more" * (version >= 4)


had = places((b"t", 0, 1, 2), (b"topic", 0))
for assignor in range(4):
    members = [subscription(v, [b"t", b"topic"], None, had, v - 1, b"rack-1") for v in range(5)]
    members += [subscription(3, [b"t"], had + struct.pack(">i", 4), places(), 4, b"rack-0")]
    members += [subscription(3, [b"topic"], struct.pack(">i", 2), places((b"topic", 1, 2)), -1, b"")]
    for some in (members, members[3:4], members[5:6] * 2, members[6:]):
        seed("group_protocol", bytes([assignor]) + b"".join(bytes([len(m)]) + m for m in some))
assignment = struct.pack(">h", 3) + had + struct.pack(">i", -1)
seed("group_protocol", bytes([0, len(assignment)]) + assignment)

# Clients of the embedded RabbitMQ: a handshake, then declares, a consumer, publishes and acknowledgements on two connections.
def call(client, class_id, method, arguments, kind=3):
    payload = struct.pack(">HH", class_id, method) + arguments
    return bytes([client | kind << 2, len(payload)]) + payload


def content(client, queue, properties, text):
    head = struct.pack(">HHQ", 60, 0, len(text)) + properties
    publish = call(client, 60, 40, b"\0\0" + short(b"") + short(queue) + b"\1")
    return publish + bytes([client | 5 << 2, len(head)]) + head + bytes([client | 5 << 2 | 1 << 5, len(text)]) + text


hello = bytes([0 | 2 << 2, 0, 1 | 2 << 2, 0])
declare = call(0, 50, 10, b"\0\0" + short(b"q") + b"\2" + table(field(b"x-max-length", b"I", b"\0\0\0\5")))
exchange = call(0, 40, 10, b"\0\0" + short(b"x") + short(b"headers") + b"\2" + table())
bind = call(0, 50, 20, b"\0\0" + short(b"q") + short(b"x") + short(b"k") + b"\0" + table(field(b"a", b"S", long(b"b"))))
consume = call(1, 60, 20, b"\0\0" + short(b"q") + short(b"t") + b"\0" + table())
prefetch = call(1, 60, 10, struct.pack(">IHB", 0, 2, 0))
confirm = call(0, 85, 10, b"\0")
persistent = struct.pack(">H", 0x1000) + b"\2"
expiring = struct.pack(">H", 0x0100) + short(b"100")
publishes = b"".join(content(0, b"q", p, t) for p, t in ((b"\0\0", b"one"), (persistent, b"two"), (expiring, b"three")))
ack = call(1, 60, 80, struct.pack(">QB", 2, 1))
nack = call(1, 60, 120, struct.pack(">QB", 0, 3))
wait = bytes([0 | 1 << 2, 200])
transaction = call(0, 90, 10, b"") + publishes + call(0, 90, 20, b"") + call(0, 90, 30, b"")
for story in (
    hello + declare + confirm + publishes + prefetch + consume + ack + nack + wait,
    hello + declare + exchange + bind + publishes + consume + call(0, 50, 40, b"\0\0" + short(b"q") + b"\0"),
    hello + declare + transaction + call(0, 60, 70, b"\0\0" + short(b"q") + b"\0") + bytes([1, 0]),
    bytes([6 << 2, 8]) + b"AMQP\0\0\x09\x01" + bytes([6 << 2, 7, 1, 0, 0, 255, 255, 255, 255]),
):
    seed("embedded_amqp", story)

print(sum(1 for f in CORPUS.rglob("*") if f.is_file()), "seeds,", sum(f.stat().st_size for f in CORPUS.rglob("*") if f.is_file()), "bytes")
