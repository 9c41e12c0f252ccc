"""Loads a Kafka with librdkafka: `kafka_load.py produce|consume BOOTSTRAP TOPIC COUNT SIZE CODEC`.

Prints one JSON object: how many records, and the seconds they took. Produce: acks=all, idempotent, linger 5 ms, each
delivery report looked at. Consume: from the beginning, without a group, each record's value looked at.
"""
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4


def produce(bootstrap, topic, count, size, codec):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        made.result(30)
    time.sleep(0.5)
    producer = Producer({
        "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 5,
        "batch.size": 65536, "compression.type": codec, "queue.buffering.max.messages": 500_000,
    })
    value = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    failed = delivered = 0

    def report(error, _message):
        nonlocal failed, delivered
        if error is None:
            delivered += 1
        else:
            failed += 1

    start = time.perf_counter()
    for n in range(count):
        while True:
            try:
                producer.produce(topic, value, on_delivery=report)
                break
            except BufferError:
                producer.poll(0.05)
        if n % 1000 == 0:
            producer.poll(0)
    producer.flush(300)
    seconds = time.perf_counter() - start
    if failed or delivered != count:
        sys.exit(f"{delivered} of {count} delivered, {failed} failed")
    return seconds


def consume(bootstrap, topic, count, size, _codec):
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False,
        "queued.max.messages.kbytes": 65536, "check.crcs": False,
    })
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    start = time.perf_counter()
    end = start + 300
    seen = 0
    while seen < count:
        messages = consumer.consume(10_000, 1.0)
        for message in messages:
            if message.error():
                sys.exit(str(message.error()))
            if len(message.value()) != size:
                sys.exit(f"a value of {len(message.value())} bytes")
        seen += len(messages)
        if time.perf_counter() > end:
            sys.exit(f"{seen} of {count} read in 300 s")
    seconds = time.perf_counter() - start
    consumer.close()
    return seconds


def main():
    op, bootstrap, topic, count, size, codec = sys.argv[1:]
    seconds = {"produce": produce, "consume": consume}[op](bootstrap, topic, int(count), int(size), codec)
    print(json.dumps({"count": int(count), "seconds": seconds}))


main()
