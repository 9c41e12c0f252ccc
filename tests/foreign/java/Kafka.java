import com.fasterxml.jackson.databind.JsonNode;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.Future;
import java.util.stream.StreamSupport;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.*;

/** The Java client: the operations of tests/foreign_kafka.rs. */
public class Kafka implements Ops {
    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();
    private final Map<String, KafkaConsumer<byte[], byte[]>> consumers = new HashMap<>();
    private Map<String, Object> settings;
    private Admin admin;

    public static void main(String[] args) throws Exception {
        Ops.serve(new Kafka(), e -> e instanceof ApiException && Errors.forException(e) != Errors.UNKNOWN_SERVER_ERROR ? Errors.forException(e).code() : null);
    }

    private static byte[] data(JsonNode text) throws Exception {
        return text == null || text.isNull() ? null : text.asText().getBytes("UTF-8");
    }

    private static String text(byte[] data) throws Exception {
        return data == null ? null : new String(data, "UTF-8");
    }

    private Map<String, Object> with(Object... more) {
        Map<String, Object> all = new HashMap<>(settings);
        for (int i = 0; i < more.length; i += 2) all.put((String) more[i], more[i + 1]);
        return all;
    }

    private void producer(String name, JsonNode ask) {
        Map<String, Object> all = with("compression.type", ask.path("codec").asText("none"), "linger.ms", 5,
            "enable.idempotence", ask.path("idempotent").asBoolean() || ask.has("transaction"));
        if (ask.has("transaction")) {
            all.put("transactional.id", ask.get("transaction").asText());
            all.put("transaction.timeout.ms", 30000);
        }
        producers.put(name, new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer()));
        if (ask.has("transaction")) producers.get(name).initTransactions();
    }

    private void consumer(String name, JsonNode ask, boolean committed, List<String> topics) {
        String protocol = ask.path("protocol").asText("classic");
        Map<String, Object> all = with("enable.auto.commit", false, "auto.offset.reset", "earliest", "group.protocol", protocol,
            "isolation.level", committed ? "read_committed" : "read_uncommitted", "fetch.max.wait.ms", 100);
        if (ask.has("group")) all.put("group.id", ask.get("group").asText());
        if (protocol.equals("classic")) all.putAll(Map.of("session.timeout.ms", 6000, "heartbeat.interval.ms", 200));
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumers.put(name, consumer);
        if (ask.has("group")) consumer.subscribe(topics);
        else {
            consumer.assign(topics.stream().map(t -> new TopicPartition(t, 0)).toList());
            consumer.seekToBeginning(consumer.assignment());
        }
    }

    private static List<String> strings(JsonNode array) {
        return StreamSupport.stream(array.spliterator(), false).map(JsonNode::asText).toList();
    }

    public Object perform(String op, JsonNode ask) throws Exception {
        String topic = ask.path("topic").asText(), name = ask.path("name").asText(), group = ask.path("group").asText();
        TopicPartition partition = new TopicPartition(topic, ask.path("partition").asInt());
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        KafkaProducer<byte[], byte[]> producer = producers.get(name);
        KafkaConsumer<byte[], byte[]> consumer = consumers.get(name);
        switch (op) {
            case "connect": {
                settings = new HashMap<>(Map.of("bootstrap.servers", ask.get("bootstrap").asText(), "default.api.timeout.ms", 30000));
                JsonNode sasl = ask.get("sasl");
                if (sasl != null) {
                    String mechanism = sasl.get("mechanism").asText(), module = mechanism.equals("PLAIN") ? "plain.Plain" : "scram.Scram";
                    settings.putAll(Map.of("security.protocol", "SASL_PLAINTEXT", "sasl.mechanism", mechanism, "sasl.jaas.config",
                        "org.apache.kafka.common.security." + module + "LoginModule required username=\"" + sasl.get("user").asText()
                        + "\" password=\"" + sasl.get("password").asText() + "\";"));
                }
                if (admin != null) admin.close(Duration.ZERO);
                admin = Admin.create(settings);
                return null;
            }
            case "describe_cluster": {
                DescribeClusterResult found = admin.describeCluster();
                return Map.of("brokers", found.nodes().get().stream().map(Node::id).toList(), "controller", found.controller().get().id(),
                    "id", found.clusterId().get());
            }
            case "create_topic": {
                Map<String, String> configs = new HashMap<>();
                ask.path("config").fields().forEachRemaining(e -> configs.put(e.getKey(), e.getValue().asText()));
                return admin.createTopics(List.of(new NewTopic(topic, ask.get("partitions").asInt(), (short) 1).configs(configs))).all().get();
            }
            case "delete_topic": return admin.deleteTopics(List.of(topic)).all().get();
            case "describe_topic": return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
            case "create_partitions":
                return admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(ask.get("count").asInt()))).all().get();
            case "describe_config": {
                ConfigEntry entry = admin.describeConfigs(List.of(resource)).all().get().get(resource).get(name);
                return List.of(entry.value(), entry.isDefault());
            }
            case "alter_config": {
                AlterConfigOp set = new AlterConfigOp(new ConfigEntry(name, ask.get("value").asText()), AlterConfigOp.OpType.SET);
                return admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
            }
            case "list_offsets": {
                String at = ask.get("at").asText();
                OffsetSpec spec = at.equals("earliest") ? OffsetSpec.earliest() : at.equals("latest") ? OffsetSpec.latest()
                    : OffsetSpec.forTimestamp(Long.parseLong(at));
                IsolationLevel isolation = ask.path("committed").asBoolean() ? IsolationLevel.READ_COMMITTED : IsolationLevel.READ_UNCOMMITTED;
                return admin.listOffsets(Map.of(partition, spec), new ListOffsetsOptions(isolation)).partitionResult(partition).get().offset();
            }
            case "delete_records":
                return admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(ask.get("before").asLong())))
                    .lowWatermarks().get(partition).get().lowWatermark();
            case "list_groups": return admin.listGroups().all().get().stream().map(GroupListing::groupId).toList();
            case "describe_group": {
                ConsumerGroupDescription found = admin.describeConsumerGroups(List.of(group)).describedGroups().get(group).get();
                return Map.of("state", found.groupState().toString(), "members", found.members().size());
            }
            case "group_offsets":
                return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().entrySet().stream()
                    .sorted(Comparator.comparing(e -> e.getKey().partition()))
                    .map(e -> List.of(e.getKey().topic(), e.getKey().partition(), e.getValue().offset())).toList();
            case "delete_group": return admin.deleteConsumerGroups(List.of(group)).all().get();
            case "producer": producer(name, ask); return null;
            case "processor":
                consumer(name, ask, true, List.of(topic));
                producer(name, ask);
                return null;
            case "begin": producer.beginTransaction(); return null;
            case "commit": {
                if (consumer != null) {
                    Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                    for (TopicPartition p : consumer.assignment()) offsets.put(p, new OffsetAndMetadata(consumer.position(p)));
                    producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                }
                producer.commitTransaction();
                return null;
            }
            case "abort": producer.abortTransaction(); return null;
            case "produce": {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (JsonNode r : ask.get("records")) {
                    Long timestamp = r.has("timestamp") ? r.get("timestamp").asLong() : null;
                    ProducerRecord<byte[], byte[]> record =
                        new ProducerRecord<>(topic, r.path("partition").asInt(), timestamp, data(r.get("key")), data(r.get("value")));
                    for (JsonNode h : r.path("headers")) record.headers().add(h.get(0).asText(), data(h.get(1)));
                    sent.add(producer.send(record));
                }
                List<List<Long>> written = new ArrayList<>();
                for (Future<RecordMetadata> f : sent) written.add(List.of((long) f.get().partition(), f.get().offset()));
                return written;
            }
            case "consumer": consumer(name, ask, ask.path("committed").asBoolean(), strings(ask.get("topics"))); return null;
            case "poll": {
                List<Map<String, Object>> records = new ArrayList<>();
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(100))) {
                    List<List<String>> headers = new ArrayList<>();
                    for (Header h : r.headers()) headers.add(Arrays.asList(h.key(), text(h.value())));
                    Map<String, Object> record = new HashMap<>(Map.of("topic", r.topic(), "partition", r.partition(), "offset", r.offset(),
                        "timestamp", r.timestamp(), "headers", headers));
                    record.put("key", text(r.key()));
                    record.put("value", text(r.value()));
                    records.add(record);
                }
                return Map.of("assigned", consumer.assignment().stream().map(TopicPartition::partition).toList(), "records", records);
            }
            case "commit_offsets": consumer.commitSync(); return null;
            case "close":
                if (consumers.remove(name) != null) consumer.close();
                if (producers.remove(name) != null) producer.close(Duration.ofSeconds(5));
                return null;
            default: throw new IllegalArgumentException(op);
        }
    }
}
