// The franz-go part of the vectors: makes topics, produces with franz-go, and dumps what the broker stored.
//
//	vectors topic ADDRESS TOPIC [KEY=VALUE...]
//	vectors produce ADDRESS TOPIC CODEC RECORDS.json
//	vectors transact ADDRESS TOPIC CODEC RECORDS.json
//	vectors dump ADDRESS TOPIC FILE
package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type record struct {
	Timestamp int64        `json:"timestamp"`
	Key       *string      `json:"key"`
	Value     *string      `json:"value"`
	Repeat    int          `json:"repeat"`
	Headers   [][2]*string `json:"headers"`
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "vectors:", err)
		os.Exit(1)
	}
	return value
}

func check(err error) { must(0, err) }

// nil for null, an empty slice for empty.
func bytes(text *string) []byte {
	if text == nil {
		return nil
	}
	return append([]byte{}, must(hex.DecodeString(*text))...)
}

func load(path, topic string) []*kgo.Record {
	var read []record
	check(json.Unmarshal(must(os.ReadFile(path)), &read))
	var out []*kgo.Record
	for _, r := range read {
		value := bytes(r.Value)
		if r.Repeat > 1 {
			value = []byte(strings.Repeat(string(value), r.Repeat))
		}
		var headers []kgo.RecordHeader
		for _, h := range r.Headers {
			headers = append(headers, kgo.RecordHeader{Key: *h[0], Value: bytes(h[1])})
		}
		out = append(out, &kgo.Record{
			Topic: topic, Partition: 0, Key: bytes(r.Key), Value: value, Headers: headers,
			Timestamp: time.UnixMilli(r.Timestamp),
		})
	}
	return out
}

func client(address, codec string, more ...kgo.Opt) *kgo.Client {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	return must(kgo.NewClient(append(more,
		kgo.SeedBrokers(address), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[codec]), kgo.ProducerLinger(200*time.Millisecond),
	)...))
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := os.Args[1:]
	command, address, topic := args[0], args[1], args[2]
	switch command {
	case "topic":
		cl := client(address, "none")
		req := kmsg.NewPtrCreateTopicsRequest()
		req.TimeoutMillis = 30000
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = topic, 1, 1
		for _, pair := range args[3:] {
			name, value, _ := strings.Cut(pair, "=")
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = name, &value
			t.Configs = append(t.Configs, c)
		}
		req.Topics = append(req.Topics, t)
		resp := must(req.RequestWith(ctx, cl))
		check(kerr.ErrorForCode(resp.Topics[0].ErrorCode))
	case "produce":
		cl := client(address, args[3])
		records := load(args[4], topic)
		half := len(records) / 2
		// Two batches.
		check(cl.ProduceSync(ctx, records[:half]...).FirstErr())
		check(cl.ProduceSync(ctx, records[half:]...).FirstErr())
		cl.Close()
	case "transact":
		cl := client(address, args[3], kgo.TransactionalID(topic))
		records := load(args[4], topic)
		// Records 0 to 2 committed, 3 and 4 aborted.
		check(cl.BeginTransaction())
		check(cl.ProduceSync(ctx, records[:3]...).FirstErr())
		check(cl.EndTransaction(ctx, kgo.TryCommit))
		check(cl.BeginTransaction())
		check(cl.ProduceSync(ctx, records[3:5]...).FirstErr())
		check(cl.EndTransaction(ctx, kgo.TryAbort))
		cl.Close()
	case "dump":
		dump(ctx, client(address, "none"), topic, args[3])
	default:
		check(fmt.Errorf("unknown command %q", command))
	}
}

// dump writes the stored batches of partition 0 from offset 0, as a fetch response carries them.
func dump(ctx context.Context, cl *kgo.Client, topic, path string) {
	meta := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = &topic
	meta.Topics = append(meta.Topics, mt)
	known := must(meta.RequestWith(ctx, cl)).Topics[0]
	check(kerr.ErrorForCode(known.ErrorCode))

	// A fetch stops at the end of a segment, and records whose times lie far apart stand in several.
	var all []byte
	for next := int64(0); ; {
		req := kmsg.NewPtrFetchRequest()
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 500, 1, 16<<20
		ft := kmsg.NewFetchRequestTopic()
		ft.Topic, ft.TopicID = topic, known.TopicID
		fp := kmsg.NewFetchRequestTopicPartition()
		fp.FetchOffset, fp.PartitionMaxBytes = next, 16<<20
		ft.Partitions = append(ft.Partitions, fp)
		req.Topics = append(req.Topics, ft)
		resp := must(cl.Broker(int(known.Partitions[0].Leader)).Request(ctx, req))
		p := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
		check(kerr.ErrorForCode(p.ErrorCode))
		if len(p.RecordBatches) == 0 {
			break
		}
		all = append(all, p.RecordBatches...)
		for b := p.RecordBatches; len(b) > 0; b = b[12+binary.BigEndian.Uint32(b[8:]):] {
			next = int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[23:])) + 1
		}
	}
	check(os.WriteFile(path, all, 0o644))
	fmt.Println(path, len(all))
}
