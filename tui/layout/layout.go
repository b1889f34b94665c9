package layout

// Rect is a part of the window, in cells; the zero Rect is a part that is not shown.
type Rect struct{ X, Y, W, H int }

// Size is how much room there is.
type Size int

// The sizes. Tiny is below 60x16: one block of text. Small has one line per node, Normal two panels side by side, Wide
// adds the commands beside the events.
const (
	Tiny Size = iota
	Small
	Normal
	Wide
)

// The smallest windows of each size.
const (
	smallW, smallH   = 60, 16
	normalW, normalH = 80, 24
	wideW, wideH     = 140, 40
)

// SizeOf grades a window.
func SizeOf(w, h int) Size {
	switch {
	case w < smallW || h < smallH:
		return Tiny
	case w < normalW || h < normalH:
		return Small
	case w < wideW || h < wideH:
		return Normal
	default:
		return Wide
	}
}

// Overview is the home screen: header, the two nodes, what happens between them, events, commands, the line that says
// what to do next, and the keys.
type Overview struct {
	Size                                                        Size
	Header, First, Second, Middle, Events, Commands, Next, Keys Rect
}

// ForOverview arranges the home screen. middle is how many lines of text the panel between the nodes and the events
// needs; it gets at least 2 and never so many that the events lose their frame. next is how many lines the one that says
// what to do next needs; a second one is taken from the events if that leaves them a line.
func ForOverview(w, h, middle, next int) Overview {
	o := Overview{Size: SizeOf(w, h)}
	if o.Size == Tiny {
		o.Header = Rect{0, 0, max(w, 0), max(h, 0)}
		return o
	}
	o.Header = Rect{0, 0, w, 1}
	y := 1
	switch o.Size {
	case Small:
		o.First, o.Second = Rect{0, 1, w, 3}, Rect{0, 4, w, 3}
		y = 7
	default:
		nodes := 9
		if o.Size == Wide {
			nodes = 18
		} else if h > normalH {
			nodes += min((h-normalH)/2, 8)
		}
		o.First, o.Second = Rect{0, 1, w / 2, nodes}, Rect{w / 2, 1, w - w/2, nodes}
		y += nodes
	}
	rest := h - y - 2 // without the next line and the keys
	mid := min(max(middle, 2)+2, rest-3)
	o.Middle = Rect{0, y, w, mid}
	if next > 1 && rest-mid > 3 {
		rest--
		next = 2
	} else {
		next = 1
	}
	o.Events = Rect{0, y + mid, w, rest - mid}
	if o.Size == Wide {
		left := w * 3 / 5
		o.Events.W = left
		o.Commands = Rect{left, y + mid, w - left, rest - mid}
	}
	o.Next, o.Keys = Rect{0, h - 1 - next, w, next}, Rect{0, h - 1, w, 1}
	return o
}

// Page is a screen with one main panel, such as a list or a page of the wizard; wide windows show the nodes beside it.
type Page struct {
	Size                           Size
	Header, Main, Side, Foot, Keys Rect
}

// ForPage arranges a page whose foot has that many lines.
func ForPage(w, h, foot int) Page {
	p := Page{Size: SizeOf(w, h)}
	if p.Size == Tiny {
		p.Header = Rect{0, 0, max(w, 0), max(h, 0)}
		return p
	}
	foot = min(max(foot, 0), h-2-5)
	p.Header = Rect{0, 0, w, 1}
	p.Main = Rect{0, 1, w, h - 2 - foot}
	if p.Size == Wide {
		p.Main.W = w * 3 / 5
		p.Side = Rect{p.Main.W, 1, w - p.Main.W, p.Main.H}
	}
	if foot > 0 {
		p.Foot = Rect{0, 1 + p.Main.H, w, foot}
	}
	p.Keys = Rect{0, h - 1, w, 1}
	return p
}
