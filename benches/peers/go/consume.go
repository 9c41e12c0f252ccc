package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// How long a consumer waits for its next records before it gives up.
const patience = time.Minute

// A member of a group that nobody was in before; what is not named is at its default: the classic protocol, cooperative
// sticky, and commits every 5 s, of what is marked.
func member(kafka, topic string, assigned func()) *kgo.Client {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(kafka), kgo.ConsumeTopics(topic), kgo.ConsumerGroup(fmt.Sprintf("bench-%d-%d", os.Getpid(), time.Now().UnixNano())),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitMarks(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			if len(partitions) > 0 {
				assigned()
			}
		}),
	)
	if err != nil {
		die(err)
	}
	return client
}

// Shows each record to `look`, and marks them.
func see(client *kgo.Client, fetches kgo.Fetches, look func(*kgo.Record)) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		for _, record := range p.Records {
			look(record)
		}
		// The last stands for those before it.
		if n := len(p.Records); n > 0 {
			client.MarkCommitRecords(p.Records[n-1])
		}
	})
}

// Reads from the assignment on to the last record.
func consume(kafka, topic string, count, size int, codec string) {
	var began time.Time
	var cpu time.Duration
	var once sync.Once
	client := member(kafka, topic, func() { once.Do(func() { cpu, began = cpuTime(), time.Now() }) })
	read, check := 0, 0
	look := func(r *kgo.Record) {
		read++
		check += len(r.Key) + len(r.Value)
	}
	for read < count {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		fetches := client.PollFetches(ctx)
		cancel()
		if err := fetches.Err(); err != nil {
			die(err)
		}
		see(client, fetches, look)
	}
	wall, all := time.Since(began).Seconds(), cpuTime()
	used := (all - cpu).Seconds()
	line, _ := json.Marshal(map[string]any{
		"peer": "franz-go", "op": "consume", "codec": codec, "count": read, "size": size,
		"wall_s": rounded(wall), "cpu_s": rounded(used), "cpu_all_s": rounded(all.Seconds()), "max_rss_kb": peak(),
		"msgs_per_s": math.Round(float64(read) / wall), "cpu_us_per_msg": rounded(used * 1e6 / float64(read)), "check": check,
	})
	fmt.Println(string(line))
	client.Close()
}

// Prints the partition of each record, and goes on until it is stopped: scripts/bench-consumer.sh measures what that costs
// when nothing comes any more.
func idle(kafka, topic string) {
	client := member(kafka, topic, func() {})
	out := bufio.NewWriter(os.Stdout)
	for {
		fetches := client.PollFetches(context.Background())
		if err := fetches.Err(); err != nil {
			die(err)
		}
		see(client, fetches, func(r *kgo.Record) { fmt.Fprintln(out, r.Partition) })
		out.Flush()
	}
}
