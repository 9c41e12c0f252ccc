"""amqp_read.py QUEUE COUNT: aio-pika declares QUEUE the plain durable way, takes COUNT messages, acknowledges them and prints
each as a JSON object."""
import asyncio, json, os, sys
import aio_pika


async def main(name, count):
    connection = await aio_pika.connect(os.environ["MUSLIN_AMQP"])
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, durable=True)
        for _ in range(count):
            message = await asyncio.wait_for(queue.get(timeout=30), 30)
            async with message.process():
                print(json.dumps({
                    "body": message.body.decode(), "delivery_mode": int(message.delivery_mode), "message_id": message.message_id,
                    "content_type": message.content_type, "headers": dict(message.headers), "routing_key": message.routing_key,
                    "exchange": message.exchange, "redelivered": message.redelivered,
                }))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
