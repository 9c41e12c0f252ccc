import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import org.xerial.snappy.SnappyInputStream;

/** Decompresses as the Java client does: java -cp snappy-java.jar Unsnappy.java IN OUT, both a list of (length: i32, bytes). */
public class Unsnappy {
    public static void main(String[] args) throws Exception {
        try (var in = new DataInputStream(new BufferedInputStream(new FileInputStream(args[0])));
                var out = new DataOutputStream(new BufferedOutputStream(new FileOutputStream(args[1])))) {
            while (in.available() > 0) {
                byte[] compressed = in.readNBytes(in.readInt());
                byte[] plain = new SnappyInputStream(new ByteArrayInputStream(compressed)).readAllBytes();
                out.writeInt(plain.length);
                out.write(plain);
            }
        }
    }
}
