import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java part of the vectors: java -cp 'KAFKA_LIBS/*' Produce.java (plain|idempotent|transact) ADDRESS TOPIC CODEC RECORDS.json */
public class Produce {
    public static void main(String[] args) throws Exception {
        String how = args[0], topic = args[2];
        Properties config = new Properties();
        config.put("bootstrap.servers", args[1]);
        config.put("compression.type", args[3]);
        config.put("linger.ms", "200");
        config.put("batch.size", "1048576");
        config.put("enable.idempotence", how.equals("plain") ? "false" : "true");
        if (how.equals("transact")) config.put("transactional.id", topic);
        List<ProducerRecord<byte[], byte[]>> records = load(args[4], topic);
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            if (how.equals("transact")) {
                // Records 0 to 2 committed, 3 and 4 aborted.
                producer.initTransactions();
                producer.beginTransaction();
                for (var record : records.subList(0, 3)) producer.send(record);
                producer.commitTransaction();
                producer.beginTransaction();
                for (var record : records.subList(3, 5)) producer.send(record);
                producer.flush();
                producer.abortTransaction();
                return;
            }
            // Two batches.
            int half = records.size() / 2;
            for (var record : records.subList(0, half)) producer.send(record);
            producer.flush();
            for (var record : records.subList(half, records.size())) producer.send(record);
            producer.flush();
        }
    }

    static List<ProducerRecord<byte[], byte[]>> load(String path, String topic) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (JsonNode node : new ObjectMapper().readTree(new File(path))) {
            List<Header> headers = new ArrayList<>();
            for (JsonNode header : node.get("headers")) {
                headers.add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
            }
            byte[] unit = bytes(node.get("value")), value = unit;
            int repeat = node.path("repeat").asInt(1);
            if (repeat > 1) {
                value = new byte[unit.length * repeat];
                for (int i = 0; i < repeat; i++) System.arraycopy(unit, 0, value, i * unit.length, unit.length);
            }
            records.add(new ProducerRecord<>(topic, 0, node.get("timestamp").asLong(), bytes(node.get("key")), value, headers));
        }
        return records;
    }

    static byte[] bytes(JsonNode node) {
        return node.isNull() ? null : HexFormat.of().parseHex(node.asText());
    }
}
