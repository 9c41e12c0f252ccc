import com.sun.management.OperatingSystemMXBean;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The Java client as a peer of `muslin bench produce|latency|consume`: outcomes in a callback. The clock starts after some records,
 * so that its compilers have seen the work: what a program costs that has run for a while. `pool` prints the records.
 */
public final class Peer {
  static final int POOL = 10_000;
  static final String[] STATES = {"created", "paid", "packed", "shipped", "delivered", "returned"};
  static final String[] WORDS = {
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll",
    "larch", "marsh", "north", "ocean", "plain",
  };

  record Event(byte[] key, byte[] value) {}

  /** The records of `muslin bench` (events.rs); scripts/bench-producer.sh checks that they are the same. */
  static Event[] pool(int size) {
    Event[] events = new Event[POOL];
    for (int n = 0; n < POOL; n++) {
      String key = String.format(Locale.ROOT, "order-%05d", n);
      String head = String.format(Locale.ROOT, "{\"id\":%d,\"is\":\"%s\",\"sum\":%d.%02d,\"t\":\"",
          POOL + n, STATES[n % STATES.length], 10 + n % 90, n * 7 % 100);
      int room = Math.max(size - key.length() - head.length() - 2, 0);
      StringBuilder text = new StringBuilder();
      for (long word = n; text.length() < room; ) {
        word = word * 31 + 7;
        text.append(WORDS[(int) Long.remainderUnsigned(Long.divideUnsigned(word, 16), WORDS.length)]).append(' ');
      }
      text.setLength(room);
      events[n] = new Event(key.getBytes(StandardCharsets.UTF_8),
          (head + text + "\"}").getBytes(StandardCharsets.UTF_8));
    }
    return events;
  }

  static long peakKb() throws Exception {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("VmHWM:")) {
        return Long.parseLong(line.replaceAll("[^0-9]", ""));
      }
    }
    return 0;
  }

  /**
   * Reads all as a group that nobody was in before, measured from its assignment on, and prints the report if it is the `last` to read.
   * What is not named is at its default: the classic protocol, range and cooperative sticky, commits every 5 s.
   */
  static void consume(Map<String, String> flags, int count, int size, int warm, boolean last) throws Exception {
    Properties config = new Properties();
    config.put("bootstrap.servers", flags.get("--kafka"));
    config.put("group.id", "bench-" + ProcessHandle.current().pid() + "-" + System.currentTimeMillis());
    config.put("auto.offset.reset", "earliest");
    var system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    long[] start = new long[2];
    var assigned = new ConsumerRebalanceListener() {
      @Override
      public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        if (start[1] == 0 && !partitions.isEmpty()) {
          start[0] = system.getProcessCpuTime();
          start[1] = System.nanoTime();
        }
      }

      @Override
      public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}
    };
    long read = 0, check = 0;
    try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
      consumer.subscribe(List.of(flags.get("--topic")), assigned);
      while (read < count) {
        ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofSeconds(60));
        if (records.isEmpty()) {
          throw new IllegalStateException("no record comes");
        }
        for (ConsumerRecord<byte[], byte[]> r : records) {
          read++;
          check += r.key().length + r.value().length;
        }
      }
      double wall = (System.nanoTime() - start[1]) / 1e9, used = (system.getProcessCpuTime() - start[0]) / 1e9;
      if (last) {
        System.out.printf(Locale.ROOT,
            "{\"peer\":\"java\",\"op\":\"consume\",\"codec\":\"%s\",\"count\":%d,\"warm\":%d,\"size\":%d,\"wall_s\":%.3f,\"cpu_s\":%.3f,"
                + "\"max_rss_kb\":%d,\"msgs_per_s\":%.0f,\"cpu_us_per_msg\":%.3f,\"check\":%d}%n",
            flags.get("--codec"), read, warm, size, wall, used, peakKb(), read / wall, used * 1e6 / read, check);
      }
    }
  }

  public static void main(String[] words) throws Exception {
    Map<String, String> flags = new HashMap<>(Map.of("--size", "100", "--count", "10000", "--codec", "none"));
    for (int i = 1; i + 1 < words.length; i += 2) {
      flags.put(words[i], words[i + 1]);
    }
    String op = words[0], topic = flags.get("--topic"), codec = flags.get("--codec"), level = flags.get("--level");
    int count = Integer.parseInt(flags.get("--count")), size = Integer.parseInt(flags.get("--size"));
    Event[] pool = pool(size);
    if (op.equals("pool")) {
      PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
      for (Event e : pool) {
        out.print(new String(e.key, StandardCharsets.UTF_8) + " " + new String(e.value, StandardCharsets.UTF_8) + "\n");
      }
      out.flush();
      return;
    }
    if (op.equals("consume")) {
      for (int reads = 2; reads >= 0; reads--) {
        consume(flags, count, size, 2 * count, reads == 0);
      }
      return;
    }
    boolean awaited = op.equals("latency");
    Properties config = new Properties();
    config.put("bootstrap.servers", flags.get("--kafka"));
    config.put("acks", "all");
    config.put("enable.idempotence", "true");
    config.put("linger.ms", awaited ? "0" : "5");
    config.put("batch.size", "65536");
    config.put("compression.type", codec);
    if (level != null) {
      config.put("compression." + codec + ".level", level);
    }
    LongAdder sent = new LongAdder(), failed = new LongAdder();
    Callback report = (placed, e) -> {
      if (e == null) {
        sent.increment();
      } else {
        System.err.println(e);
        failed.increment();
      }
    };
    try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
      producer.partitionsFor(topic);
      int warm = Math.min(count, awaited ? 5_000 : 300_000);
      for (int n = 0; n < warm; n++) {
        Event e = pool[n % POOL];
        var future = producer.send(new ProducerRecord<>(topic, e.key, e.value), report);
        if (awaited) {
          future.get();
        }
      }
      producer.flush();
      sent.reset();
      long[] waits = new long[awaited ? count : 0];
      var system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
      long cpu = system.getProcessCpuTime(), began = System.nanoTime();
      for (int n = 0; n < count; n++) {
        Event e = pool[n % POOL];
        long start = System.nanoTime();
        var future = producer.send(new ProducerRecord<>(topic, e.key, e.value), report);
        if (awaited) {
          future.get();
          waits[n] = System.nanoTime() - start;
        }
      }
      producer.flush();
      double wall = (System.nanoTime() - began) / 1e9, used = (system.getProcessCpuTime() - cpu) / 1e9;
      StringBuilder out = new StringBuilder(String.format(Locale.ROOT,
          "{\"peer\":\"java\",\"op\":\"%s\",\"codec\":\"%s\",\"level\":%s,\"count\":%d,\"warm\":%d,\"size\":%d,\"wall_s\":%.3f,"
              + "\"cpu_s\":%.3f,\"max_rss_kb\":%d,\"msgs_per_s\":%.0f,\"cpu_us_per_msg\":%.3f",
          op, codec, level, sent.sum(), warm, size, wall, used, peakKb(), sent.sum() / wall,
          used * 1e6 / Math.max(sent.sum(), 1)));
      if (awaited) {
        Arrays.sort(waits);
        for (int thousandths : new int[] {500, 990, 999}) {
          long nanos = waits[Math.max((int) ((long) count * thousandths + 999) / 1000 - 1, 0)];
          String name = thousandths == 999 ? "p999" : "p" + thousandths / 10;
          out.append(String.format(Locale.ROOT, ",\"%s_us\":%d", name, (nanos + 500) / 1000));
        }
      }
      System.out.println(out.append(String.format(Locale.ROOT, ",\"failed\":%d}", failed.sum())));
      if (failed.sum() > 0 || sent.sum() < count) {
        System.exit(1);
      }
    }
  }
}
