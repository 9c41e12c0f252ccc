"""kafka_write.py TOPIC CODEC: aiokafka writes to partition 0 of TOPIC the records that stdin lists, a JSON object a line
{"key", "value", "headers", "timestamp"}, compressed with CODEC (none, gzip, snappy, lz4, zstd)."""
import asyncio, json, os, sys
from aiokafka import AIOKafkaProducer


def data(text):
    return None if text is None else text.encode()


async def main(topic, codec):
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["MUSLIN_KAFKA"], compression_type=None if codec == "none" else codec, linger_ms=50)
    await producer.start()
    try:
        sent = []
        for line in sys.stdin:
            r = json.loads(line)
            sent.append(await producer.send(topic, value=data(r["value"]), key=data(r["key"]), partition=0,
                timestamp_ms=r["timestamp"], headers=[(n, data(v)) for n, v in r["headers"]]))
        await asyncio.wait_for(asyncio.gather(*sent), 30)
    finally:
        await producer.stop()


asyncio.run(main(sys.argv[1], sys.argv[2]))
