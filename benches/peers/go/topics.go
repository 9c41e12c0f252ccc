package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The most partitions that are asked for at once: the controller refuses requests that are too large.
const step = 2_000

func create(ctx context.Context, client *kgo.Client, name string, partitions int) error {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, int32(min(partitions, step)), 1
	// What a deleted topic held goes at once, not after a minute.
	config := kmsg.NewCreateTopicsRequestTopicConfig()
	config.Name, config.Value = "file.delete.delay.ms", kmsg.StringPtr("1000")
	topic.Configs = append(topic.Configs, config)
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis, request.Topics = 60_000, append(request.Topics, topic)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(answer.Topics[0].ErrorCode); err != nil {
		return err
	}
	for have := min(partitions, step); have < partitions; {
		have = min(have+step, partitions)
		more := kmsg.NewCreatePartitionsRequestTopic()
		more.Topic, more.Count = name, int32(have)
		request := kmsg.NewPtrCreatePartitionsRequest()
		request.TimeoutMillis, request.Topics = 60_000, append(request.Topics, more)
		answer, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(answer.Topics[0].ErrorCode); err != nil {
			return err
		}
	}
	return known(ctx, client, name, partitions)
}

func remove(ctx context.Context, client *kgo.Client, name string) error {
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = kmsg.StringPtr(name)
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TimeoutMillis, request.TopicNames, request.Topics = 60_000, []string{name}, append(request.Topics, topic)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.Topics[0].ErrorCode)
}

// Waits until the leader of each of at least so many partitions answers for it: metadata is there before the log is.
func known(ctx context.Context, client *kgo.Client, name string, partitions int) error {
	// A broker makes the folders of some hundred a second.
	patience := time.Minute + time.Duration(partitions)*50*time.Millisecond
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr(name)
		request := kmsg.NewPtrMetadataRequest()
		request.Topics = append(request.Topics, topic)
		answer, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		led := 0
		found := answer.Topics[0].Partitions
		for _, p := range found {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				led++
			}
		}
		if led >= max(partitions, 1) && led == len(found) {
			left, err := silent(ctx, client.Broker(int(found[0].Leader)), name, led)
			if err != nil || left == 0 {
				return err
			}
			led -= left
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %d partitions are led after %s", name, led, patience)
		}
	}
}

// For how many partitions the broker, which leads them all, does not answer yet.
func silent(ctx context.Context, broker *kgo.Broker, name string, partitions int) (int, error) {
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = name
	for n := range partitions {
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Partition, partition.Timestamp = int32(n), -1
		topic.Partitions = append(topic.Partitions, partition)
	}
	request := kmsg.NewPtrListOffsetsRequest()
	request.Topics = append(request.Topics, topic)
	answer, err := request.RequestWith(ctx, broker)
	if err != nil {
		return 0, err
	}
	left := partitions
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			if p.ErrorCode == 0 {
				left--
			}
		}
	}
	return left, nil
}
