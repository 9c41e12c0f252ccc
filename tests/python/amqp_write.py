"""amqp_write.py QUEUE: aio-pika declares QUEUE the plain durable way and publishes each line of stdin, persistent, confirmed,
with message id m0, m1, ... and headers of several types."""
import asyncio, os, sys
import aio_pika


async def main(name):
    connection = await aio_pika.connect(os.environ["MUSLIN_AMQP"])
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue(name, durable=True)
        for n, line in enumerate(sys.stdin.read().splitlines()):
            await channel.default_exchange.publish(
                aio_pika.Message(line.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT, message_id=f"m{n}",
                    headers={"text": "ü", "number": -70000, "flag": True, "nothing": None, "list": [1, "two"], "table": {"a": 1.5}}),
                routing_key=name)


asyncio.run(main(sys.argv[1]))
