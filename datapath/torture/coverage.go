package torture

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"example.com/santui/proto/drbd"
)

// coverage counts by kind what was drawn and what came of it, so that a run shows what it has tried.
type coverage struct {
	mu sync.Mutex
	n  map[string]int
}

// saw may be called with any lock held.
func (c *coverage) saw(format string, args ...any) {
	kind := fmt.Sprintf(format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[kind]++
}

func (c *coverage) add(o *coverage) {
	o.mu.Lock()
	kinds := maps.Clone(o.n)
	o.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	for kind, n := range kinds {
		c.n[kind] += n
	}
}

// missing are the kinds that were never seen.
func (c *coverage) missing(kinds []string) []string {
	return slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return c.n[k] > 0 })
}

// table is one line per group, which is a kind's first word.
func (c *coverage) table() string {
	var b strings.Builder
	group := ""
	for _, kind := range slices.Sorted(maps.Keys(c.n)) {
		first, rest, _ := strings.Cut(kind, ": ")
		if first != group {
			fmt.Fprintf(&b, "\n  %s:", first)
			group = first
		}
		fmt.Fprintf(&b, " %s %d,", rest, c.n[kind])
	}
	return strings.TrimRight(b.String(), ",")
}

// tap reads the packets off one direction of a connection, and damages data on its way if asked to.
type tap struct {
	head   []byte
	cmd    drbd.Cmd
	at, n  int // position in the payload, and its length
	damage int // so many data packets from now on one gets a bit turned over; 0: none does
	hit    int // where in the payload, 0: nowhere
}

// The three kinds of header by their first bytes (enum drbd_packet, struct p_header80, 95 and 100, drbd_protocol.h).
const (
	magic80  = 0x83740267
	magic95  = 0x835a
	magic100 = 0x8620ec20
)

// dataStart is behind sector, ID, sequence number and flags of a packet with data (struct p_data, drbd_protocol.h).
const dataStart = 24

// feed sees p, which it may change, pass.
func (t *tap) feed(p []byte, c *coverage) {
	for len(p) > 0 {
		if t.at < t.n {
			k := min(len(p), t.n-t.at)
			if t.hit >= t.at && t.hit < t.at+k && t.hit > 0 {
				p[t.hit-t.at] ^= 4
				c.saw("cable: damages %v", t.cmd)
				t.hit = 0
			}
			t.at += k
			p = p[k:]
			continue
		}
		t.head, p = append(t.head, p[0]), p[1:]
		if t.header() {
			t.head, t.at = t.head[:0], 0
			c.saw("packet: %v", t.cmd)
			t.aim()
		}
	}
}

// header says whether a whole one is there.
func (t *tap) header() bool {
	h := t.head
	switch {
	case len(h) == drbd.HeaderSizeH80 && binary.BigEndian.Uint32(h) == magic80:
		t.cmd, t.n = drbd.Cmd(binary.BigEndian.Uint16(h[4:])), int(binary.BigEndian.Uint16(h[6:]))
	case len(h) == drbd.HeaderSizeH80 && binary.BigEndian.Uint16(h) == magic95:
		t.cmd, t.n = drbd.Cmd(binary.BigEndian.Uint16(h[2:])), int(binary.BigEndian.Uint32(h[4:]))
	case len(h) == drbd.HeaderSizeH100 && binary.BigEndian.Uint32(h) == magic100:
		t.cmd, t.n = drbd.Cmd(binary.BigEndian.Uint16(h[6:])), int(binary.BigEndian.Uint32(h[8:]))
	case len(h) >= drbd.HeaderSizeH100:
		panic(fmt.Sprintf("torture: no header: % x", h))
	default:
		return false
	}
	return true
}

// aim decides whether the packet that begins is to be damaged.
func (t *tap) aim() {
	data := t.cmd == drbd.CmdData || t.cmd == drbd.CmdDataReply || t.cmd == drbd.CmdRSDataReply
	if !data || t.damage == 0 || t.n <= dataStart {
		return
	}
	if t.damage--; t.damage == 0 {
		t.hit = dataStart + t.n*7919%(t.n-dataStart)
	}
}
