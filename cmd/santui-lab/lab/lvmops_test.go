//go:build lab

package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestLVMOps runs lvmops' tests, those for root and those that need device-mapper, inside a node. With LVMOPS_RECORD set
// to a folder of this machine, what lvm printed there is left in it (lvmops/testdata was made that way).
func TestLVMOps(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "lvmops.test")
	build := exec.Command("go", "test", "-c", "-tags", "root,node", "-o", binary, "example.com/santui/lvmops")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l := ForTest(t, Options{Nodes: []NodeOptions{{Name: "otter", Addr: "10.0.0.1"}}, Modules: []string{"xfs"}})
	node := l.Node("otter")
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	if err := node.Put(ctx, binary, "/run/lvmops.test"); err != nil {
		t.Fatal(err)
	}
	out, err := node.Sh(ctx, "mkdir -p /srv/record; cd /tmp; LVMOPS_RECORD=/srv/record /run/lvmops.test -test.v -test.timeout 840s 2>&1")
	t.Log(out)
	if err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("LVMOPS_RECORD"); dir != "" {
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(l.ShareDir(), "record"))); err != nil {
			t.Fatal(err)
		}
	}
}
