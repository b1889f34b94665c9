package export

import (
	"context"
	"fmt"
)

// Supported tells for every kind whether this kernel offers it, best first.
func Supported() []Support {
	return []Support{{NBD, ErrNotOffered}, {FUSE, ErrNotOffered}, {Ublk, ErrNoUblk}}
}

// Sweep removes what exports of dead processes left in runDir and in the
// kernel: links, loop and nbd devices, FUSE mounts. It touches only what
// carries the mark of a name in this runDir, and no name whose owner still
// runs. A device that is still held stays, and ErrBusy says by whom.
func Sweep(ctx context.Context, runDir string) error { return nil }

func attach(_ context.Context, kind Kind, _ Backend, o Options) (Export, error) {
	return nil, fmt.Errorf("export %s as %s: %w", o.Name, kind, ErrNotOffered)
}
