package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/santui/proto"
)

func TestLoadPairs(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"example", Example, ""},
		{"unknown", "[[pair]]\nname='a'\ncolour='red'\n", `unknown setting "pair.colour"`},
		{"one node", "[[pair]]\nname='a'\n[[pair.node]]\nname='x'\n", "has 1 nodes"},
		{"twice", Example + Example, "twice"},
		{"syntax", "[[pair\n", "At line"},
		{"same", "[[pair]]\nname='a'\n[[pair.node]]\nname='x'\n[[pair.node]]\nname='x'\n", "two different names"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadPairs(path)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && CodeOf(err) != ExitUsage {
				t.Errorf("exit code %d", CodeOf(err))
			}
		})
	}
	if _, err := LoadPairs(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "[[pair]]") {
		t.Errorf("a missing file must show an example: %v", err)
	}
}

func TestFind(t *testing.T) {
	c := Pairs{Pair: []Pair{{Name: "a", Node: []Node{{Name: "x"}, {Name: "y"}}}, {Name: "b"}}}
	if p, err := c.Find(""); err != nil || p.Name != "a" {
		t.Errorf("%v %v", p, err)
	}
	if _, err := c.Find("z"); err == nil || !strings.Contains(err.Error(), "a, b") {
		t.Error(err)
	}
	if _, err := c.Pair[0].Find("z"); err == nil || !strings.Contains(err.Error(), "x and y") {
		t.Error(err)
	}
}

func TestCodeOf(t *testing.T) {
	for err, want := range map[error]int{
		nil: ExitDone, errors.New("x"): ExitBug, Usagef("x"): ExitUsage, context.Canceled: ExitInterrupted,
		proto.Errorf(proto.CodeVeto, "x"): ExitVeto, proto.Errorf(proto.CodeLocked, "x"): ExitLocked,
		proto.Errorf(proto.CodeUnreachable, "x"): ExitUnreachable, proto.Errorf(proto.CodeNotConfirmed, "x"): ExitNotAllowed,
		proto.Errorf(proto.CodeFailed, "x"): ExitAttention, proto.Errorf(proto.CodeInternal, "x"): ExitBug,
		Exit(ExitAttention, nil): ExitAttention,
	} {
		if got := CodeOf(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}
