//go:build !linux

package block

import "fmt"

// Open is only there on Linux; elsewhere it fails with ErrUnsupported.
func Open(path string, _ Options) (Device, error) {
	return nil, fmt.Errorf("open %s as a backing device: %w: backing disks need Linux", path, ErrUnsupported)
}
