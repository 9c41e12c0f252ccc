"""aiokafka: the operations of tests/foreign_kafka.rs. It has no KIP-848, and its admin client no ListOffsets and no DeleteGroups."""
import asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import BrokerResponseError, KafkaConnectionError, ProducerFenced, for_code
from ops import data, serve, text

LIMIT = 30
def error(e):
    if isinstance(e, KafkaConnectionError):
        return "connection"
    if isinstance(e, ProducerFenced):
        return 90
    return e.errno if isinstance(e, BrokerResponseError) and e.errno >= 0 else None


def check(code):
    if code:
        raise for_code(code)


class Ops:
    def __init__(self):
        self.producers, self.consumers, self.groups = {}, {}, {}

    async def connect(self, bootstrap, sasl=None):
        self.settings = {"bootstrap_servers": bootstrap}
        if sasl:
            self.settings |= {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": sasl["mechanism"],
                "sasl_plain_username": sasl["user"], "sasl_plain_password": sasl["password"]}
        self.admin = AIOKafkaAdminClient(**self.settings)
        await self.admin.start()

    async def describe_cluster(self):
        found = await self.admin.describe_cluster()
        return {"brokers": [n["node_id"] for n in found["brokers"]], "controller": found["controller_id"], "id": found["cluster_id"]}

    async def create_topic(self, topic, partitions, config={}):
        answer = await self.admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
        check(answer.topic_errors[0][1])

    async def delete_topic(self, topic):
        check((await self.admin.delete_topics([topic])).topic_error_codes[0][1])

    async def describe_topic(self, topic):
        found = (await self.admin.describe_topics([topic]))[0]
        check(found["error_code"])
        return len(found["partitions"])

    async def create_partitions(self, topic, count):
        check((await self.admin.create_partitions({topic: NewPartitions(count)})).topic_errors[0][1])

    async def describe_config(self, topic, name):
        answer = (await self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))[0]
        code, _, _, _, entries = answer.resources[0][:5]
        check(code)
        entry = next(e for e in entries if e[0] == name)
        return [entry[1], entry[3] == 5]  # a source: 5 is DEFAULT_CONFIG

    async def alter_config(self, topic, name, value):
        answer = (await self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={name: value})]))[0]
        check(answer.resources[0][0])

    async def delete_records(self, topic, partition, before):
        return (await self.admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)}))[TopicPartition(topic, partition)]

    async def list_offsets(self, topic, partition, at, committed=False):
        p = TopicPartition(topic, partition)
        consumer = AIOKafkaConsumer(**self.settings, isolation_level="read_committed" if committed else "read_uncommitted")
        await consumer.start()
        try:
            if at == "earliest":
                return (await consumer.beginning_offsets([p]))[p]
            if at == "latest":
                return (await consumer.end_offsets([p]))[p]
            found = (await consumer.offsets_for_times({p: at}))[p]
            return found.offset if found else -1
        finally:
            await consumer.stop()

    async def list_groups(self):
        return [g[0] for g in await self.admin.list_consumer_groups()]

    async def describe_group(self, group):
        code, _, state, _, _, members = (await self.admin.describe_consumer_groups([group]))[0].groups[0][:6]
        check(code)
        return {"state": state, "members": len(members)}

    async def group_offsets(self, group):
        found = await self.admin.list_consumer_group_offsets(group)
        return sorted([p.topic, p.partition, o.offset] for p, o in found.items())

    async def producer(self, name, codec="none", idempotent=False, transaction=None):
        self.producers[name] = producer = AIOKafkaProducer(**self.settings, compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent, transactional_id=transaction, transaction_timeout_ms=30000, linger_ms=5)
        await producer.start()

    async def processor(self, name, group, topic, transaction):
        await self.consumer(name, [topic], group, committed=True)
        await self.producer(name, transaction=transaction, idempotent=True)

    async def begin(self, name):
        await self.producers[name].begin_transaction()

    async def commit(self, name):
        producer, consumer = self.producers[name], self.consumers.get(name)
        if consumer:
            offsets = {p: await consumer.position(p) for p in consumer.assignment()}
            await producer.send_offsets_to_transaction(offsets, self.groups[name])
        await producer.commit_transaction()

    async def abort(self, name):
        await self.producers[name].abort_transaction()

    async def produce(self, name, topic, records):
        sent = [await self.producers[name].send(topic, data(r["value"]), data(r["key"]), partition=r.get("partition", 0),
            timestamp_ms=r.get("timestamp"), headers=[(k, data(v)) for k, v in r.get("headers", [])]) for r in records]
        return [[m.partition, m.offset] for m in await asyncio.wait_for(asyncio.gather(*sent), LIMIT)]

    async def consumer(self, name, topics, group=None, protocol="classic", committed=False):
        assert protocol == "classic"
        self.groups[name] = group
        self.consumers[name] = consumer = AIOKafkaConsumer(*(topics if group else []), **self.settings, group_id=group,
            enable_auto_commit=False, auto_offset_reset="earliest", isolation_level="read_committed" if committed else "read_uncommitted",
            session_timeout_ms=6000, heartbeat_interval_ms=200, metadata_max_age_ms=1000)
        await consumer.start()
        if not group:
            consumer.assign([TopicPartition(t, 0) for t in topics])

    async def poll(self, name):
        consumer = self.consumers[name]
        found = await consumer.getmany(timeout_ms=100)
        records = [{"topic": r.topic, "partition": r.partition, "offset": r.offset, "timestamp": r.timestamp, "key": text(r.key), "value": text(r.value),
            "headers": [[k, text(v)] for k, v in r.headers]} for batch in found.values() for r in batch]
        return {"assigned": sorted(p.partition for p in consumer.assignment()), "records": records}

    async def commit_offsets(self, name):
        await self.consumers[name].commit()

    async def close(self, name):
        for member in (self.consumers.pop(name, None), self.producers.pop(name, None)):
            if member:
                await member.stop()


serve(Ops(), error)
