// franz-go: the operations of tests/foreign_kafka.rs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"foreign/ops"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

type record struct {
	Topic     string       `json:"topic"`
	Partition int32        `json:"partition"`
	Offset    int64        `json:"offset"`
	Timestamp int64        `json:"timestamp"`
	Key       *string      `json:"key"`
	Value     *string      `json:"value"`
	Headers   [][2]*string `json:"headers"`
}

type ask struct {
	Bootstrap, Topic, Name, Value, Group, Codec, Transaction, Protocol string
	Sasl                                                               *struct{ Mechanism, User, Password string }
	Partitions, Partition                                              int32
	Count                                                              int
	Before                                                             int64
	At                                                                 json.RawMessage
	Config                                                             map[string]*string
	Topics                                                             []string
	Records                                                            []record
	Idempotent, Committed                                              bool
}

func text(data []byte) *string {
	if data == nil {
		return nil
	}
	s := string(data)
	return &s
}

func data(text *string) []byte {
	if text == nil {
		return nil
	}
	return []byte(*text)
}

// member is a client, the session around it where it processes in transactions, and the partitions its group gave it.
type member struct {
	*kgo.Client
	session *kgo.GroupTransactSession
	mu      sync.Mutex
	owned   map[int32]bool
}

func (m *member) change(own bool) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, partitions := range changed {
			for _, p := range partitions {
				if own {
					m.owned[p] = true
				} else {
					delete(m.owned, p)
				}
			}
		}
	}
}

var (
	settings []kgo.Opt
	admin    *kadm.Client
	members  = map[string]*member{}
)

func (m *member) consume(a ask) []kgo.Opt {
	opts := []kgo.Opt{kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100 * time.Millisecond)}
	if a.Committed {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if a.Group == "" {
		partitions := map[string]map[int32]kgo.Offset{}
		for _, topic := range a.Topics {
			partitions[topic] = map[int32]kgo.Offset{0: kgo.NewOffset().AtStart()}
		}
		return append(opts, kgo.ConsumePartitions(partitions))
	}
	opts = append(opts, kgo.ConsumerGroup(a.Group), kgo.ConsumeTopics(a.Topics...), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(200*time.Millisecond),
		kgo.OnPartitionsAssigned(m.change(true)), kgo.OnPartitionsRevoked(m.change(false)), kgo.OnPartitionsLost(m.change(false)))
	if a.Protocol == "consumer" {
		opts = append(opts, kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()))
	}
	return opts
}

func (m *member) open(opts ...kgo.Opt) (err error) {
	m.Client, err = kgo.NewClient(append(slices.Clone(settings), opts...)...)
	return err
}

// offsetFor asks ListOffsets itself: kadm gives the end where there is nothing that late.
func offsetFor(ctx context.Context, a ask) (any, error) {
	request := kmsg.NewPtrListOffsetsRequest()
	topic, partition := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	topic.Topic, partition.Partition = a.Topic, a.Partition
	if err := json.Unmarshal(a.At, &partition.Timestamp); err != nil {
		return nil, err
	}
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	var client member
	if err := client.open(); err != nil {
		return nil, err
	}
	defer client.Close()
	answer, err := request.RequestWith(ctx, client.Client)
	if err != nil {
		return nil, err
	}
	told := answer.Topics[0].Partitions[0]
	return told.Offset, kerr.ErrorForCode(told.ErrorCode)
}

func do(op string, a ask) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m := members[a.Name]
	if m == nil {
		m = &member{owned: map[int32]bool{}}
		if op == "producer" || op == "consumer" || op == "processor" {
			members[a.Name] = m
		}
	}
	switch op {
	case "connect":
		settings = []kgo.Opt{kgo.SeedBrokers(a.Bootstrap), kgo.ProducerLinger(5 * time.Millisecond),
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50 * time.Millisecond)}
		if s := a.Sasl; s != nil {
			auth := scram.Auth{User: s.User, Pass: s.Password}
			settings = append(settings, map[string]kgo.Opt{
				"PLAIN":         kgo.SASL(plain.Auth{User: s.User, Pass: s.Password}.AsMechanism()),
				"SCRAM-SHA-256": kgo.SASL(auth.AsSha256Mechanism()),
				"SCRAM-SHA-512": kgo.SASL(auth.AsSha512Mechanism()),
			}[s.Mechanism])
		}
		client, err := kgo.NewClient(settings...)
		admin = kadm.NewClient(client)
		return nil, err
	case "describe_cluster":
		found, err := admin.BrokerMetadata(ctx)
		return map[string]any{"brokers": found.Brokers.NodeIDs(), "controller": found.Controller, "id": found.Cluster}, err
	case "create_topic":
		_, err := admin.CreateTopic(ctx, a.Partitions, 1, a.Config, a.Topic)
		return nil, err
	case "delete_topic":
		_, err := admin.DeleteTopic(ctx, a.Topic)
		return nil, err
	case "describe_topic":
		found, err := admin.ListTopics(ctx, a.Topic)
		return len(found[a.Topic].Partitions), errors.Join(err, found[a.Topic].Err)
	case "create_partitions":
		found, err := admin.UpdatePartitions(ctx, a.Count, a.Topic)
		return nil, errors.Join(err, found[a.Topic].Err)
	case "describe_config":
		found, err := admin.DescribeTopicConfigs(ctx, a.Topic)
		if err != nil {
			return nil, err
		}
		for _, config := range found[0].Configs {
			if config.Key == a.Name {
				return []any{config.Value, config.Source == kmsg.ConfigSourceDefaultConfig}, nil
			}
		}
		return nil, found[0].Err
	case "alter_config":
		found, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: a.Name, Value: &a.Value}}, a.Topic)
		if err != nil {
			return nil, err
		}
		return nil, found[0].Err
	case "list_offsets":
		var found kadm.ListedOffsets
		var err error
		switch at := string(a.At); {
		case at == `"earliest"`:
			found, err = admin.ListStartOffsets(ctx, a.Topic)
		case at == `"latest"` && a.Committed:
			found, err = admin.ListCommittedOffsets(ctx, a.Topic)
		case at == `"latest"`:
			found, err = admin.ListEndOffsets(ctx, a.Topic)
		default:
			return offsetFor(ctx, a)
		}
		listed, _ := found.Lookup(a.Topic, a.Partition)
		return listed.Offset, errors.Join(err, listed.Err)
	case "delete_records":
		found, err := admin.DeleteRecords(ctx, kadm.Offsets{a.Topic: {a.Partition: {Topic: a.Topic, Partition: a.Partition, At: a.Before}}})
		return found[a.Topic][a.Partition].LowWatermark, errors.Join(err, found[a.Topic][a.Partition].Err)
	case "list_groups":
		found, err := admin.ListGroups(ctx)
		return found.Groups(), err
	case "describe_group":
		found, err := admin.DescribeGroups(ctx, a.Group)
		return map[string]any{"state": found[a.Group].State, "members": len(found[a.Group].Members)}, errors.Join(err, found[a.Group].Err)
	case "group_offsets":
		found, err := admin.FetchOffsets(ctx, a.Group)
		offsets := [][3]any{}
		for _, o := range found.Sorted() {
			offsets = append(offsets, [3]any{o.Topic, o.Partition, o.At})
		}
		return offsets, err
	case "delete_group":
		_, err := admin.DeleteGroup(ctx, a.Group)
		return nil, err
	case "producer":
		codec, compressed := map[string]kgo.CompressionCodec{"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
			"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}[a.Codec]
		if !compressed {
			codec = kgo.NoCompression()
		}
		opts := []kgo.Opt{kgo.ProducerBatchCompression(codec)}
		if a.Transaction != "" {
			opts = append(opts, kgo.TransactionalID(a.Transaction), kgo.TransactionTimeout(30*time.Second))
		} else if !a.Idempotent {
			opts = append(opts, kgo.DisableIdempotentWrite())
		}
		if err := m.open(opts...); err != nil || a.Transaction == "" {
			return nil, err
		}
		_, _, err := m.ProducerID(ctx) // this is what fences
		return nil, err
	case "processor":
		a.Topics, a.Committed = []string{a.Topic}, true
		opts := append(m.consume(a), kgo.TransactionalID(a.Transaction), kgo.TransactionTimeout(30*time.Second))
		session, err := kgo.NewGroupTransactSession(append(slices.Clone(settings), opts...)...)
		if err == nil {
			m.Client, m.session = session.Client(), session
		}
		return nil, err
	case "begin":
		if m.session != nil {
			return nil, m.session.Begin()
		}
		return nil, m.BeginTransaction()
	case "commit", "abort":
		try := kgo.TransactionEndTry(op == "commit")
		if m.session == nil {
			return nil, m.EndTransaction(ctx, try)
		}
		committed, err := m.session.End(ctx, try)
		if err == nil && kgo.TransactionEndTry(committed) != try {
			err = fmt.Errorf("committed: %v", committed)
		}
		return nil, err
	case "produce":
		records := make([]*kgo.Record, len(a.Records))
		for i, r := range a.Records {
			records[i] = &kgo.Record{Topic: a.Topic, Partition: r.Partition, Key: data(r.Key), Value: data(r.Value)}
			if r.Timestamp != 0 {
				records[i].Timestamp = time.UnixMilli(r.Timestamp)
			}
			for _, h := range r.Headers {
				records[i].Headers = append(records[i].Headers, kgo.RecordHeader{Key: *h[0], Value: data(h[1])})
			}
		}
		err := m.ProduceSync(ctx, records...).FirstErr()
		written := [][2]int64{}
		for _, r := range records {
			written = append(written, [2]int64{int64(r.Partition), r.Offset})
		}
		return written, err
	case "consumer":
		return nil, m.open(m.consume(a)...)
	case "poll":
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		fetches, records, owned := m.PollFetches(ctx), []record{}, []int32{}
		for _, failed := range fetches.Errors() {
			if !errors.Is(failed.Err, context.DeadlineExceeded) {
				return nil, failed.Err
			}
		}
		fetches.EachRecord(func(r *kgo.Record) {
			headers := [][2]*string{}
			for _, h := range r.Headers {
				headers = append(headers, [2]*string{&h.Key, text(h.Value)})
			}
			records = append(records, record{r.Topic, r.Partition, r.Offset, r.Timestamp.UnixMilli(), text(r.Key), text(r.Value), headers})
		})
		m.mu.Lock()
		defer m.mu.Unlock()
		for p := range m.owned {
			owned = append(owned, p)
		}
		return map[string]any{"assigned": owned, "records": records}, nil
	case "commit_offsets":
		return nil, m.CommitUncommittedOffsets(ctx)
	case "close":
		m.Close()
		delete(members, a.Name)
		return nil, nil
	}
	return nil, fmt.Errorf("unknown operation %q", op)
}

func main() {
	ops.Serve(do, func(err error) any {
		if told, ok := errors.AsType[*kerr.Error](err); ok {
			return told.Code
		}
		return nil
	})
}
