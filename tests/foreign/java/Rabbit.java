import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.rabbitmq.client.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.Collectors;

/** The Java client: the operations of tests/foreign_rabbit.rs. */
public class Rabbit implements Ops {
    /** A connection with one channel. */
    private static class Member {
        Connection connection;
        Channel channel;
        BlockingQueue<Map<String, Object>> deliveries;
        final BlockingQueue<Return> returns = new LinkedBlockingQueue<>();
    }

    private final Map<String, Member> members = new HashMap<>();

    public static void main(String[] args) throws Exception {
        Ops.serve(new Rabbit(), Rabbit::broker);
    }

    private static Object broker(Throwable e) {
        if (e instanceof PossibleAuthenticationFailureException) return List.of(403, e.getMessage());
        if (!(e instanceof ShutdownSignalException)) return null;
        Method reason = ((ShutdownSignalException) e).getReason();
        if (reason instanceof AMQP.Channel.Close) return List.of(((AMQP.Channel.Close) reason).getReplyCode(), ((AMQP.Channel.Close) reason).getReplyText());
        if (reason instanceof AMQP.Connection.Close)
            return List.of(((AMQP.Connection.Close) reason).getReplyCode(), ((AMQP.Connection.Close) reason).getReplyText());
        return null;
    }

    private static Object plain(Object value) {
        if (value instanceof Map) return ((Map<?, ?>) value).entrySet().stream().collect(Collectors.toMap(Map.Entry::getKey, e -> plain(e.getValue())));
        if (value instanceof List) return ((List<?>) value).stream().map(Rabbit::plain).toList();
        return value instanceof Number || value instanceof Boolean ? value : String.valueOf(value);
    }

    private static Map<String, Object> message(Envelope envelope, AMQP.BasicProperties properties, byte[] body) throws Exception {
        Map<String, Object> told = new HashMap<>(Map.of("body", new String(body, "UTF-8"), "exchange", envelope.getExchange(),
            "key", envelope.getRoutingKey(), "redelivered", envelope.isRedeliver(), "tag", envelope.getDeliveryTag(),
            "headers", properties.getHeaders() == null ? Map.of() : plain(properties.getHeaders())));
        told.put("priority", properties.getPriority());
        told.put("expiration", properties.getExpiration());
        told.put("message_id", properties.getMessageId());
        return told;
    }

    private static Map<String, Object> table(JsonNode node) {
        return node == null || node.isNull() ? null : new ObjectMapper().convertValue(node, new TypeReference<Map<String, Object>>() {});
    }

    private static void open(Member m) throws Exception {
        m.channel = m.connection.createChannel();
        m.deliveries = new LinkedBlockingQueue<>();
        m.channel.addReturnListener(m.returns::add);
        m.channel.confirmSelect();
    }

    public Object perform(String op, JsonNode ask) throws Exception {
        Member m = members.get(ask.get("on").asText());
        Channel channel = m == null ? null : m.channel;
        String name = ask.path("name").asText(), queue = ask.path("queue").asText(), exchange = ask.path("exchange").asText(), key = ask.path("key").asText();
        boolean noAck = ask.path("no_ack").asBoolean(), multiple = ask.path("multiple").asBoolean(), requeue = ask.path("requeue").asBoolean(true);
        long tag = ask.path("tag").asLong();
        Map<String, Object> arguments = table(ask.get("arguments"));
        switch (op) {
            case "connect": {
                ConnectionFactory factory = new ConnectionFactory();
                factory.setUri(ask.get("url").asText());
                factory.setAutomaticRecoveryEnabled(false);
                if (ask.has("heartbeat")) factory.setRequestedHeartbeat(ask.get("heartbeat").asInt());
                m = new Member();
                m.connection = factory.newConnection();
                members.put(ask.get("on").asText(), m);
                open(m);
                return Map.of("heartbeat", m.connection.getHeartbeat());
            }
            case "channel": open(m); return null;
            case "exchange":
                if (ask.path("passive").asBoolean()) channel.exchangeDeclarePassive(name);
                else channel.exchangeDeclare(name, ask.path("type").asText("direct"), false, true, arguments);
                return null;
            case "queue": {
                AMQP.Queue.DeclareOk ok = ask.path("passive").asBoolean() ? channel.queueDeclarePassive(name)
                    : channel.queueDeclare(name, ask.path("durable").asBoolean(), ask.path("exclusive").asBoolean(), false, arguments);
                return Map.of("name", ok.getQueue(), "messages", ok.getMessageCount(), "consumers", ok.getConsumerCount());
            }
            case "bind": channel.queueBind(queue, exchange, key, arguments); return null;
            case "delete": return channel.queueDelete(queue).getMessageCount();
            case "purge": return channel.queuePurge(queue).getMessageCount();
            case "publish": {
                JsonNode p = ask.path("properties");
                AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().headers(table(p.get("headers")))
                    .priority(p.has("priority") ? p.get("priority").asInt() : null).expiration(p.path("expiration").asText(null))
                    .deliveryMode(p.has("delivery_mode") ? p.get("delivery_mode").asInt() : null).messageId(p.path("message_id").asText(null)).build();
                channel.basicPublish(exchange, key, ask.path("mandatory").asBoolean(), properties, ask.get("body").asText().getBytes("UTF-8"));
                boolean acked = channel.waitForConfirms(30000);
                Return r = m.returns.poll(); // it comes before the confirm
                return r == null ? acked ? "ack" : "nack" : Map.of("returned", List.of(r.getReplyCode(), r.getReplyText()),
                    "body", new String(r.getBody(), "UTF-8"), "exchange", r.getExchange(), "key", r.getRoutingKey());
            }
            case "get": {
                GetResponse found = channel.basicGet(queue, noAck);
                if (found == null) return null;
                Map<String, Object> told = message(found.getEnvelope(), found.getProps(), found.getBody());
                told.put("left", found.getMessageCount());
                return told;
            }
            case "qos": channel.basicQos(ask.get("count").asInt()); return null;
            case "consume": {
                BlockingQueue<Map<String, Object>> deliveries = m.deliveries;
                return channel.basicConsume(queue, noAck, "", false, ask.path("exclusive").asBoolean(), null, new DefaultConsumer(channel) {
                    public void handleDelivery(String consumer, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
                        try {
                            deliveries.add(message(envelope, properties, body));
                        } catch (Exception e) {
                            throw new IllegalStateException(e);
                        }
                    }
                });
            }
            case "next": return m.deliveries.poll((long) (ask.get("wait").asDouble() * 1000), TimeUnit.MILLISECONDS);
            case "ack": channel.basicAck(tag, multiple); return null;
            case "nack": channel.basicNack(tag, multiple, requeue); return null;
            case "reject": channel.basicReject(tag, requeue); return null;
            case "recover": channel.basicRecover(true); return null;
            case "cancel": channel.basicCancel(ask.get("tag").asText()); return null;
            case "close": members.remove(ask.get("on").asText()).connection.close(); return null;
            default: throw new IllegalArgumentException(op);
        }
    }
}
