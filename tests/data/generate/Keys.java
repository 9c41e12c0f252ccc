import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashSet;
import java.util.Random;
import org.apache.kafka.common.utils.Utils;

/** Keys.java FILE: 10,000 keys, each with its length before it and the Java client's murmur2 behind it. */
public class Keys {
    public static void main(String[] args) throws Exception {
        Random random = new Random(1);
        LinkedHashSet<String> keys = new LinkedHashSet<>();
        // One char is one byte. Every length of 0 to 63, with bytes above 127 too; then what people use for keys.
        for (int length = 0; length < 64; length++) {
            for (int n = 0; n < 25; n++) {
                StringBuilder key = new StringBuilder();
                for (int i = 0; i < length; i++) key.append((char) random.nextInt(256));
                keys.add(key.toString());
            }
        }
        for (int n = 0; keys.size() < 10_000; n++) {
            keys.add(switch (n % 5) {
                case 0 -> Integer.toString(n);
                case 1 -> "user-" + random.nextInt(1_000_000);
                case 2 -> new String(new byte[] {(byte) (n >> 24), (byte) (n >> 16), (byte) (n >> 8), (byte) n}, StandardCharsets.ISO_8859_1);
                case 3 -> "order:" + Long.toHexString(random.nextLong());
                default -> new String("K\u00fcche \u2116".getBytes(StandardCharsets.UTF_8), StandardCharsets.ISO_8859_1) + n;
            });
        }
        try (DataOutputStream out = new DataOutputStream(new FileOutputStream(args[0]))) {
            for (String text : keys) {
                byte[] key = text.getBytes(StandardCharsets.ISO_8859_1);
                out.writeByte(key.length);
                out.write(key);
                out.writeInt(Utils.murmur2(key));
            }
        }
    }
}
