import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.*;
import org.apache.kafka.clients.consumer.internals.AbstractStickyAssignor;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.*;

/** Assignors.java FILE [GROUPS]: rounds of groups that come and go, and what the Java client's assignors make of each. */
public class Assignors {
    static final String[] NAMES = {"t", "orders", "a.b", "Z_1", "payments-eu", "s", "topic-with-a-longer-name", "x9"};
    static final String[] RACKS = {"r0", "r1", "r2"};

    static class Topic {
        /** Of each partition, a bit for each rack that has a replica. */
        final List<Integer> racks = new ArrayList<>();
    }

    static class Member {
        String id, instance, rack;
        short version;
        Set<String> topics;
        ConsumerPartitionAssignor assignor;
        int generation = -1;
        List<TopicPartition> owned = new ArrayList<>();
    }

    static ConsumerPartitionAssignor assignor(int kind) {
        return switch (kind) {
            case 0 -> new RangeAssignor();
            case 1 -> new RoundRobinAssignor();
            case 2 -> new StickyAssignor();
            default -> new CooperativeStickyAssignor();
        };
    }

    public static void main(String[] args) throws Exception {
        int groups = args.length > 1 ? Integer.parseInt(args[1]) : 96, rounds = 0, left = 0;
        try (DataOutputStream out = new DataOutputStream(new FileOutputStream(args[0]))) {
            for (int n = 0; n < groups; n++) {
                // Sticky ones have the most to get wrong.
                Group group = new Group(new Random(n), new int[] {0, 1, 2, 3, 3, 2}[n % 6], n);
                try {
                    rounds += group.run(out);
                } catch (Broken | IllegalStateException | NullPointerException e) {
                    left++;
                    System.err.println("group " + n + " is left out: " + e);
                }
            }
        }
        System.err.println(rounds + " rounds, " + left + " groups left out");
    }

    /** Java's result would give a partition to nobody, or to a member that does not read its topic. */
    static class Broken extends Exception {
        Broken(String why) { super(why); }
    }

    static class Group {
        final Random random;
        final int kind;
        /** All read the same; old clients without generations; racks; members that missed rounds or claim what others own. */
        final boolean equal, old, racked, troubled;
        final TreeMap<String, Topic> topics = new TreeMap<>();
        final List<Member> members = new ArrayList<>();
        int generation = 0, ids = 0;

        Group(Random random, int kind, int n) {
            this.random = random;
            this.kind = kind;
            equal = n / 6 % 2 == 0;
            racked = kind != 1 && n / 12 % 3 == 1;
            old = n / 12 % 6 == 2;
            troubled = !old && kind >= 2 && n / 12 % 4 != 3;
        }

        int below(int n) { return random.nextInt(n); }

        int run(DataOutputStream out) throws Exception {
            int names = 1 + below(equal ? 4 : 6);
            while (topics.size() < names) grow(NAMES[below(NAMES.length)], 1 + below(9));
            int count = below(9) == 0 ? 14 + below(16) : 1 + below(7);
            for (int i = 0; i < count; i++) join();
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            int rounds = 2 + below(4);
            for (int i = 0; i < rounds; i++) {
                round(new DataOutputStream(bytes));
                change();
            }
            out.write(bytes.toByteArray());
            return rounds;
        }

        void grow(String name, int more) {
            Topic topic = topics.computeIfAbsent(name, k -> new Topic());
            for (int i = 0; i < more; i++) {
                int first = below(RACKS.length), second = below(3) == 0 ? below(RACKS.length) : first;
                topic.racks.add(racked ? (1 << first) | (1 << second) : 0);
            }
        }

        void join() {
            Member m = new Member();
            m.id = "c" + ids++ + "-" + Integer.toHexString(random.nextInt());
            m.instance = below(4) == 0 ? "i" + below(1000) + "-" + ids : null;
            m.rack = racked && below(6) > 0 ? RACKS[below(RACKS.length)] : null;
            m.version = (short) (old ? 1 : racked ? 3 : 2 + below(2));
            m.assignor = assignor(kind);
            m.topics = subscribe();
            members.add(below(2) == 0 ? members.size() : below(members.size() + 1), m);
        }

        Set<String> subscribe() {
            if (equal) return topics.keySet();
            TreeSet<String> read = new TreeSet<>();
            for (String name : topics.keySet()) if (below(2) == 0) read.add(name);
            if (below(8) == 0) read.add("unknown");
            if (read.isEmpty()) read.add(topics.firstKey());
            return read;
        }

        void change() {
            for (int i = below(3); i > 0; i--) {
                switch (below(7)) {
                    case 0, 1 -> join();
                    case 2, 3 -> { if (members.size() > 1) members.remove(below(members.size())); }
                    case 4 -> grow(NAMES[below(NAMES.length)], 1 + below(3));
                    case 5 -> { if (!equal) members.get(below(members.size())).topics = subscribe(); }
                    default -> { if (topics.size() > 1 && below(3) == 0) topics.remove(topics.firstKey()); }
                }
            }
            if (troubled && below(2) == 0) {
                // Claims what another owns.
                Member a = members.get(below(members.size())), b = members.get(below(members.size()));
                if (a != b && a.generation >= 0) {
                    List<TopicPartition> claimed = new ArrayList<>(a.owned);
                    for (TopicPartition p : b.owned) if (below(3) == 0 && !claimed.contains(p)) claimed.add(p);
                    assigned(a, claimed, a.generation);
                }
            }
        }

        void assigned(Member m, List<TopicPartition> owned, int generation) {
            m.owned = owned;
            m.generation = generation;
            m.assignor.onAssignment(new Assignment(owned), new ConsumerGroupMetadata("g", generation, m.id, Optional.ofNullable(m.instance)));
        }

        void round(DataOutputStream out) throws Exception {
            generation++;
            Map<String, Subscription> told = new HashMap<>();
            List<byte[]> subscriptions = new ArrayList<>();
            for (Member m : members) {
                // Eager members let go of everything before they join.
                List<TopicPartition> owned = kind == 3 ? m.owned : List.of();
                ByteBuffer userData = m.assignor.subscriptionUserData(m.topics);
                Subscription s = new Subscription(new ArrayList<>(m.topics), userData, owned, m.generation, Optional.ofNullable(m.rack));
                byte[] bytes = bytes(ConsumerProtocol.serializeSubscription(s, m.version));
                subscriptions.add(bytes);
                Subscription read = ConsumerProtocol.deserializeSubscription(ByteBuffer.wrap(bytes));
                read.setGroupInstanceId(Optional.ofNullable(m.instance));
                told.put(m.id, read);
            }
            // A leader of its own each time: it remembers nothing of earlier rounds.
            Map<String, Assignment> got = assignor(kind).assign(cluster(), new GroupSubscription(told)).groupAssignment();
            check(got);

            out.writeByte(kind);
            out.writeByte(topics.size());
            for (Map.Entry<String, Topic> t : topics.entrySet()) {
                text(out, t.getKey());
                out.writeByte(t.getValue().racks.size());
                for (int racks : t.getValue().racks) out.writeByte(racks);
            }
            out.writeByte(members.size());
            for (int i = 0; i < members.size(); i++) {
                Member m = members.get(i);
                text(out, m.id);
                text(out, m.instance == null ? "" : m.instance);
                blob(out, subscriptions.get(i));
                blob(out, bytes(ConsumerProtocol.serializeAssignment(got.get(m.id))));
            }
            for (Member m : members) {
                // Some are not there when it is given out, and come back with what they had.
                if (troubled && below(5) == 0) continue;
                assigned(m, got.get(m.id).partitions(), generation);
            }
        }

        Cluster cluster() {
            List<Node> nodes = new ArrayList<>();
            for (int i = 0; i < RACKS.length; i++) nodes.add(new Node(i, "h" + i, 1, racked ? RACKS[i] : null));
            List<PartitionInfo> partitions = new ArrayList<>();
            topics.forEach((name, topic) -> {
                for (int p = 0; p < topic.racks.size(); p++) {
                    List<Node> replicas = new ArrayList<>();
                    for (int r = 0; r < RACKS.length; r++) if ((topic.racks.get(p) >> r & 1) == 1) replicas.add(nodes.get(r));
                    if (replicas.isEmpty()) replicas.add(nodes.get(0));
                    Node[] array = replicas.toArray(new Node[0]);
                    partitions.add(new PartitionInfo(name, p, array[0], array, array));
                }
            });
            return new Cluster("c", nodes, partitions, Set.of(), Set.of());
        }

        void check(Map<String, Assignment> got) throws Broken {
            Set<TopicPartition> seen = new HashSet<>();
            for (Member m : members) {
                for (TopicPartition p : got.get(m.id).partitions()) {
                    if (!m.topics.contains(p.topic())) throw new Broken(p + " goes to a member that does not read it");
                    if (!topics.containsKey(p.topic()) || p.partition() >= topics.get(p.topic()).racks.size()) throw new Broken(p + " is not there");
                    if (!seen.add(p)) throw new Broken(p + " goes to two");
                }
            }
        }
    }

    static byte[] bytes(ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return bytes;
    }

    static void text(DataOutputStream out, String text) throws IOException {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        out.writeByte(bytes.length);
        out.write(bytes);
    }

    static void blob(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeShort(bytes.length);
        out.write(bytes);
    }
}
