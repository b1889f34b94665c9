package layout

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// draw paints rectangles into a picture whose cells stand for 10 columns and 1 row.
func draw(w, h int, parts map[string]Rect) string {
	rows := make([][]byte, h)
	for y := range rows {
		rows[y] = []byte(strings.Repeat(".", w/10))
	}
	for name, r := range parts {
		for y := r.Y; y < r.Y+r.H; y++ {
			for x := (r.X + 9) / 10; x < (r.X+r.W)/10; x++ {
				rows[y][x] = name[0]
			}
		}
	}
	var out []string
	for _, r := range rows {
		out = append(out, string(r))
	}
	return strings.Join(out, "\n")
}

func (o Overview) parts() map[string]Rect {
	return map[string]Rect{"h": o.Header, "1": o.First, "2": o.Second, "m": o.Middle, "e": o.Events, "c": o.Commands, "n": o.Next, "k": o.Keys}
}

func TestOverviewDrawings(t *testing.T) {
	for _, c := range []struct {
		w, h, middle int
		want         string
	}{
		{80, 24, 2, `
			hhhhhhhh
			11112222*9
			mmmmmmmm*4
			eeeeeeee*8
			nnnnnnnn
			kkkkkkkk`},
		{60, 20, 2, `
			hhhhhh
			111111*3
			222222*3
			mmmmmm*4
			eeeeee*7
			nnnnnn
			kkkkkk`},
		{80, 16, 5, `
			hhhhhhhh
			11111111*3
			22222222*3
			mmmmmmmm*4
			eeeeeeee*3
			nnnnnnnn
			kkkkkkkk`},
		{160, 48, 2, `
			hhhhhhhhhhhhhhhh
			1111111122222222*9
			1111111122222222*9
			mmmmmmmmmmmmmmmm*4
			eeeeeeeee.cccccc*9
			eeeeeeeee.cccccc*9
			eeeeeeeee.cccccc*5
			nnnnnnnnnnnnnnnn
			kkkkkkkkkkkkkkkk`},
	} {
		var want []string
		for _, l := range strings.Fields(c.want) {
			row, times, repeated := strings.Cut(l, "*")
			n := 1
			if repeated {
				n = int(times[0] - '0')
			}
			for range n {
				want = append(want, row)
			}
		}
		if got := draw(c.w, c.h, ForOverview(c.w, c.h, c.middle, 1).parts()); got != strings.Join(want, "\n") {
			t.Errorf("%dx%d:\n%s\nwant\n%s", c.w, c.h, got, strings.Join(want, "\n"))
		}
	}
}

// tiles reports whether the parts cover the window exactly once.
func tiles(w, h int, parts map[string]Rect) bool {
	seen := make([]int, w*h)
	for _, r := range parts {
		for y := r.Y; y < r.Y+r.H; y++ {
			for x := r.X; x < r.X+r.W; x++ {
				if x < 0 || y < 0 || x >= w || y >= h {
					return false
				}
				seen[y*w+x]++
			}
		}
	}
	for _, n := range seen {
		if n != 1 {
			return false
		}
	}
	return true
}

func TestEveryWindowIsTiled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(1, 300).Draw(t, "w"), rapid.IntRange(1, 100).Draw(t, "h")
		o := ForOverview(w, h, rapid.IntRange(-1, 60).Draw(t, "middle"), rapid.IntRange(0, 3).Draw(t, "next"))
		if !tiles(w, h, o.parts()) {
			t.Fatalf("overview %dx%d: %+v", w, h, o)
		}
		p := ForPage(w, h, rapid.IntRange(-1, 60).Draw(t, "foot"))
		if !tiles(w, h, map[string]Rect{"h": p.Header, "m": p.Main, "s": p.Side, "f": p.Foot, "k": p.Keys}) {
			t.Fatalf("page %dx%d: %+v", w, h, p)
		}
		if p.Size != Tiny && p.Main.H < 5 {
			t.Fatalf("page %dx%d leaves %d lines", w, h, p.Main.H)
		}
	})
}

func TestNothingForNoWindow(t *testing.T) {
	for _, o := range []Rect{ForOverview(0, 0, 2, 1).Header, ForPage(-1, -1, 2).Header} {
		if o != (Rect{}) {
			t.Errorf("%+v", o)
		}
	}
}
