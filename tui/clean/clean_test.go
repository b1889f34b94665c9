package clean

import (
	"testing"
	"time"

	"example.com/santui/proto"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestString(t *testing.T) {
	for in, want := range map[string]string{
		"/srv/store":                     "/srv/store",
		"a\x1b[2Jb":                      "ab",
		"x\x1b]52;c;ZXZpbA==\x07y":       "xy",
		"one\ttwo\nthree\r":              "one two three ",
		"bell\x07 nul\x00":               "bell? nul?",
		"csi\u009b31mred":                "csi?31mred",
		"rtl \u202egnp.exe":              "rtl ?gnp.exe",
		"bad \xff utf8":                  "bad ? utf8",
		"größe 日本":                       "größe 日本",
		"zero\u200bwidth\u2028newline x": "zerowidth newline x",
	} {
		if got := String(in); got != want {
			t.Errorf("String(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestStringNeverLeavesControls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := String(string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")))
		for _, r := range s {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("control %U left in %q", r, s)
			}
		}
	})
}

func TestValueCopiesDeeply(t *testing.T) {
	at := time.Now()
	in := proto.Snapshot{Node: "ot\x1b[1mter", At: at, Op: &proto.Op{Steps: []proto.StepStatus{{
		Result: proto.StepResult{Output: []string{"a\x1b[2J"}, Err: &proto.Error{Text: "b\a"}}}}},
		Resources: []proto.Resource{{Name: "r0", Role: proto.Primary}}}
	got := Value(in)
	if got.Node != "otter" || got.Op.Steps[0].Result.Output[0] != "a" || got.Op.Steps[0].Result.Err.Text != "b?" {
		t.Errorf("not clean: %+v", got)
	}
	if in.Op.Steps[0].Result.Output[0] != "a\x1b[2J" {
		t.Error("the original was changed")
	}
	plain := proto.Snapshot{Node: "otter", At: at, Resources: []proto.Resource{{Name: "r0", Role: proto.Primary}}}
	if d := cmp.Diff(plain, Value(plain)); d != "" {
		t.Error(d)
	}
	if m := Value(map[string]string{"k\a": "v"}); m["k?"] != "v" {
		t.Errorf("map: %v", m)
	}
}
