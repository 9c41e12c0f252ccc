// Package ops is what the Go programs share: one operation a line on stdin, {"op": NAME, ...}, one answer a line on stdout:
// {"ok": VALUE}, {"error": WHAT THE BROKER SAID}, or {"failed": TEXT} for anything else.
package ops

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// Serve answers until stdin ends. Ask holds every field that an operation may have; broker makes a broker's error of an error, or nil.
func Serve[Ask any](do func(op string, ask Ask) (any, error), broker func(error) any) {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var op struct{ Op string }
		var ask Ask
		var value any
		err := json.Unmarshal(in.Bytes(), &op)
		if err == nil {
			err = json.Unmarshal(in.Bytes(), &ask)
		}
		if err == nil {
			value, err = do(op.Op, ask)
		}
		answer := map[string]any{"ok": value}
		if err != nil {
			if told := broker(err); told != nil {
				answer = map[string]any{"error": told}
			} else {
				answer = map[string]any{"failed": fmt.Sprintf("%T: %v", err, err)}
			}
		}
		if err := out.Encode(answer); err != nil {
			panic(err)
		}
	}
}
