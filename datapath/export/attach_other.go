//go:build !linux

package export

import (
	"context"
	"fmt"
	"runtime"
)

// Supported lists the front ends; none exists outside Linux.
func Supported() []Support {
	return []Support{
		{FUSE, fmt.Errorf("%w: %s is not Linux", ErrNotOffered, runtime.GOOS)},
		{NBD, fmt.Errorf("%w: %s is not Linux", ErrNotOffered, runtime.GOOS)},
		{Ublk, ErrNoUblk},
	}
}

// Sweep has nothing to do outside Linux.
func Sweep(context.Context, string) error { return nil }

func attach(_ context.Context, kind Kind, _ Backend, o Options) (Export, error) {
	return nil, fmt.Errorf("export %s as %s: %w: %s is not Linux", o.Name, kind, ErrNotOffered, runtime.GOOS)
}
