package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// record is what a lock file says about its export, for the sweep.
type record struct {
	PID    int    `json:"pid"`
	Kind   Kind   `json:"kind"`
	Device string `json:"device,omitempty"`
	Link   string `json:"link,omitempty"`
}

// lockFile is a file that its owner has flock'ed. The kernel drops the lock
// when the owner dies.
type lockFile struct {
	f    *os.File
	path string
}

// takeLock locks path, or returns ErrAlive when a running process has it.
func takeLock(path string) (*lockFile, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%s is locked: %w", path, ErrAlive)
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// The last owner may have removed the file between our open and our
		// lock; then somebody else can lock the path's new file.
		held, err1 := f.Stat()
		there, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(held, there) {
			return &lockFile{f, path}, nil
		}
		_ = f.Close()
	}
}

func (l *lockFile) read() record { return readRecord(l.path) }

func readRecord(path string) (r record) {
	if data, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(data, &r) // empty or cut short: nothing is known
	}
	return r
}

func (l *lockFile) write(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err = l.f.WriteAt(append(data, '\n'), 0)
	return err
}

// release removes the file, then the lock.
func (l *lockFile) release() error {
	err := os.Remove(l.path)
	return errors.Join(err, l.f.Close())
}
