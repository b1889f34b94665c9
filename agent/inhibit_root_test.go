//go:build root

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/santui/proto"
)

// inLogind names the environment variable that tells a copy of the test's program what to do inside of the namespaces.
const inLogind = "SANTUI_TEST_LOGIND"

// logindScript gives the test a /run and a bus of its own, with a real systemd-logind on it. /run/systemd/system is what says
// that systemd runs the machine, sd_booted(3).
const logindScript = `set -e
mount -t tmpfs tmpfs /run && mount -t proc proc /proc
mkdir -p /run/dbus /run/lock /run/systemd/system
dbus-daemon --system --nofork --nopidfile 2>/dev/null &
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
exec "$@"`

// TestInhibitorWithLogind holds the inhibitor against systemd's own logind, which runs in mount and process namespaces of the
// test's own: listed while the node is not safe to power off, once and with the newest reason, gone when it is or when the agent
// dies, back with the next agent, and still there when logind itself was restarted.
func TestInhibitorWithLogind(t *testing.T) {
	switch os.Getenv(inLogind) {
	case "agent": // one that holds the inhibitor until it is killed
		a, _ := followed(t, true)
		a.newInhibitor().run(t.Context(), a.hub)
		return
	case "test":
		withLogind(t)
		return
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", logindScript, "sh",
		os.Args[0], "-test.run=^TestInhibitorWithLogind$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), inLogind+"=test")
	out, err := cmd.CombinedOutput()
	if t.Log(string(out)); err != nil || !strings.Contains(string(out), "--- PASS: TestInhibitorWithLogind") {
		t.Errorf("inside of the namespaces: %v", err)
	}
}

// followed is an agent whose only resource is on a node that is the only good copy, or is not.
func followed(t *testing.T, only bool) (a *Agent, light *atomic.Pointer[proto.Light]) {
	t.Helper()
	light = &atomic.Pointer[proto.Light]{}
	light.Store(&proto.Light{On: !only, Why: "the only UpToDate copy is here"})
	a = &Agent{cfg: Config{Node: "otter"}, hub: newHub("otter", slog.Default())}
	a.hub.build = func() proto.Snapshot {
		return proto.Snapshot{Node: "otter", Resources: []proto.Resource{{Name: "r0", Lights: proto.Lights{SafePowerOff: *light.Load()}}}}
	}
	a.hub.publish()
	return a, light
}

func startLogind(t *testing.T) (kill func()) {
	t.Helper()
	cmd := exec.Command("/lib/systemd/systemd-logind")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
	}
}

// inhibited lists who keeps the machine from shutting down, as logind says, santui's ones only.
func inhibited() ([]string, error) {
	out, err := exec.Command("busctl", "--json=short", "call", "org.freedesktop.login1", "/org/freedesktop/login1",
		"org.freedesktop.login1.Manager", "ListInhibitors").Output()
	if err != nil {
		return nil, err
	}
	var reply struct {
		Data [][][]any `json:"data"` // what, who, why, mode, uid, pid
	}
	if err := json.Unmarshal(out, &reply); err != nil || len(reply.Data) != 1 {
		return nil, fmt.Errorf("%s: %w", out, err)
	}
	var found []string
	for _, x := range reply.Data[0] {
		if len(x) == 6 && x[1] == "santui" {
			found = append(found, fmt.Sprintf("%v, %v: %v", x[0], x[3], x[2]))
		}
	}
	return found, nil
}

func withLogind(t *testing.T) {
	kill := startLogind(t)
	see := func(when, want string) {
		t.Helper()
		var got []string
		var err error
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			if got, err = inhibited(); err == nil && strings.Join(got, "; ") == want {
				t.Logf("%s: %q", when, got)
				return
			}
		}
		t.Fatalf("%s: logind lists %q, %v; want %q", when, got, err, want)
	}
	const held = "shutdown, block: r0: the only UpToDate copy is here"
	see("before", "")
	a, light := followed(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { a.newInhibitor().run(ctx, a.hub); close(done) }()
	see("the only good copy", held)
	light.Store(&proto.Light{Why: "this node is Primary"})
	a.hub.publish()
	see("another reason", "shutdown, block: r0: this node is Primary")
	light.Store(&proto.Light{On: true})
	a.hub.publish()
	see("both copies are good", "")
	light.Store(&proto.Light{Why: "the only UpToDate copy is here"})
	a.hub.publish()
	see("the only good copy again", held)
	kill()
	kill = startLogind(t)
	see("logind was restarted", held)
	cancel()
	<-done
	see("the agent was stopped", "")

	agent := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestInhibitorWithLogind$")
		cmd.Env = append(os.Environ(), inLogind+"=agent")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	for _, when := range []string{"an agent of its own process", "the next agent"} {
		cmd := agent()
		see(when, held)
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		see("it was killed", "")
	}
	kill()
}
