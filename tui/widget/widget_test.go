package widget

import (
	"strings"
	"testing"

	"example.com/santui/tui/theme"
	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/termenv"
	"pgregory.net/rapid"
)

var (
	mono  = theme.New(theme.Mono, false, termenv.Ascii)
	ascii = theme.New(theme.Mono, true, termenv.Ascii)
)

func TestPanel(t *testing.T) {
	p := Panel{Title: "PRIMARY otter", Foot: "l: all", Lines: []string{"disk  UpToDate", "a line that is too long"}}
	want := "" +
		"┌─ PRIMARY otter ────┐\n" +
		"│ disk  UpToDate     │\n" +
		"│ a line that is to… │\n" +
		"│                    │\n" +
		"└─────────── l: all ─┘"
	if got := strings.Join(p.Draw(mono, 22, 5), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	p.Focus = true
	want = "" +
		"+> PRIMARY otter ----+\n" +
		"| disk  UpToDate     |\n" +
		"+----------- l: all -+"
	if got := strings.Join(p.Draw(ascii, 22, 3), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestBar(t *testing.T) {
	for done, want := range map[float64]string{-1: "....", 0: "....", 0.26: "#...", 0.999: "###.", 1: "####", 7: "####"} {
		if got := Bar(ascii, done, 4); got != want {
			t.Errorf("%v: %q", done, got)
		}
	}
}

func TestEndsAndWindow(t *testing.T) {
	if got := Ends(mono, "left", "right", 12); got != "left   right" {
		t.Errorf("%q", got)
	}
	if got := Ends(mono, "left", "right", 8); got != "left    " {
		t.Errorf("%q", got)
	}
	lines := []string{"a", "b", "c"}
	if got, top := Window(lines, 9, 2); strings.Join(got, "") != "bc" || top != 1 {
		t.Errorf("%v %d", got, top)
	}
	if got, top := Window(lines, -4, 9); len(got) != 3 || top != 0 {
		t.Errorf("%v %d", got, top)
	}
}

func TestEverySizeIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(-2, 90).Draw(t, "w"), rapid.IntRange(-2, 20).Draw(t, "h")
		text := rapid.SliceOfN(rapid.StringOf(rapid.RuneFrom([]rune("ab -日本é…"))), 0, 12).Draw(t, "lines")
		p := Panel{Title: strings.Join(text, " "), Foot: "foot", Lines: text, Focus: rapid.Bool().Draw(t, "focus")}
		out := p.Draw(mono, w, h)
		if len(out) != max(h, 0) {
			t.Fatalf("%d lines for height %d", len(out), h)
		}
		for _, l := range out {
			if n := ansi.StringWidth(l); n != max(w, 0) {
				t.Fatalf("%d cells for width %d: %q", n, w, l)
			}
		}
		if n := ansi.StringWidth(Bar(mono, rapid.Float64().Draw(t, "done"), w)); n != max(w, 0) {
			t.Fatalf("bar of %d cells for %d", n, w)
		}
	})
}

func TestPathsKeepTheirEnd(t *testing.T) {
	th := mono
	for _, c := range []struct {
		in   string
		w    int
		want string
	}{
		{"umount /var/tmp/santui-demo-83/otter/mnt", 40, "umount /var/tmp/santui-demo-83/otter/mnt"},
		{"umount /var/tmp/santui-demo-83/otter/mnt", 24, "umount …/otter/mnt"},
		{"umount /var/tmp/santui-demo-83/otter/mnt", 14, "umount …/mnt"},
		{"mount /dev/drbd0 /var/tmp/x/otter/mnt", 30, "mount /dev/drbd0 …/x/otter/mnt"},
		{"vgchange -an storage", 12, "vgchange -a…"},
		{"dd of=/var/tmp/x/otter/mnt/1", 16, "dd of=…/mnt/1"},
		{"/a/b", 3, "…/b"}, {"", 3, ""}, {"a b c", 0, ""},
	} {
		if got := strings.TrimRight(FitPaths(th, c.in, c.w), " "); got != c.want {
			t.Errorf("%q in %d: %q, want %q", c.in, c.w, got, c.want)
		}
	}
}

func TestWrapCommand(t *testing.T) {
	for _, c := range []struct {
		in   string
		w    int
		want string
	}{
		{"umount /srv/santui-demo-1/mnt", 24, "umount|/srv/santui-demo-1/mnt"}, {"a b c", 3, "a b|c"}, {"abcdefgh i", 3, "abc|def|gh|i"}, {"", 5, ""},
	} {
		if got := strings.Join(WrapCommand(c.in, c.w), "|"); got != c.want {
			t.Errorf("%q in %d: %q", c.in, c.w, got)
		}
	}
}

func TestWrapKeepsDatesWhole(t *testing.T) {
	if got := strings.Join(Wrap("last write 2026-11-28 22:23:15", 18), "|"); got != "last write|2026-11-28|22:23:15" {
		t.Errorf("%q", got)
	}
}
