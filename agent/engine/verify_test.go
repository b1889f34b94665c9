package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/santui/datapath"
	"example.com/santui/datapath/block"
	"example.com/santui/proto"
)

func nativeConfig(dir string) NativeConfig {
	return NativeConfig{StateDir: dir, Datapath: datapath.Config{
		Resource: "r0", Device: "/dev/drbd0", Node: "otter", Peer: "weasel", DiskPath: "none",
		Open:      func() (block.Device, error) { return nil, os.ErrNotExist },
		LocalAddr: "127.0.0.1:1", PeerAddr: "127.0.0.1:2", VerifyAlg: "sha1",
	}}
}

// TestVerifyIsKept: the outcome of a verify outlives the agent; a file that says nothing is no outcome.
func TestVerifyIsKept(t *testing.T) {
	dir := t.TempDir()
	n, err := NewNative(nativeConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	if r := n.Status(); r.Verify != nil || r.Lights.Verified.On || r.Lights.Verified.Why != "never verified" {
		t.Errorf("%+v %+v", r.Verify, r.Lights.Verified)
	}
	n.keepVerify(&proto.Verify{Ended: time.Now(), By: "otter", Size: 64 << 20, Checked: 64 << 20, Complete: true})
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again, err := NewNative(nativeConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	if r := again.Status(); r.Verify == nil || r.Verify.By != "otter" || !r.Lights.Verified.On {
		t.Errorf("after a restart: %+v %+v", r.Verify, r.Lights.Verified)
	}
	if err := again.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "verify-r0.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken, err := NewNative(nativeConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	if r := broken.Status(); r.Verify != nil {
		t.Errorf("from a broken file: %+v", r.Verify)
	}
	if err := broken.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestDiskSizeIsKept: the size of the disk outlives the agent; a file that says nothing is no size.
func TestDiskSizeIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk-r0.json")
	last, keep := diskSize(path)
	if last() != 0 {
		t.Errorf("at first: %d", last())
	}
	if err := keep(64 << 20); err != nil {
		t.Fatal(err)
	}
	if last, _ = diskSize(path); last() != 64<<20 {
		t.Errorf("after a restart: %d", last())
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if last() != 0 {
		t.Errorf("from a broken file: %d", last())
	}
	if _, keep = diskSize(filepath.Join(t.TempDir(), "none", "x.json")); keep(1) == nil {
		t.Error("kept in a folder that is not there")
	}
}

func TestVerifiedLight(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		alg  string
		st   datapath.Status
		v    *proto.Verify
		on   bool
		says string
	}{
		{"", datapath.Status{}, nil, false, "no verify-alg"},
		{"sha1", datapath.Status{}, nil, false, "never"},
		{"sha1", datapath.Status{Conn: proto.VerifyT}, nil, false, "running"},
		{"sha1", datapath.Status{OutOfSync: 4096}, &proto.Verify{Ended: now, Differ: 4096, Complete: true}, false, "out of sync still"},
		{"sha1", datapath.Status{}, &proto.Verify{Ended: now, Differ: 4096, Complete: true}, false, "verify again"},
		{"sha1", datapath.Status{}, &proto.Verify{Ended: now, Size: 2 << 20, Checked: 1 << 20, Why: "it was stopped"}, false, "only 1 of 2 MiB"},
		{"sha1", datapath.Status{}, &proto.Verify{Ended: now, Size: 2 << 20, Checked: 2 << 20, Complete: true}, true, "no difference"},
	} {
		if l := verifiedLight(c.alg, &c.st, c.v); l.On != c.on || !strings.Contains(l.Why, c.says) {
			t.Errorf("%+v: %+v", c, l)
		}
	}
}

func TestRepairRefused(t *testing.T) {
	n, err := NewNative(nativeConfig(""))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Repair(t.Context()); err == nil || !strings.Contains(err.Error(), "connected") {
		t.Errorf("repair without a peer: %v", err)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
