package block

import "fmt"

func checkRange(off, n, size, lbs int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("bytes %d to %d of a device of %d bytes: %w", off, off+n, size, ErrRange)
	}
	if off%lbs != 0 || n%lbs != 0 {
		return fmt.Errorf("%d bytes at %d, logical block size %d: %w", n, off, lbs, ErrAlignment)
	}
	return nil
}
