//go:build root

package service

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/lvmops"
	"example.com/santui/proto"
)

// ip runs ip(8) and demands that it works.
func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestNeighbours adds and drops addresses of both families in a network namespace, with a neighbour in another one: the
// neighbour's claim is heard, and what it believed of the address is put right by the announcement.
func TestNeighbours(t *testing.T) {
	here, there := fmt.Sprintf("santui-a-%d", os.Getpid()), fmt.Sprintf("santui-b-%d", os.Getpid())
	for _, ns := range []string{here, there} {
		ip(t, "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	ip(t, "link", "add", "eth0", "netns", here, "type", "veth", "peer", "name", "eth0", "netns", there)
	for i, ns := range []string{here, there} {
		ip(t, "-n", ns, "addr", "add", fmt.Sprintf("10.9.0.%d/24", i+1), "dev", "eth0")
		ip(t, "-n", ns, "addr", "add", fmt.Sprintf("fd00:9::%d/64", i+1), "dev", "eth0", "nodad")
		ip(t, "-n", ns, "link", "set", "eth0", "up")
	}
	done := make(chan struct{})
	go func() { // its thread is in the namespace, and ends with it
		defer close(done)
		runtime.LockOSThread()
		fd, err := unix.Open("/run/netns/"+here, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err != nil {
			t.Error(err)
			return
		}
		for _, a := range []string{"10.9.0.100/24", "fd00:9::100/64"} {
			t.Log(a)
			neighbour(t, proto.Address{Address: a, Interface: "eth0"}, there)
		}
	}()
	<-done
}

func neighbour(t *testing.T, a proto.Address, there string) {
	ops := New(Options{Runner: lvmops.NewExec(), Node: "otter"})
	addr := netip.MustParsePrefix(a.Address).Addr()
	in := func(args ...string) string { return ip(t, append([]string{"-n", there}, args...)...) }
	mac := func(ns string) string {
		_, text, _ := strings.Cut(ip(t, "-n", ns, "-o", "link", "show", "eth0"), "link/ether ")
		return strings.Fields(text)[0]
	}
	add := []string{"addr", "add", a.Address, "dev", "eth0"}
	if addr.Is6() {
		add = append(add, "nodad")
	}
	// The link comes up in its own time; what is taken is refused from then on.
	in(add...)
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if _, err = ops.AddAddress(t.Context(), a); err != nil {
			break
		}
		if _, err := ops.DropAddress(t.Context(), a); err != nil {
			t.Error(err)
		}
	}
	if err == nil || !strings.Contains(err.Error(), mac(there)+" has it") {
		t.Errorf("an address that the neighbour has: %v", err)
	}
	in("addr", "del", a.Address, "dev", "eth0")

	in("neigh", "replace", addr.String(), "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale")
	out, err := ops.AddAddress(t.Context(), a)
	if err != nil || len(out.Findings) > 0 || !strings.Contains(out.Now, "announced to the neighbours") {
		t.Errorf("%+v, %v", out, err)
	}
	var mine string
	if i, err := net.InterfaceByName("eth0"); err == nil {
		mine = i.HardwareAddr.String()
	}
	told := false
	for deadline := time.Now().Add(10 * time.Second); !told && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		told = strings.Contains(in("neigh", "show", addr.String()), mine)
	}
	if !told {
		t.Errorf("the neighbour, who should know %s: %s", mine, in("neigh", "show", addr.String()))
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Errorf("it cannot be used at once: %v", err)
	} else {
		_ = l.Close()
	}
	if _, err := ops.DropAddress(t.Context(), a); err != nil {
		t.Error(err)
	}
	if out, err := ops.DropAddress(t.Context(), a); err != nil || !out.Already {
		t.Errorf("%+v, %v", out, err)
	}
}
