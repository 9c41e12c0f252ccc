"""The librdkafka part of the vectors: produce.py (plain|idempotent) ADDRESS TOPIC CODEC RECORDS.json"""

import json
import sys

from confluent_kafka import Producer, libversion, version

how, address, topic, codec, path = sys.argv[1:]


def data(text):
    return None if text is None else bytes.fromhex(text)


failed = []
producer = Producer({
    "bootstrap.servers": address,
    "compression.type": codec,
    "enable.idempotence": how == "idempotent",
    "linger.ms": 200,
})
records = json.load(open(path))
half = len(records) // 2
for part in (records[:half], records[half:]):  # two batches
    for r in part:
        value = data(r["value"])
        producer.produce(
            topic,
            partition=0,
            key=data(r["key"]),
            value=value if value is None else value * r.get("repeat", 1),
            timestamp=r["timestamp"],
            headers=[(name, data(text)) for name, text in r["headers"]],
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    if producer.flush(60) or failed:
        sys.exit(f"produce.py: not delivered: {failed}")
print(f"confluent-kafka {version()[0]}, librdkafka {libversion()[0]}" if isinstance(version(), tuple)
      else f"confluent-kafka {version()}, librdkafka {libversion()[0]}")
