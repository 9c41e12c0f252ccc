package main

import (
	"fmt"
	"strings"
)

// The records of `muslin bench` (events.rs); scripts/bench-producer.sh checks that they are the same.

const poolSize = 10_000

var (
	states = []string{"created", "paid", "packed", "shipped", "delivered", "returned"}
	words  = []string{
		"amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll",
		"larch", "marsh", "north", "ocean", "plain",
	}
)

type event struct{ key, value []byte }

func pool(size int) []event {
	events := make([]event, poolSize)
	for n := range events {
		key := fmt.Sprintf("order-%05d", n)
		head := fmt.Sprintf(`{"id":%d,"is":"%s","sum":%d.%02d,"t":"`, poolSize+n, states[n%len(states)], 10+n%90, n*7%100)
		room := max(size-len(key)-len(head)-len(`"}`), 0)
		var text strings.Builder
		for word := uint64(n); text.Len() < room; {
			word = word*31 + 7
			text.WriteString(words[word/16%uint64(len(words))])
			text.WriteByte(' ')
		}
		events[n] = event{[]byte(key), []byte(head + text.String()[:room] + `"}`)}
	}
	return events
}
