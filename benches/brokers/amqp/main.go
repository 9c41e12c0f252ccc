// Loads a RabbitMQ with amqp091-go: `amqp publish|consume URL QUEUE COUNT SIZE`.
//
// Prints one JSON object: how many messages, and the seconds they took. Publish: persistent, mandatory, confirmed, at most
// 1,000 unconfirmed. Consume: prefetch 200, each message acknowledged by itself.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const window, prefetch = 1000, 200

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func publish(channel *amqp.Channel, queue string, count, size int) {
	check(channel.Confirm(false))
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	body := make([]byte, size)
	for n := range body {
		body[n] = byte('a' + n%26)
	}
	message := amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: "application/json", Body: body}
	unconfirmed := make(chan *amqp.DeferredConfirmation, window)
	done := make(chan int)
	go func() {
		refused := 0
		for confirmation := range unconfirmed {
			if !confirmation.Wait() {
				refused++
			}
		}
		done <- refused
	}()
	for range count {
		confirmation, err := channel.PublishWithDeferredConfirm("", queue, true, false, message)
		check(err)
		unconfirmed <- confirmation
	}
	close(unconfirmed)
	if refused := <-done; refused > 0 {
		check(fmt.Errorf("%d messages were refused", refused))
	}
	select {
	case back, open := <-returned:
		if open {
			check(fmt.Errorf("a message came back: %s", back.ReplyText))
		}
	default:
	}
}

func consume(channel *amqp.Channel, queue string, count, size int) {
	check(channel.Qos(prefetch, 0, false))
	deliveries, err := channel.Consume(queue, "", false, false, false, false, nil)
	check(err)
	for range count {
		select {
		case delivery := <-deliveries:
			if len(delivery.Body) != size {
				check(fmt.Errorf("a body of %d bytes", len(delivery.Body)))
			}
			check(delivery.Ack(false))
		case <-time.After(time.Minute):
			check(fmt.Errorf("no message for a minute"))
		}
	}
	// The acknowledgements are on their way before this question: its answer says that they arrived.
	_, err = channel.QueueDeclarePassive(queue, true, false, false, false, nil)
	check(err)
}

func main() {
	if len(os.Args) != 6 {
		check(fmt.Errorf("usage: amqp publish|consume URL QUEUE COUNT SIZE"))
	}
	count, err := strconv.Atoi(os.Args[4])
	check(err)
	size, err := strconv.Atoi(os.Args[5])
	check(err)
	connection, err := amqp.Dial(os.Args[2])
	check(err)
	channel, err := connection.Channel()
	check(err)
	_, err = channel.QueueDeclare(os.Args[3], true, false, false, false, nil)
	check(err)
	start := time.Now()
	if os.Args[1] == "publish" {
		publish(channel, os.Args[3], count, size)
	} else {
		consume(channel, os.Args[3], count, size)
	}
	seconds := time.Since(start).Seconds()
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{"count": count, "seconds": seconds}))
	check(connection.Close())
}
