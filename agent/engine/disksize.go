package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
)

// sizeFile is where the size of a resource's backing disk is kept.
func sizeFile(c *NativeConfig) string {
	return filepath.Join(c.StateDir, "disk-"+c.Datapath.Resource+".json")
}

// diskSize keeps the size of a backing disk in a file: its metadata is at the end of that many bytes until it is moved, even
// if the disk grows while the resource is down. A file that cannot be read says nothing.
func diskSize(path string) (last func() int64, keep func(int64) error) {
	type kept struct {
		Size int64 `json:"size"`
	}
	var mu sync.Mutex
	last = func() int64 {
		mu.Lock()
		defer mu.Unlock()
		var k kept
		b, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(b, &k) != nil {
			return 0
		}
		return k.Size
	}
	keep = func(size int64) error {
		if last() == size {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		return saveJSON(path, kept{size})
	}
	return last, keep
}
