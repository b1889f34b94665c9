package export

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
)

// checkPaths makes RunDir and Link clean absolute paths.
func (o *Options) checkPaths() error {
	if o.RunDir == "" {
		return fmt.Errorf("%w: %s: no run directory", ErrOptions, o.Name)
	}
	dir, err := filepath.Abs(o.RunDir)
	if err != nil {
		return fmt.Errorf("%w: %s: run directory %s: %w", ErrOptions, o.Name, o.RunDir, err)
	}
	o.RunDir = dir
	if o.Link == "" {
		return nil
	}
	if !filepath.IsAbs(o.Link) {
		return fmt.Errorf("%w: %s: link %q is not an absolute path", ErrOptions, o.Name, o.Link)
	}
	o.Link = filepath.Clean(o.Link)
	return nil
}

func lockPath(runDir, name string) string  { return filepath.Join(runDir, name+".lock") }
func mountPath(runDir, name string) string { return filepath.Join(runDir, name+".fuse") }

// mark is what our kernel devices carry (loop: lo_file_name, at most 63 bytes,
// LO_NAME_SIZE in linux/loop.h; nbd: the backend identifier), so that a sweep
// finds its own and nothing else. The same name in another run directory has
// another mark.
func mark(runDir, name string) string {
	sum := sha256.Sum256([]byte(runDir + "\x00" + name))
	m := "santui:" + hex.EncodeToString(sum[:8]) + ":" + name
	if len(m) > 63 {
		m = m[:63]
	}
	return m
}
