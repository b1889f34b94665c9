package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrDiffer: two disks do not hold the same data.
var ErrDiffer = errors.New("lab: the disks differ")

// CompareDisks compares the first size bytes of the two nodes' disks, in the host's files behind them. A device's write
// is in the file when the node's write has returned, so the nodes may run, as long as nobody writes.
func CompareDisks(ctx context.Context, a, b *Node, size int64) error {
	fa, err := os.Open(a.DiskImage())
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = fa.Close() }()
	fb, err := os.Open(b.DiskImage())
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = fb.Close() }()
	at, err := firstDifference(ctx, io.NewSectionReader(fa, 0, size), io.NewSectionReader(fb, 0, size), size)
	if err != nil {
		return fmt.Errorf("lab: compare the disks of %s and %s: %w", a.name, b.name, err)
	}
	if at >= 0 {
		return fmt.Errorf("%w: %s and %s, first in the 4 KiB block at byte %d of %d", ErrDiffer, a.name, b.name, at, size)
	}
	return nil
}

// firstDifference returns the offset of the first 4 KiB block that differs, -1 if none does.
func firstDifference(ctx context.Context, a, b io.Reader, size int64) (int64, error) {
	const block = 4096
	bufA, bufB := make([]byte, 256*block), make([]byte, 256*block)
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n := int(min(size-off, int64(len(bufA))))
		if _, err := io.ReadFull(a, bufA[:n]); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(b, bufB[:n]); err != nil {
			return 0, err
		}
		if !bytes.Equal(bufA[:n], bufB[:n]) {
			for i := 0; i < n; i += block {
				end := min(i+block, n)
				if !bytes.Equal(bufA[i:end], bufB[i:end]) {
					return off + int64(i), nil
				}
			}
		}
		off += int64(n)
	}
	return -1, nil
}

// SumDisk returns the SHA-256 of a range of the node's disk, in hexadecimal, read from the host's file behind it.
func SumDisk(n *Node, off, size int64) (string, error) {
	f, err := os.Open(n.DiskImage())
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if got, err := io.Copy(h, io.NewSectionReader(f, off, size)); err != nil || got != size {
		return "", fmt.Errorf("lab: disk of %s: read %d of %d bytes at %d: %w", n.name, got, size, off, errors.Join(err))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
