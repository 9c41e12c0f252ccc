import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.Collections;
import java.util.function.Function;

/**
 * What the Java programs share: one operation a line on stdin, {"op": NAME, ...}, one answer a line on stdout: {"ok": VALUE},
 * {"error": WHAT THE BROKER SAID}, or {"failed": TRACE} for anything else.
 */
interface Ops {
    Object perform(String op, JsonNode ask) throws Exception;

    /** Answers until stdin ends. `broker` makes a broker's error of a throwable, or null. */
    static void serve(Ops ops, Function<Throwable, Object> broker) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err); // where the logs go
        ObjectMapper json = new ObjectMapper();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = in.readLine()) != null; ) {
            JsonNode ask = json.readTree(line);
            Object answer;
            try {
                answer = Collections.singletonMap("ok", ops.perform(ask.get("op").asText(), ask));
            } catch (Exception e) {
                Object told = null;
                for (Throwable cause = e; told == null && cause != null; cause = cause.getCause()) told = broker.apply(cause);
                StringWriter trace = new StringWriter();
                e.printStackTrace(new PrintWriter(trace));
                answer = told == null ? Collections.singletonMap("failed", trace.toString()) : Collections.singletonMap("error", told);
            }
            out.write((json.writeValueAsString(answer) + "\n").getBytes("UTF-8"));
            out.flush();
        }
        System.exit(0);
    }
}
