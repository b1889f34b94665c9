package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// registryDir holds one file per lab of this machine, so that a lab whose maker was killed can be found and removed.
const registryDir = "/run/santui-lab"

// stateFile is the lab's record inside its own directory; it says the same as the one in the registry.
const stateFile = "state.json"

// nodeState is what must be known to reach, kill or restart one node from another process.
type nodeState struct {
	Name   string `json:"name"`
	Addr   string `json:"addr"` // data link, without prefix length
	Mgmt   string `json:"mgmt"` // management link
	DRBD   bool   `json:"drbd"`
	Memory string `json:"memory"`
	Proc   proc   `json:"proc"` // the UML kernel; zero when the node is off
}

// state is everything a lab made outside its directory, and how to find it.
type state struct {
	Namespace  string      `json:"namespace"`
	Dir        string      `json:"dir"`     // disks, logs, the shared folder
	RunDir     string      `json:"run_dir"` // short path: sockets, keys, ssh_config
	Owner      proc        `json:"owner"`   // who made it
	Persistent bool        `json:"persistent"`
	Modules    []string    `json:"modules,omitempty"`
	DiskSize   int64       `json:"disk_size"`
	Nodes      []nodeState `json:"nodes"`
}

func (s *state) registryFile() string { return filepath.Join(registryDir, s.Namespace+".json") }

// save writes the record, in the registry first: what is registered can be swept.
func (s *state) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("lab: encode state: %w", err)
	}
	if err := os.MkdirAll(registryDir, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	for _, name := range []string{s.registryFile(), filepath.Join(s.Dir, stateFile)} {
		temp := name + ".new"
		if err := os.WriteFile(temp, append(data, '\n'), 0o600); err != nil {
			return fmt.Errorf("lab: record the lab: %w", err)
		}
		if err := os.Rename(temp, name); err != nil {
			return fmt.Errorf("lab: record the lab: %w", err)
		}
	}
	return nil
}

func readState(name string) (*state, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	s := &state{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("lab: record %s is damaged: %w", name, err)
	}
	if !strings.HasPrefix(s.Namespace, namespacePrefix) || !filepath.IsAbs(s.Dir) || !filepath.IsAbs(s.RunDir) {
		return nil, fmt.Errorf("lab: record %s is not a lab's: namespace %q, directory %q", name, s.Namespace, s.Dir)
	}
	return s, nil
}

// abandoned reports that nobody will close this lab: its maker is gone, and it was not meant to outlive it.
func (s *state) abandoned() bool { return !s.Persistent && !s.Owner.alive() }

// Sweep removes the labs whose maker died without closing them, and returns their namespaces' names.
func Sweep() (removed []string, err error) {
	if err := os.MkdirAll(registryDir, 0o755); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	one, err := os.Open(registryDir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = one.Close() }()
	if err := unix.Flock(int(one.Fd()), unix.LOCK_EX); err != nil { // one sweep at a time; closing ends it
		return nil, fmt.Errorf("lab: lock %s: %w", registryDir, err)
	}
	records, err := filepath.Glob(filepath.Join(registryDir, namespacePrefix+"*.json"))
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var errs []error
	for _, name := range records {
		s, err := readState(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its owner closed it just now
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !s.abandoned() {
			continue
		}
		if err := s.remove(); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, s.Namespace)
	}
	return removed, errors.Join(errs...)
}

// remove takes away all that the record names: processes, namespace (with bridge and taps), files, the record last,
// so that an interrupted removal can be repeated.
func (s *state) remove() error {
	var errs []error
	for _, n := range s.Nodes {
		errs = append(errs, n.Proc.killSession(10*time.Second))
	}
	for _, n := range s.Nodes {
		stopMaster(s.RunDir, n.Name)
	}
	errs = append(errs, removeNamespace(s.Namespace), os.RemoveAll(s.RunDir))
	errs = append(errs, removeLabFiles(s))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: remove %s: %w", s.Namespace, err)
	}
	if err := os.Remove(s.registryFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lab: remove %s: %w", s.Namespace, err)
	}
	return nil
}

// removeLabFiles removes what the lab put into its directory, then the directory if nothing of anybody else is in it.
func removeLabFiles(s *state) error {
	var errs []error
	for _, n := range s.Nodes {
		errs = append(errs, os.RemoveAll(filepath.Join(s.Dir, n.Name)))
	}
	errs = append(errs, os.RemoveAll(filepath.Join(s.Dir, shareName)))
	for _, name := range []string{stateFile, stateFile + ".new", lockName} {
		if err := os.Remove(filepath.Join(s.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	err := os.Remove(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ErrBusy: another process works on the same lab directory.
var ErrBusy = errors.New("lab: the lab directory is in use by another process")

// lockDir takes the lock of a lab directory; closing the file releases it.
func lockDir(dir string) (*os.File, error) {
	name := filepath.Join(dir, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrBusy, dir)
		}
		return nil, fmt.Errorf("lab: lock %s: %w", name, err)
	}
	return f, nil
}
