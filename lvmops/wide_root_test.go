//go:build root

package lvmops

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/santui/proto"
)

// TestManyProcesses looks at a mount beside 2,000 processes that sleep, and prints what a look costs: the first, which reads all
// of each, and the next ones. It judges what they say; how long they took depends on what else this machine does.
func TestManyProcesses(t *testing.T) {
	o, ctx := newOps(t), context.Background()
	dev, target := mounted(t, o, "many")
	sleepers(t, 2000)
	look := func(what string, times, users int, f func() (proto.Stack, error)) {
		t.Helper()
		var took, cpu []float64
		for range times {
			began, before := time.Now(), used()
			st, err := f()
			took, cpu = append(took, 1e3*time.Since(began).Seconds()), append(cpu, 1e3*(used()-before))
			if err != nil || st.Err != "" || len(st.Users) != users {
				t.Errorf("%s: %+v, %v", what, st, err)
			}
		}
		slices.Sort(took)
		slices.Sort(cpu)
		t.Logf("%s: median %.0f ms, worst %.0f ms; processor time %.0f and %.0f ms", what, took[times/2], took[times-1], cpu[times/2], cpu[times-1])
	}
	whole := func() (proto.Stack, error) { return o.Stack(ctx, dev, dev) }
	check := func() (proto.Stack, error) {
		st, _, err := o.Watch(ctx, dev, dev, 1)
		return st, err
	}
	look("all of each process", 3, 0, whole)
	look("a first check", 1, 0, check)
	look("further checks", 9, 0, check)
	holder := background(t, target, "sleep", "60")
	look("one process works there", 5, 1, check)
	end(holder)
	look("it has ended", 1, 0, check)
}

// sleepers starts processes that wait; they end with the test. They are copies of the shell: two thousand programs more would
// take a slow machine most of the test's time to start.
func sleepers(t *testing.T, n int) {
	t.Helper()
	closeInherited() // what this test inherited would be open in all of them
	c := exec.Command("sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do read x <&3 & i=$((i+1)); done; echo run; wait", n))
	never, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = never.Close(), w.Close() })
	c.ExtraFiles = []*os.File{never}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		_ = c.Wait()
	})
	if _, err := out.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
}

// used is the processor time of this process in seconds.
func used() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // fails for no reason that a test has
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
