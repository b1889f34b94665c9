// Command panics runs the cockpit over a source that panics: in a goroutine if its argument is "goroutine", in a
// command when c is pressed, in Update when R is. It is for the test that the terminal comes back.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"example.com/santui/proto"
	"example.com/santui/tui"
	"example.com/santui/tui/safe"
	"example.com/santui/tui/source"
)

type bomb struct{ where string }

func (b bomb) Nodes() []string { return []string{"otter", "weasel"} }

func (b bomb) Watch(ctx context.Context) <-chan source.Update {
	out := make(chan source.Update, 1)
	out <- source.Update{Node: "otter", LinkUp: true, Snapshot: &proto.Snapshot{Node: "otter"}}
	if b.where == "goroutine" {
		safe.Go(ctx, func() { panic("boom in a goroutine") })
	}
	return out
}

func (b bomb) Call(context.Context, string, proto.Method, any, any) error { panic("boom in a command") }
func (b bomb) RetryNow(string)                                            { panic("boom in update") }
func (b bomb) Stream(context.Context, string, proto.Method, any, func(json.RawMessage) error) error {
	return nil
}

func main() {
	code, err := tui.Run(context.Background(), bomb{os.Args[1]}, tui.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "ended by:", err)
	}
	os.Exit(code)
}
