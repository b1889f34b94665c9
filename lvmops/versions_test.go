package lvmops

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// talker is a node's programs, and how often each has run.
type talker struct {
	dir  string
	says map[string]Result
	runs map[string]int
}

func (r *talker) Look(name string) (string, error) {
	path := filepath.Join(r.dir, name)
	_, err := os.Stat(path)
	return path, err
}

func (r *talker) Run(_ context.Context, cmd Cmd) (Result, error) {
	r.runs[cmd.Argv[0]]++
	res, ok := r.says[cmd.Argv[0]]
	if !ok {
		return res, fmt.Errorf("%s hangs", cmd.Argv[0])
	}
	return res, nil
}

// TestVersions: each program is asked once for each version of its file, wherever it answers; one that does not is left out.
func TestVersions(t *testing.T) {
	r := &talker{dir: t.TempDir(), runs: map[string]int{}, says: map[string]Result{
		"lvm":       {Stdout: []byte("  LVM version:     2.03.16(2) (2022-05-18)\n  Library version: 1.02.185 (2022-05-18)\n"), Stderr: []byte("File descriptor 10 leaked\n")},
		"mkfs.ext4": {Stderr: []byte("mke2fs 1.47.0 (5-Feb-2023)\n\tUsing EXT2FS Library version 1.47.0\n")},
		"mount":     {Stdout: []byte("mount from util-linux 2.38.1 (libmount 2.38.1: selinux)\n")},
		"mkfs.xfs":  {Stdout: []byte("no number\n")},
	}}
	for _, name := range []string{"lvm", "mkfs.ext4", "mkfs.xfs", "mount", "thin_check"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	o, err := New(Options{Runner: r})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		got := o.Versions(t.Context())
		if len(got) != 3 || got["lvm2"] != "2.03.16(2)" || got["e2fsprogs"] != "1.47.0" || got["util-linux"] != "2.38.1" {
			t.Errorf("versions %v", got)
		}
	}
	if r.runs["lvm"] != 1 || r.runs["mount"] != 1 {
		t.Errorf("runs %v", r.runs)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "mount"), []byte("new"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.says["mount"] = Result{Stdout: []byte("mount from util-linux 2.41\n")}
	if got := o.Versions(t.Context()); got["util-linux"] != "2.41" {
		t.Errorf("after an upgrade: %v", got)
	}
}
