"""confluent-kafka (librdkafka): the operations of tests/foreign_kafka.rs."""
import time
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType
from ops import data, serve, text

LIMIT = 30


def error(e):
    if not isinstance(e, KafkaException):
        return None
    return {KafkaError._AUTHENTICATION: 58, KafkaError._FENCED: 90}.get(e.args[0].code(), e.args[0].code())


def one(futures):
    return list(futures.values())[0].result(LIMIT)


class Ops:
    def __init__(self):
        self.producers, self.consumers = {}, {}

    def connect(self, bootstrap, sasl=None):
        self.refused = None
        self.settings = {"bootstrap.servers": bootstrap, "error_cb": self.failed}
        if sasl:
            self.settings |= {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": sasl["mechanism"],
                "sasl.username": sasl["user"], "sasl.password": sasl["password"]}
        self.admin = AdminClient(self.settings)

    def failed(self, error):
        if error.code() == KafkaError._AUTHENTICATION:
            self.refused = error

    def describe_cluster(self):
        cluster = self.admin.describe_cluster()
        for _ in range(LIMIT * 10):
            self.admin.poll(0.1)
            if self.refused:
                raise KafkaException(self.refused)
            if cluster.done():
                found = cluster.result()
                return {"brokers": [n.id for n in found.nodes], "controller": found.controller.id, "id": found.cluster_id}

    def create_topic(self, topic, partitions, config={}):
        one(self.admin.create_topics([NewTopic(topic, partitions, 1, config=config)]))

    def delete_topic(self, topic):
        one(self.admin.delete_topics([topic]))

    def describe_topic(self, topic):
        return len(one(self.admin.describe_topics(TopicCollection([topic]))).partitions)

    def create_partitions(self, topic, count):
        one(self.admin.create_partitions([NewPartitions(topic, count)]))

    def describe_config(self, topic, name):
        entry = one(self.admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))[name]
        return [entry.value, entry.is_default]

    def alter_config(self, topic, name, value):
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        one(self.admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]))

    def list_offsets(self, topic, partition, at, committed=False):
        spec = {"earliest": OffsetSpec.earliest(), "latest": OffsetSpec.latest(), "max_timestamp": OffsetSpec.max_timestamp()}.get(at)
        isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        return one(self.admin.list_offsets({TopicPartition(topic, partition): spec or OffsetSpec.for_timestamp(at)}, isolation_level=isolation)).offset

    def delete_records(self, topic, partition, before):
        return one(self.admin.delete_records([TopicPartition(topic, partition, before)])).low_watermark

    def list_groups(self):
        return [g.group_id for g in self.admin.list_consumer_groups().result(LIMIT).valid]

    def describe_group(self, group):
        found = one(self.admin.describe_consumer_groups([group]))
        return {"state": found.state.name.title(), "members": len(found.members)}

    def group_offsets(self, group):
        found = one(self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])).topic_partitions
        return [[p.topic, p.partition, p.offset] for p in sorted(found)]

    def delete_group(self, group):
        one(self.admin.delete_consumer_groups([group]))

    def producer(self, name, codec="none", idempotent=False, transaction=None):
        settings = self.settings | {"compression.type": codec, "enable.idempotence": idempotent, "linger.ms": 5}
        if transaction:
            settings |= {"transactional.id": transaction, "transaction.timeout.ms": 30000}
        self.producers[name] = Producer(settings)
        if transaction:
            self.producers[name].init_transactions(LIMIT)

    def processor(self, name, group, topic, transaction):
        self.consumer(name, [topic], group, committed=True)
        self.producer(name, transaction=transaction, idempotent=True)

    def begin(self, name):
        self.producers[name].begin_transaction()

    def commit(self, name):
        producer, consumer = self.producers[name], self.consumers.get(name)
        if consumer:
            producer.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), LIMIT)
        producer.commit_transaction(LIMIT)

    def abort(self, name):
        self.producers[name].abort_transaction(LIMIT)

    def produce(self, name, topic, records):
        producer, told = self.producers[name], []
        for n, r in enumerate(records):
            producer.produce(topic, data(r["value"]), data(r["key"]), partition=r.get("partition", 0), timestamp=r.get("timestamp", 0),
                headers=[(k, data(v)) for k, v in r.get("headers", [])], on_delivery=lambda e, m, n=n: told.append((n, e, m)))
        left = producer.flush(LIMIT)
        assert not left, f"{left} not delivered"
        for _, e, _ in told:
            if e:
                raise KafkaException(e)
        return [[m.partition(), m.offset()] for _, _, m in sorted(told, key=lambda t: t[0])]

    def consumer(self, name, topics, group=None, protocol="classic", committed=False):
        settings = self.settings | {"group.id": group or "none", "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed" if committed else "read_uncommitted", "group.protocol": protocol}
        if protocol == "classic":
            settings |= {"session.timeout.ms": 6000, "heartbeat.interval.ms": 200}
        self.consumers[name] = Consumer(settings)
        if group:
            self.consumers[name].subscribe(topics)
        else:
            self.consumers[name].assign([TopicPartition(t, 0, 0) for t in topics])

    def poll(self, name):
        consumer, records = self.consumers[name], []
        wait = 0.1
        while (m := consumer.poll(wait)) is not None:
            wait = 0
            if m.error():
                raise KafkaException(m.error())
            records.append({"topic": m.topic(), "partition": m.partition(), "offset": m.offset(), "timestamp": m.timestamp()[1], "key": text(m.key()), "value": text(m.value()),
                "headers": [[k, text(v)] for k, v in m.headers() or []]})
        return {"assigned": sorted(p.partition for p in consumer.assignment()), "records": records}

    def commit_offsets(self, name):
        consumer = self.consumers[name]
        consumer.commit(offsets=[p for p in consumer.position(consumer.assignment()) if p.offset >= 0], asynchronous=False)

    def close(self, name):
        if consumer := self.consumers.pop(name, None):
            consumer.close()
        self.producers.pop(name, None)


serve(Ops(), error)
