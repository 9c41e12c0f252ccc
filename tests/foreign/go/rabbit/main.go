// amqp091-go: the operations of tests/foreign_rabbit.rs.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"foreign/ops"

	amqp "github.com/rabbitmq/amqp091-go"
)

type ask struct {
	On, Url, Name, Type, Queue, Exchange, Key, Body                               string
	Heartbeat                                                                     *int
	Passive, Durable, Exclusive, Mandatory, No_ack, Multiple, If_unused, If_empty bool
	Requeue                                                                       *bool
	Arguments                                                                     amqp.Table
	Count                                                                         int
	Wait                                                                          float64
	Tag                                                                           any
	Properties                                                                    struct {
		Headers                              amqp.Table
		Priority, Delivery_mode              uint8
		Expiration, Message_id, Content_type string
	}
}

// member is a connection with one channel.
type member struct {
	connection *amqp.Connection
	*amqp.Channel
	returns    chan amqp.Return
	closed     chan *amqp.Error
	deliveries chan amqp.Delivery
}

var members = map[string]*member{}

func (m *member) open() (err error) {
	if m.Channel, err = m.connection.Channel(); err != nil {
		return err
	}
	m.returns = m.NotifyReturn(make(chan amqp.Return, 10))
	m.closed = m.NotifyClose(make(chan *amqp.Error, 1))
	m.deliveries = make(chan amqp.Delivery, 1000)
	return m.Confirm(false)
}

// whole makes integers of JSON's numbers.
func whole(value any) any {
	switch v := value.(type) {
	case float64:
		return int64(v)
	case map[string]any:
		return table(v)
	}
	return value
}

func table(t amqp.Table) amqp.Table {
	for name, value := range t {
		t[name] = whole(value)
	}
	return t
}

func optional[T comparable](value T) any {
	var zero T
	if value == zero {
		return nil
	}
	return value
}

func message(d amqp.Delivery) map[string]any {
	headers := d.Headers
	if headers == nil {
		headers = amqp.Table{}
	}
	return map[string]any{"body": string(d.Body), "exchange": d.Exchange, "key": d.RoutingKey, "redelivered": d.Redelivered,
		"tag": d.DeliveryTag, "headers": headers, "priority": optional(d.Priority), "expiration": optional(d.Expiration),
		"message_id": optional(d.MessageId)}
}

func do(op string, a ask) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	m := members[a.On]
	requeue := a.Requeue == nil || *a.Requeue
	number, _ := a.Tag.(float64)
	tag := uint64(number)
	switch op {
	case "connect":
		config := amqp.Config{}
		if a.Heartbeat != nil {
			config.Heartbeat = time.Duration(*a.Heartbeat) * time.Second
		}
		connection, err := amqp.DialConfig(a.Url, config)
		if err != nil {
			return nil, err
		}
		m = &member{connection: connection}
		members[a.On] = m
		return map[string]any{"heartbeat": int(connection.Config.Heartbeat / time.Second)}, m.open()
	case "channel":
		return nil, m.open()
	case "exchange":
		if a.Type == "" {
			a.Type = "direct"
		}
		if a.Passive {
			return nil, m.ExchangeDeclarePassive(a.Name, a.Type, a.Durable, true, false, false, table(a.Arguments))
		}
		return nil, m.ExchangeDeclare(a.Name, a.Type, a.Durable, true, false, false, table(a.Arguments))
	case "queue":
		declare := m.QueueDeclare
		if a.Passive {
			declare = m.QueueDeclarePassive
		}
		ok, err := declare(a.Name, a.Durable, false, a.Exclusive, false, table(a.Arguments))
		return map[string]any{"name": ok.Name, "messages": ok.Messages, "consumers": ok.Consumers}, err
	case "bind":
		return nil, m.QueueBind(a.Queue, a.Key, a.Exchange, false, table(a.Arguments))
	case "unbind":
		return nil, m.QueueUnbind(a.Queue, a.Key, a.Exchange, table(a.Arguments))
	case "exchange_bind":
		return nil, m.ExchangeBind(a.Name, a.Key, a.Exchange, false, table(a.Arguments))
	case "exchange_unbind":
		return nil, m.ExchangeUnbind(a.Name, a.Key, a.Exchange, false, table(a.Arguments))
	case "exchange_delete":
		return nil, m.ExchangeDelete(a.Name, a.If_unused, false)
	case "delete":
		return m.QueueDelete(a.Queue, a.If_unused, a.If_empty, false)
	case "purge":
		return m.QueuePurge(a.Queue, false)
	case "publish":
		confirm, err := m.PublishWithDeferredConfirmWithContext(ctx, a.Exchange, a.Key, a.Mandatory, false, amqp.Publishing{
			Body: []byte(a.Body), Headers: table(a.Properties.Headers), Priority: a.Properties.Priority, Expiration: a.Properties.Expiration,
			DeliveryMode: a.Properties.Delivery_mode, MessageId: a.Properties.Message_id, ContentType: a.Properties.Content_type})
		if err != nil {
			return nil, err
		}
		acked, err := confirm.WaitContext(ctx)
		if err != nil {
			return nil, err
		}
		select {
		case r, ok := <-m.returns: // it comes before the confirm
			if !ok {
				return nil, <-m.closed
			}
			return map[string]any{"returned": []any{r.ReplyCode, r.ReplyText}, "body": string(r.Body), "exchange": r.Exchange, "key": r.RoutingKey}, nil
		default:
			return map[bool]string{true: "ack", false: "nack"}[acked], nil
		}
	case "get":
		d, ok, err := m.Get(a.Queue, a.No_ack)
		if !ok {
			return nil, err
		}
		told := message(d)
		told["left"] = d.MessageCount
		return told, err
	case "qos":
		return nil, m.Qos(a.Count, 0, false)
	case "consume":
		name := fmt.Sprintf("go-%d", time.Now().UnixNano())
		deliveries, err := m.Consume(a.Queue, name, a.No_ack, a.Exclusive, false, false, nil)
		if err == nil {
			go func(to chan amqp.Delivery) {
				for d := range deliveries {
					to <- d
				}
			}(m.deliveries)
		}
		return name, err
	case "next":
		select {
		case d := <-m.deliveries:
			return message(d), nil
		case <-time.After(time.Duration(a.Wait * float64(time.Second))):
			return nil, nil
		}
	case "ack":
		return nil, m.Ack(tag, a.Multiple)
	case "nack":
		return nil, m.Nack(tag, a.Multiple, requeue)
	case "reject":
		return nil, m.Reject(tag, requeue)
	case "recover":
		return nil, m.Recover(true)
	case "cancel":
		return nil, m.Cancel(a.Tag.(string), false)
	case "close":
		delete(members, a.On)
		return nil, m.connection.Close()
	}
	return nil, fmt.Errorf("unknown operation %q", op)
}

func main() {
	ops.Serve(func(op string, a ask) (any, error) {
		value, err := do(op, a)
		if m := members[a.On]; m != nil && errors.Is(err, amqp.ErrClosed) {
			select {
			case told := <-m.closed: // the broker had closed it before
				if told != nil {
					err = told
				}
			default:
			}
		}
		return value, err
	}, func(err error) any {
		if told, ok := errors.AsType[*amqp.Error](err); ok && told.Code != 0 {
			return []any{told.Code, told.Reason}
		}
		return nil
	})
}
