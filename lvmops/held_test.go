package lvmops

import (
	"errors"
	"testing"
	"time"
)

func TestHold(t *testing.T) {
	e := newExec()
	h, err := e.Hold("sh", "-c", "exec cat")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-h.Gone():
		t.Fatal("it ended by itself")
	case <-time.After(20 * time.Millisecond):
	}
	h.Release()
	select {
	case <-h.Gone():
	default:
		t.Fatal("Release returned before the program had ended")
	}
	h.Release()

	for _, tt := range []struct {
		argv  []string
		cause error
		said  string
	}{
		{[]string{"santui-no-such-program"}, ErrNotFound, ""},
		{[]string{"sh", "-c", "echo refused >&2; exit 1"}, ErrExit, "refused"},
		{[]string{"sh", "-c", "echo something else; cat"}, ErrExit, ""},
	} {
		var xe *ExecError
		if h, err := e.Hold(tt.argv...); h != nil || !errors.Is(err, tt.cause) || !errors.As(err, &xe) || xe.Said != tt.said {
			t.Errorf("%q: %v, %v", tt.argv, h, err)
		}
	}
}
