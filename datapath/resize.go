package datapath

import (
	"context"
	"errors"
	"fmt"

	"example.com/santui/datapath/meta"
	"example.com/santui/datapath/state"
)

// resize carries out cmdResize. The metadata is where it belongs before anybody hears of the new size.
func (o *owner) resize(q *request, assumeClean bool) {
	if _, _, err := state.Step(o.st, state.Resize{OwnSize: o.st.OwnSize}); err != nil {
		o.refused(q, err) // not now; the disk is not touched
		return
	}
	own, err := o.grown()
	if err != nil {
		q.reply <- o.r.explain(q.cmd, fmt.Errorf("resize: %w", err))
		return
	}
	o.id++
	o.waiting[o.id] = q
	id := o.id
	if err := o.step(state.Resize{ID: id, OwnSize: own, AssumeClean: assumeClean}); err != nil {
		delete(o.waiting, id)
		o.refused(q, err)
	}
}

// grown looks how large the disk is now, brings internal metadata to its end, and gives what is usable then, in sectors.
func (o *owner) grown() (uint64, error) {
	d, c := o.disk, &o.r.cfg
	size, err := d.grow()
	if err != nil {
		return 0, err
	}
	keep := func() error {
		if err := c.KeepSize(size); err != nil {
			return fmt.Errorf("keep in mind that it has %d bytes: %w", size, err)
		}
		return nil
	}
	if err := d.md.Move(context.Background(), size, keep); err != nil {
		if errors.Is(err, meta.ErrMetaIO) {
			o.r.diskFailed(d, true, err)
		}
		return 0, fmt.Errorf("%s: %w", c.DiskPath, err)
	}
	return uint64(d.md.Layout().UsableSize / 512), nil
}
