"""aio-pika: the operations of tests/foreign_rabbit.rs."""
import asyncio
import aio_pika
from aio_pika.exceptions import AMQPError, DeliveryError, PublishError
from ops import serve, text

LIMIT = 30


def error(e):
    if isinstance(e, asyncio.IncompleteReadError) or not isinstance(e, AMQPError):
        return None
    code = {"ChannelNotFoundEntity": 404, "ChannelPreconditionFailed": 406, "ChannelLockedResource": 405, "ChannelAccessRefused": 403,
        "ProbableAuthenticationError": 403, "ConnectionClosed": None}.get(type(e).__name__)
    return [code, str(e.args[-1])] if code else [e.args[0], str(e.args[1])] if len(e.args) > 1 else None


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value if isinstance(value, (int, float, bool, type(None))) else str(text(value))


def message(m):
    expiration = m.expiration  # seconds here, milliseconds on the wire
    return {"body": text(m.body), "exchange": m.exchange, "key": m.routing_key, "redelivered": m.redelivered, "tag": m.delivery_tag,
        "headers": plain(dict(m.headers)), "priority": m.priority, "message_id": m.message_id,
        "expiration": None if expiration is None else str(round(float(expiration) * 1000))}


class Ops:
    def __init__(self):
        self.connections, self.channels, self.deliveries, self.messages = {}, {}, {}, {}

    async def connect(self, on, url, heartbeat=None):
        self.connections[on] = connection = await aio_pika.connect(url if heartbeat is None else f"{url}?heartbeat={heartbeat}")
        await self.channel(on)
        return {"heartbeat": connection.transport.connection.connection_tune.heartbeat}

    async def channel(self, on):
        self.channels[on] = await self.connections[on].channel(publisher_confirms=True, on_return_raises=True)
        self.deliveries[on], self.messages[on] = asyncio.Queue(), {}

    async def exchange(self, on, name, type="direct", passive=False, arguments=None):
        await self.channels[on].declare_exchange(name, type, passive=passive, auto_delete=True, arguments=arguments)

    async def queue(self, on, name, passive=False, durable=False, exclusive=False, arguments=None):
        queue = await self.channels[on].declare_queue(name or None, passive=passive, durable=durable, exclusive=exclusive, arguments=arguments)
        ok = queue.declaration_result
        return {"name": ok.queue, "messages": ok.message_count, "consumers": ok.consumer_count}

    async def of(self, on, queue):
        return await self.channels[on].get_queue(queue, ensure=False)

    async def bind(self, on, queue, exchange, key="", arguments=None):
        await (await self.of(on, queue)).bind(exchange, key, arguments=arguments)

    async def delete(self, on, queue):
        return (await self.channels[on].queue_delete(queue)).message_count

    async def purge(self, on, queue):
        return (await (await self.of(on, queue)).purge()).message_count

    async def publish(self, on, key, body, exchange="", mandatory=False, properties={}):
        channel, properties = self.channels[on], dict(properties)
        if "expiration" in properties:
            properties["expiration"] = int(properties["expiration"]) / 1000
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        try:
            await target.publish(aio_pika.Message(body.encode(), **properties), key, mandatory=mandatory)
        except PublishError as e:
            m = e.message
            return {"returned": [m.delivery.reply_code, m.delivery.reply_text], "body": text(m.body), "exchange": m.delivery.exchange,
                "key": m.delivery.routing_key}
        except DeliveryError:
            return "nack"
        return "ack"

    def seen(self, on, m):
        self.messages[on][m.delivery_tag] = m
        return message(m)

    async def get(self, on, queue, no_ack=False):
        m = await (await self.of(on, queue)).get(no_ack=no_ack, fail=False)
        return m and self.seen(on, m) | {"left": m.message_count}

    async def qos(self, on, count):
        await self.channels[on].set_qos(prefetch_count=count)

    async def consume(self, on, queue, no_ack=False, exclusive=False):
        return await (await self.of(on, queue)).consume(self.deliveries[on].put, no_ack=no_ack, exclusive=exclusive)

    async def next(self, on, wait):
        try:
            return self.seen(on, await asyncio.wait_for(self.deliveries[on].get(), wait))
        except asyncio.TimeoutError:
            return None

    async def ack(self, on, tag, multiple=False):
        await self.messages[on][tag].ack(multiple)

    async def nack(self, on, tag, multiple=False, requeue=True):
        await self.messages[on][tag].nack(multiple, requeue)

    async def reject(self, on, tag, requeue=True):
        await self.messages[on][tag].reject(requeue)

    async def recover(self, on):
        await (await self.channels[on].get_underlay_channel()).basic_recover(requeue=True)

    async def cancel(self, on, tag):
        await (await self.channels[on].get_underlay_channel()).basic_cancel(tag)

    async def close(self, on):
        await self.connections.pop(on).close()


serve(Ops(), error)
