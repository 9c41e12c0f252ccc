"""pika: the operations of tests/foreign_rabbit.rs."""
import collections, re, time
import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker, NackError, ProbableAuthenticationError, UnroutableError
from ops import data, serve, text


def error(e):
    if isinstance(e, (ChannelClosedByBroker, ConnectionClosedByBroker)):
        return [e.reply_code, e.reply_text]
    if isinstance(e, ProbableAuthenticationError):
        code, reason = re.search(r"\((\d+)\) '(.*)'", str(e)).groups()
        return [int(code), reason]
    return None


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value if isinstance(value, (int, float, bool, type(None))) else str(text(value))


def message(method, properties, body):
    return {"body": text(body), "exchange": method.exchange, "key": method.routing_key, "redelivered": getattr(method, "redelivered", None),
        "tag": getattr(method, "delivery_tag", None), "headers": plain(properties.headers or {}), "priority": properties.priority,
        "expiration": properties.expiration, "message_id": properties.message_id}


class Ops:
    def __init__(self):
        self.connections, self.channels, self.deliveries = {}, {}, collections.defaultdict(collections.deque)

    def idle(self):
        for connection in self.connections.values():
            if connection.is_open:
                connection.process_data_events(0)

    def connect(self, on, url, heartbeat=None):
        parameters = pika.URLParameters(url)
        if heartbeat is not None:
            parameters.heartbeat = heartbeat
        self.connections[on] = connection = pika.BlockingConnection(parameters)
        self.channel(on)
        return {"heartbeat": connection._impl.params.heartbeat}

    def channel(self, on):
        self.channels[on] = channel = self.connections[on].channel()
        self.deliveries[on].clear()
        channel.confirm_delivery()

    def exchange(self, on, name, type="direct", passive=False, arguments=None):
        self.channels[on].exchange_declare(name, type, passive=passive, auto_delete=True, arguments=arguments)

    def queue(self, on, name, passive=False, durable=False, exclusive=False, arguments=None):
        ok = self.channels[on].queue_declare(name, passive=passive, durable=durable, exclusive=exclusive, arguments=arguments).method
        return {"name": ok.queue, "messages": ok.message_count, "consumers": ok.consumer_count}

    def bind(self, on, queue, exchange, key="", arguments=None):
        self.channels[on].queue_bind(queue, exchange, key, arguments)

    def delete(self, on, queue):
        return self.channels[on].queue_delete(queue).method.message_count

    def purge(self, on, queue):
        return self.channels[on].queue_purge(queue).method.message_count

    def publish(self, on, key, body, exchange="", mandatory=False, properties={}):
        try:
            self.channels[on].basic_publish(exchange, key, body.encode(), pika.BasicProperties(**properties), mandatory)
        except UnroutableError as e:
            method = e.messages[0].method
            return {"returned": [method.reply_code, method.reply_text], **{k: v for k, v in
                message(method, e.messages[0].properties, e.messages[0].body).items() if k in ("body", "exchange", "key")}}
        except NackError:
            return "nack"
        return "ack"

    def get(self, on, queue, no_ack=False):
        method, properties, body = self.channels[on].basic_get(queue, no_ack)
        return message(method, properties, body) | {"left": method.message_count} if method else None

    def qos(self, on, count):
        self.channels[on].basic_qos(prefetch_count=count)

    def consume(self, on, queue, no_ack=False, exclusive=False):
        return self.channels[on].basic_consume(queue, lambda _, *m: self.deliveries[on].append(message(*m)), no_ack, exclusive)

    def next(self, on, wait):
        end = time.monotonic() + wait
        while not self.deliveries[on] and (left := end - time.monotonic()) > 0:
            self.connections[on].process_data_events(min(left, 0.05))
        return self.deliveries[on].popleft() if self.deliveries[on] else None

    def ack(self, on, tag, multiple=False):
        self.channels[on].basic_ack(tag, multiple)
        self.connections[on].process_data_events(0)

    def nack(self, on, tag, multiple=False, requeue=True):
        self.channels[on].basic_nack(tag, multiple, requeue)
        self.connections[on].process_data_events(0)

    def reject(self, on, tag, requeue=True):
        self.channels[on].basic_reject(tag, requeue)
        self.connections[on].process_data_events(0)

    def recover(self, on):
        self.channels[on].basic_recover(True)

    def cancel(self, on, tag):
        self.channels[on].basic_cancel(tag)

    def close(self, on):
        self.connections.pop(on).close()


ops = Ops()
serve(ops, error, ops.idle)
