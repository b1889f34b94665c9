package agent

import (
	"context"
	"testing"

	"example.com/santui/proto"
)

func TestPatient(t *testing.T) {
	slow := proto.Stack{Err: "the first sectors of /dev/nbd0 could not be read: does not answer; it may be blocked in the kernel"}
	whole, broken := proto.Stack{FS: "ext4"}, proto.Stack{Err: "lvm failed"}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		answers []proto.Stack
		looks   int
		want    proto.Stack
		asked   int
	}{
		{"slow once", t.Context(), []proto.Stack{slow, whole}, 4, whole, 2},
		{"always slow", t.Context(), []proto.Stack{slow, slow, slow, slow}, 4, slow, 4},
		{"broken is not slow", t.Context(), []proto.Stack{broken}, 4, broken, 1},
		{"only one look", t.Context(), []proto.Stack{slow}, 1, slow, 1},
		{"no time left", gone, []proto.Stack{slow}, 4, slow, 1},
	} {
		asked := 0
		got := patient(tt.ctx, tt.looks, func() proto.Stack { asked++; return tt.answers[asked-1] })
		if asked != tt.asked || got.Err != tt.want.Err || got.FS != tt.want.FS {
			t.Errorf("%s: %+v after %d looks", tt.name, got, asked)
		}
	}
}
