package torture

import (
	"context"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block/blocktest"
	"example.com/santui/datapath/meta"
	"example.com/santui/proto"
)

// keepSize remembers how large the node's disk is, where a loss of power does not reach.
func (inc *incarnation) keepSize(n int64) error {
	if inc.isDead() {
		return errPower
	}
	inc.n.kept.Store(n)
	return nil
}

func (n *node) lastSize() int64 { return n.kept.Load() }

// platters are a node's disk, whether it has power or not.
func (n *node) platters() *blocktest.Mem {
	if n.inc != nil {
		return n.inc.mem
	}
	return n.mem
}

const maxDevice = 160 << 20

// grow enlarges a disk or two, or asks a node to make use of that.
func (w *world) grow(inc *incarnation) {
	if w.chance(50) {
		if w.chance(40) {
			w.arm(w.incOf(w.rnd.IntN(2)), 100)
		}
		w.command(inc, "resize", func(ctx context.Context) error {
			err := inc.res.Resize(ctx, false)
			w.occupy(inc)
			return err
		})
		return
	}
	if !w.outside() && (w.nodes[0].lastSize() == 0 || w.nodes[1].lastSize() == 0) {
		return // metadata on a disk that grows before it was ever attached is not found, as with DRBD
	}
	both := w.chance(70)
	step := int64(1+w.rnd.IntN(8)) << 20
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.disk == w.devices[0] && w.disk == w.devices[1] && w.disk+step <= maxDevice {
		w.occupied = w.disk // up to there it has held metadata
		w.disk += step
	}
	for i, n := range w.nodes {
		if w.devices[i] < w.disk && (both || i == inc.n.i) {
			w.note("disk of %s grows from %d to %d", n.name, w.devices[i], w.disk)
			w.model.apart.grown += w.disk - w.devices[i]
			w.devices[i] = w.disk
			n.platters().Extend(w.disk)
			if n.inc == nil {
				n.mem.Reopen()
			}
		}
	}
}

// occupy takes windows in the part into use by which the device of a node has grown. They lie behind what held metadata.
func (w *world) occupy(inc *incarnation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !inc.isDead() && w.app == inc {
		w.occupyTo(inc.res.Status().Size)
	}
}

func (w *world) occupyTo(size int64) {
	if n := min(size-w.occupied, 1<<20) / 4096 * 4096; n > 0 {
		w.note("applications use the device from %d on", w.occupied)
		w.model.add(&window{off: w.occupied, n: n})
		w.occupied = size
	}
}

// usable is how large the device is to become.
func (w *world) usable() int64 { return w.usableOf(w.disk) }

// usableOf is how large a device a disk of a size can give.
func (w *world) usableOf(disk int64) int64 {
	if w.outside() {
		return disk
	}
	l, err := meta.LayoutFor(disk)
	if err != nil {
		return w.size
	}
	return l.UsableSize
}

// stretch brings disks and device to the size that they are meant to have.
func (w *world) stretch(inc *incarnation, s *datapath.Status) bool {
	w.mu.Lock()
	i := inc.n.i
	if w.devices[i] < w.disk {
		w.devices[i] = w.disk
		inc.mem.Extend(w.disk)
	}
	w.mu.Unlock()
	if !inSync(s) || s.Size == w.usable() {
		return false
	}
	w.command(inc, "resize", func(ctx context.Context) error { return inc.res.Resize(ctx, false) })
	return true
}

// regrow attaches a disk that has grown while the device did without it: as it was it is too small for that.
func (w *world) regrow(inc *incarnation) {
	if inc.res.Status().Role == proto.Primary {
		w.demote(inc) // the peer's copy is the only one: it may not disconnect
		return
	}
	w.command(inc, "disconnect, attach, resize, connect", func(ctx context.Context) error {
		if err := inc.res.Disconnect(ctx, false); err != nil {
			return err
		}
		if err := inc.res.Attach(ctx); err != nil {
			return err
		}
		if err := inc.res.Resize(ctx, false); err != nil {
			return err
		}
		return inc.res.Connect(ctx, false)
	})
}

// grown takes note of the size of a pair in order. The lock is held.
func (w *world) grown() {
	if w.twist.grow {
		w.size = w.usable()
		for _, n := range w.nodes {
			w.occupyTo(n.inc.res.Status().Size)
		}
	}
}

// openMeta looks at a disk, and at that for external metadata, as an attach would.
func (n *node) openMeta(d, md *blocktest.Mem) (*meta.Metadata, error) {
	opts := meta.OpenOptions{ALExtents: n.w.hardware.alExtentsOf(n), MetaDisk: n.w.metaDisk(md)}
	m, err := meta.Open(d, opts)
	if last := n.lastSize(); err != nil && last > 0 && last < d.Size() {
		opts.DeviceSize = last
		m, err = meta.Open(d, opts)
	}
	return m, err
}
