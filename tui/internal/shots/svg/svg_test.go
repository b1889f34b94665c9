package svg

import (
	"strings"
	"testing"
)

func TestDraw(t *testing.T) {
	out := string(Draw("\x1b[1;38;5;75mPRIMARY\x1b[0m <a>\n─█", 20, 2, Dark))
	for _, want := range []string{`fill="#5fafff" font-weight="bold">PRIMARY<`, `>&lt;a&gt;<`, `<path d="M12 `, `<rect x="21"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	if strings.ContainsRune(out, '\x1b') {
		t.Error("an escape sequence is left")
	}
}

func TestColours(t *testing.T) {
	for n, want := range map[int]string{0: "#000000", 15: "#ffffff", 16: "#000000", 75: "#5fafff", 214: "#ffaf00", 231: "#ffffff", 240: "#585858", 255: "#eeeeee", 999: "#c8c8c8"} {
		if got := colour(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
