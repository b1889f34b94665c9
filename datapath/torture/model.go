package torture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"example.com/santui/datapath/block/blocktest"
)

const sector = 512

// window is a part of the device that the application uses.
type window struct {
	off, n int64
	cells  []cell
	fork   []cell // of the node that went its own way, see world.fork
}

// cell is what is known of one sector.
type cell struct {
	now     []uint32 // writes that a read may find
	durable []uint32 // writes that may be found after the caches of all copies are lost; a superset of now
}

// record is one write, from before it is handed to the engine.
type record struct {
	start, end int64 // ticks of the model's clock; end 0 while under way
	acked      bool
	zero       bool
}

// level says how good a node's copy is.
type level uint8

const (
	behind  level = iota // something acknowledged may be missing
	flushed              // it lost power: it has all that was flushed
	current              // it has all that was acknowledged
)

func (l level) String() string { return [...]string{"behind", "flushed", "current"}[l] }

// model is what the application was promised. Package documentation says what that is.
type model struct {
	clock    int64
	writes   []record // write 0 is the fresh device, zeroes
	windows  []*window
	level    [2]level
	target   [2]bool      // a resync to this node has been seen, and its end has not
	crashed  [2]bool      // it lost power as Primary and was not in sync since
	lone     [2]bool      // it was, or was becoming, Primary without its peer and was not in sync since: it may have a generation of its own
	solo     [2]bool      // it was Primary without its peer since it last saw it
	tainted  [2]bool      // its disk failed; it cannot be current until the engine has noticed
	failing  [2]bool      // calls on its disk may fail
	failed   [2]time.Time // when one did last
	diskLost bool         // since both copies were last equal
	full     bool         // a full sync was asked for since
	forked   int          // the node that holds the fork, -1: none does
	began    [2]bool      // it has begun to resync a forked peer, which has not been seen as the target
	apart    apart
	unread   bool // a verify met blocks since that a disk could not give
	flushes  int
	acks     int
}

// newModel draws windows on a device of that size; with wide there is one over most of it.
func newModel(rnd *rand.Rand, size int64, wide bool) *model {
	m := &model{writes: []record{{acked: true, zero: true}}, level: [2]level{current, current}, forked: -1}
	m.apart.touched = map[int64]time.Time{}
	base := int64(0)
	if wide {
		base = size * 3 / 4 / 4096 * 4096
		m.add(&window{n: base})
	}
	n := 4 + rnd.IntN(8)
	for i := range n {
		part := (size - base) / int64(n) / 4096 * 4096
		w := &window{n: 4096 * (4 + rnd.Int64N(28))}
		if i == 0 && rnd.IntN(2) == 0 {
			w.n = 3 << 20
		}
		w.n = min(w.n, part)
		w.off = base + int64(i)*part + 4096*rnd.Int64N((part-w.n)/4096+1)
		m.add(w)
	}
	return m
}

// add takes a window of zeroes into use.
func (m *model) add(w *window) {
	w.cells = make([]cell, w.n/sector)
	for k := range w.cells {
		w.cells[k] = cell{now: []uint32{0}, durable: []uint32{0}}
	}
	m.windows = append(m.windows, w)
}

// at gives what is known of a range as node i has it.
func (m *model) at(i int, off, n int64) []cell {
	for _, w := range m.windows {
		if off >= w.off && off+n <= w.off+w.n {
			return m.side(i, w)[(off-w.off)/sector : (off+n-w.off)/sector]
		}
	}
	panic("torture: access outside the windows")
}

func (m *model) side(i int, w *window) []cell {
	if i == m.forked {
		return w.fork
	}
	return w.cells
}

// mayHaveBegun says whether node i may have begun a generation since both were in sync. A crashed Primary may have lost its
// link just then.
func (m *model) mayHaveBegun(i int) bool { return m.lone[i] || m.crashed[i] }

func (m *model) tick() int64 {
	m.clock++
	return m.clock
}

// begin records a write before it starts.
func (m *model) begin(i int, off, n int64, zero bool) uint32 {
	id := uint32(len(m.writes))
	m.writes = append(m.writes, record{start: m.tick(), zero: zero})
	cells := m.at(i, off, n)
	for k := range cells {
		cells[k].now = append(cells[k].now, id)
		cells[k].durable = append(cells[k].durable, id)
	}
	m.apart.touch(i, off, n)
	return id
}

// fill makes the content of write id.
func fill(p []byte, id uint32, off int64) {
	for i := 0; i < len(p); i += sector {
		s := uint64(off+int64(i)) / sector
		for k := 0; k < sector; k += 8 {
			binary.LittleEndian.PutUint64(p[i+k:], uint64(id)<<32|s)
		}
	}
}

// identify gives the write whose content a sector has; 0 for zeroes.
func identify(p []byte, off int64) (uint32, error) {
	for k := 8; k < sector; k += 8 {
		if !bytes.Equal(p[k:k+8], p[:8]) {
			return 0, fmt.Errorf("sector %d is torn", off/sector)
		}
	}
	return beginning(p, off)
}

// beginning is identify for a sector that is known not to be torn.
func beginning(p []byte, off int64) (uint32, error) {
	v := binary.LittleEndian.Uint64(p)
	if v == 0 {
		return 0, nil
	}
	if s := v & 0xffffffff; s != uint64(off/sector) && s != anywhere {
		return 0, fmt.Errorf("sector %d holds what was written to sector %d by write %d", off/sector, s, v>>32)
	}
	return uint32(v >> 32), nil
}

// over says that a cannot be found any more once b is sure to be there.
func (m *model) over(a, b uint32) bool {
	e := m.writes[a].end
	return a != b && (a == 0 || e > 0 && e < m.writes[b].start)
}

// finish records the outcome of a write.
func (m *model) finish(i int, id uint32, off, n int64, acked bool) {
	r := &m.writes[id]
	if r.end > 0 {
		return
	}
	r.end, r.acked = m.tick(), acked
	m.apart.touch(i, off, n)
	if !acked {
		return
	}
	m.acks++
	cells := m.at(i, off, n)
	for k := range cells {
		if slices.Contains(cells[k].now, id) { // else it went down with a fork
			cells[k].now = m.prune(cells[k].now, func(v uint32) bool { return m.over(v, id) })
		}
	}
}

func (m *model) prune(list []uint32, gone func(uint32) bool) []uint32 {
	kept := list[:0]
	for _, v := range list {
		if !gone(v) {
			kept = append(kept, v)
		}
	}
	return kept
}

// flush records a flush that began at since and succeeded.
func (m *model) flush(i int, since int64) {
	m.flushes++
	for _, w := range m.windows {
		cells := m.side(i, w)
		for k := range cells {
			c := &cells[k]
			if len(c.durable) < 2 {
				continue
			}
			for _, id := range append([]uint32(nil), c.durable...) {
				if r := m.writes[id]; r.acked && r.end < since {
					// What a loss of caches brought back into reach is not over, though it was before.
					c.durable = m.prune(c.durable, func(v uint32) bool { return m.over(v, id) && !slices.Contains(c.now, v) })
				}
			}
		}
	}
}

// widen gives up what was not flushed: the caches that had it are gone.
func (m *model) widen() {
	for _, w := range m.windows {
		for i := range w.cells {
			c := &w.cells[i]
			c.now = append(c.now[:0], c.durable...)
		}
	}
}

// seen says whether a sector may hold id, and gives the writes that look like that.
func (m *model) seen(list []uint32, id uint32) (same []uint32) {
	for _, v := range list {
		if v == id || id == 0 && m.writes[v].zero {
			same = append(same, v)
		}
	}
	return same
}

// verify compares p, read at off while nothing was written, with the promise; then only what was seen is possible, now and, but
// for what a cache may bring back, after a loss of power. With sure, what was seen is durable too.
func (m *model) verify(node int, p []byte, off int64, back cached, sure bool) error {
	cells := m.at(node, off, int64(len(p)))
	for i := range cells {
		c, at := &cells[i], off+int64(i)*sector
		id, err := identify(p[i*sector:(i+1)*sector], at)
		if err != nil {
			return err
		}
		same := m.seen(c.now, id)
		if len(same) == 0 {
			return fmt.Errorf("sector %d (block %d, extent %d) holds %s, promised is %s; after loss of all caches %s",
				at/sector, at/4096, at>>22, m.describe(id), m.list(c.now), m.list(c.durable))
		}
		// What was possible and is not there is lost for good.
		lost := append([]uint32(nil), c.now...)
		c.durable = m.prune(c.durable, func(v uint32) bool {
			return slices.Contains(lost, v) && !slices.Contains(same, v) && !back[at].has(m, v)
		})
		c.now = append(c.now[:0:0], same...)
		if sure {
			c.durable = append(c.durable[:0:0], same...)
		}
	}
	return nil
}

// cached is what the sectors of a range may hold after a loss of power, where that is not certain: of two writes of one
// sector that were under way at the same time the cache may have the one over the other.
type cached map[int64]contents

type contents []uint32

func (c contents) has(m *model, v uint32) bool {
	return slices.ContainsFunc(c, func(id uint32) bool { return id == v || id == 0 && m.writes[v].zero })
}

// mayBring looks at the caches of all copies that count.
func (m *model) mayBring(off, n int64, disks [2]*blocktest.Mem) (cached, error) {
	back := cached{}
	for i, d := range disks {
		if m.level[i] == behind && m.forked != i {
			continue
		}
		var last int64 = -1
		var first contents
		err := d.AfterPowerCut(off, n, func(at int64, content []byte) error {
			id, err := beginning(content, at)
			if err != nil {
				return nil //nolint:nilerr // torn; checkSafe looks at that
			}
			if at != last {
				last, first = at, contents{id}
				return nil
			}
			if back[at] == nil {
				back[at] = append(back[at], first...)
			}
			back[at] = append(back[at], id)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return back, nil
}

// safe looks at what a node's disk may hold after a loss of power: what was flushed must be there.
func (m *model) safe(node int, d *blocktest.Mem) error {
	for _, w := range m.windows {
		cells := m.side(node, w)
		err := d.AfterPowerCut(w.off, w.n, func(off int64, content []byte) error {
			id, err := beginning(content, off)
			c := &cells[(off-w.off)/sector]
			if err == nil && !m.may(c.durable, id) {
				err = fmt.Errorf("sector %d (block %d, extent %d) may then hold %s, flushed is %s",
					off/sector, off/4096, off>>22, m.describe(id), m.list(c.durable))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// may is whether seen gives any.
func (m *model) may(list []uint32, id uint32) bool {
	return slices.ContainsFunc(list, func(v uint32) bool { return v == id || id == 0 && m.writes[v].zero })
}

// snapshot remembers what a read that starts now may find.
func (m *model) snapshot(node int, off, n int64) [][]uint32 {
	cells := m.at(node, off, n)
	out := make([][]uint32, len(cells))
	for i := range cells {
		out[i] = append([]uint32(nil), cells[i].now...)
	}
	return out
}

// check compares what a read found, that started at since with snapshot before.
func (m *model) check(node int, p []byte, off int64, before [][]uint32, since int64) error {
	cells := m.at(node, off, int64(len(p)))
	for i := range cells {
		at := off + int64(i)*sector
		id, err := identify(p[i*sector:(i+1)*sector], at)
		if err != nil {
			return err
		}
		late := func() bool { // it came and went while the read was under way
			if id != 0 {
				return m.writes[id].start > since
			}
			for _, r := range m.writes {
				if r.zero && r.start > since {
					return true
				}
			}
			return false
		}
		if len(m.seen(before[i], id)) == 0 && len(m.seen(cells[i].now, id)) == 0 && !late() {
			return fmt.Errorf("read of sector %d (block %d, extent %d) found %s, promised is %s, before it began %s",
				at/sector, at/4096, at>>22, m.describe(id), m.list(cells[i].now), m.list(before[i]))
		}
	}
	return nil
}

func (m *model) describe(id uint32) string {
	if id == 0 {
		return "zeroes"
	}
	if int(id) >= len(m.writes) {
		return fmt.Sprintf("write %d, which never was", id)
	}
	r := m.writes[id]
	state := "failed"
	switch {
	case r.end == 0:
		state = "under way"
	case r.acked:
		state = "acknowledged"
	}
	kind := ""
	if r.zero {
		kind = " of zeroes"
	}
	return fmt.Sprintf("write %d%s (%s, %d-%d)", id, kind, state, r.start, r.end)
}

func (m *model) list(ids []uint32) string {
	s := ""
	for i, id := range ids {
		if i > 0 {
			s += " or "
		}
		s += m.describe(id)
	}
	return s
}
