"""kafka_read.py TOPIC COUNT: prints COUNT records of TOPIC from the beginning, as `muslin consume -J` does, read by aiokafka."""
import asyncio, base64, json, os, sys
from aiokafka import AIOKafkaConsumer


def text(data):
    return None if data is None else data.decode()


async def main(topic, count):
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=os.environ["MUSLIN_KAFKA"], auto_offset_reset="earliest")
    await consumer.start()
    try:
        for _ in range(count):
            r = await asyncio.wait_for(consumer.getone(), 30)
            print(json.dumps({
                "topic": r.topic, "partition": r.partition, "offset": r.offset, "timestamp": r.timestamp,
                "key": text(r.key), "value": text(r.value), "headers": [[n, text(v)] for n, v in r.headers],
            }))
    finally:
        await consumer.stop()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
