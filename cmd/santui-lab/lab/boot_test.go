//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"
)

func TestBoot(t *testing.T) {
	began := time.Now()
	l := ForTest(t, Options{})
	took := time.Since(began)
	otter, weasel := l.Node("otter"), l.Node("weasel")
	t.Logf("both nodes answer after %s; the guests say %.1f s and %.1f s", took, otter.BootSeconds(), weasel.BootSeconds())
	if took > 60*time.Second {
		t.Errorf("boot took %s, want less than a minute", took)
	}
	ctx := t.Context()
	for _, n := range l.Nodes() {
		name, err := n.Sh(ctx, "hostname; cat /etc/hostname")
		if err != nil || name != n.Name()+"\n"+n.Name() {
			t.Errorf("%s: hostname %q, %v", n.Name(), name, err)
		}
		if text := n.Console(); strings.Contains(text, "insmod") {
			t.Errorf("console of %s: %s", n.Name(), text)
		}
		if _, err := n.Sh(ctx, "test -b /dev/nbd15 -a -c /dev/mapper/control -a -c /dev/fuse -a -c /dev/loop-control; "+
			"cmp /dev/md3 /dev/ubdb; test $(blockdev --getsize64 /dev/ubdb) = 268435456; vgs"); err != nil {
			t.Error(err)
		}
		if _, err := n.Sh(ctx, "modprobe drbd; grep -q ^drbd /proc/modules"); err == nil {
			t.Errorf("%s: the kernel's DRBD loads on a node that was not given it", n.Name())
		}
	}
	if _, err := otter.Run(ctx, "busybox", "ping", "-c", "2", "-W", "2", "weasel"); err != nil {
		t.Error(err)
	}
	if _, err := weasel.Run(ctx, "busybox", "ping", "-c", "2", "-W", "2", otter.Addr()); err != nil {
		t.Error(err)
	}
	start := time.Now()
	for range 10 {
		if _, err := otter.Run(ctx, "true"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a command takes %s", time.Since(start)/10)
}
