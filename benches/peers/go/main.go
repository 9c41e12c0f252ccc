// franz-go as a peer of `muslin bench produce|latency|consume`: a record made for each send, outcomes in a callback. `pool` prints
// the records. `create NAME PARTITIONS` and `delete NAME` are for the script, which has no faster client at hand.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func die(err any) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

func main() {
	if len(os.Args) < 2 {
		die("produce, latency, consume, idle, pool, create or delete?")
	}
	op := os.Args[1]
	flags := flag.NewFlagSet(op, flag.ExitOnError)
	kafka := flags.String("kafka", "", "HOST:PORT")
	topic := flags.String("topic", "", "the topic")
	count := flags.Int("count", 10_000, "how many records")
	size := flags.Int("size", 100, "bytes of key and value")
	codec := flags.String("codec", "none", "none, lz4 or zstd")
	level := flags.Int("level", math.MinInt, "the codec's level")
	partitions := flags.Int("partitions", 6, "for create")
	flags.Parse(os.Args[2:])
	ctx := context.Background()
	switch op {
	case "pool":
		for _, e := range pool(*size) {
			fmt.Printf("%s %s\n", e.key, e.value)
		}
	case "create", "delete":
		client, err := kgo.NewClient(kgo.SeedBrokers(*kafka))
		if err == nil && op == "create" {
			err = create(ctx, client, *topic, *partitions)
		} else if err == nil {
			err = remove(ctx, client, *topic)
		}
		if err != nil {
			die(err)
		}
	case "produce", "latency":
		bench(ctx, op, *kafka, *topic, *count, *size, *codec, *level)
	case "consume":
		consume(*kafka, *topic, *count, *size, *codec)
	case "idle":
		idle(*kafka, *topic)
	default:
		die("there is no " + op)
	}
}

func bench(ctx context.Context, op, kafka, topic string, count, size int, codec string, level int) {
	compression, ok := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[codec]
	if !ok {
		die("no codec " + codec)
	}
	var shown any
	if level != math.MinInt {
		compression, shown = compression.WithLevel(level), level
	}
	linger := 5 * time.Millisecond
	if op == "latency" {
		linger = 0
	}
	// Idempotent with up to five requests in flight, keys placed as in Java, 50,000 records buffered: its defaults.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(kafka), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(linger),
		kgo.ProducerBatchMaxBytes(64<<10), kgo.ProducerBatchCompression(compression),
	)
	if err != nil {
		die(err)
	}
	if err := known(ctx, client, topic, 0); err != nil {
		die(err)
	}
	events := pool(size)
	waits := make([]int64, 0, count)
	var sent, failed atomic.Int64
	report := func(_ *kgo.Record, err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			failed.Add(1)
		} else {
			sent.Add(1)
		}
	}
	cpu, began := cpuTime(), time.Now()
	for n := range count {
		e := &events[n%poolSize]
		record := &kgo.Record{Topic: topic, Key: e.key, Value: e.value}
		if op == "latency" {
			start := time.Now()
			report(nil, client.ProduceSync(ctx, record).FirstErr())
			waits = append(waits, time.Since(start).Nanoseconds())
		} else {
			client.Produce(ctx, record, report)
		}
	}
	if err := client.Flush(ctx); err != nil {
		die(err)
	}
	wall, used := time.Since(began).Seconds(), (cpuTime() - cpu).Seconds()
	out := map[string]any{
		"peer": "franz-go", "op": op, "codec": codec, "level": shown, "count": sent.Load(), "size": size,
		"wall_s": rounded(wall), "cpu_s": rounded(used), "max_rss_kb": peak(), "msgs_per_s": math.Round(float64(sent.Load()) / wall),
		"cpu_us_per_msg": rounded(used * 1e6 / float64(max(sent.Load(), 1))), "failed": failed.Load(),
	}
	if op == "latency" {
		slices.SortFunc(waits, cmp.Compare)
		for name, thousandths := range map[string]int{"p50_us": 500, "p99_us": 990, "p999_us": 999} {
			out[name] = (waits[max((count*thousandths+999)/1000-1, 0)] + 500) / 1000
		}
	}
	line, _ := json.Marshal(out)
	fmt.Println(string(line))
	if failed.Load() > 0 || sent.Load() < int64(count) {
		os.Exit(1)
	}
}

func rounded(x float64) float64 { return math.Round(x*1e3) / 1e3 }

// User and system time of the process so far.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		die(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// The peak of its resident memory in KiB.
func peak() int {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb
		}
	}
	return 0
}
