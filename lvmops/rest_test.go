package lvmops_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/santui/lvmops"
	"example.com/santui/lvmops/lvmtest"
)

// TestProcessesAtRest: what has not run since a look found that it holds nothing is not looked at again, and anything else is. The
// fake's processes can change without running, which shows what was looked at.
func TestProcessesAtRest(t *testing.T) {
	t.Parallel()
	const pid = 4711
	for _, tt := range []struct {
		name  string
		do    func(m *lvmtest.Machine, target string) error // after the first look
		whole bool
		want  int
	}{
		{name: "at rest", want: 0},
		{name: "at rest, and a look that leaves nobody out", whole: true, want: 1},
		{name: "it ran", do: func(m *lvmtest.Machine, _ string) error { return m.RunProcess(pid) }, want: 1},
		{name: "another process with that number", do: func(m *lvmtest.Machine, target string) error {
			proc := m.Options("otter").Proc
			if err := m.AddProcess(1, "sleep", target); err != nil {
				return err
			}
			// Both are there at once, so their directories are not the same.
			if err := os.Rename(filepath.Join(proc, "4711/schedstat"), filepath.Join(proc, "1/schedstat")); err != nil {
				return err
			}
			if err := m.RemoveProcess(pid); err != nil {
				return err
			}
			return os.Rename(filepath.Join(proc, "1"), filepath.Join(proc, "4711"))
		}, want: 1},
		{name: "something was mounted", do: func(m *lvmtest.Machine, target string) error {
			_, err := m.Run(context.Background(), lvmops.Cmd{Argv: []string{"mount", "-t", "ext4", "/dev/storage/te-st", target + "/more"}})
			return err
		}, want: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, o, target := built(t)
			look := func(whole bool) int {
				t.Helper()
				st, _, err := o.Watch(context.Background(), "/dev/drbd0", "/dev/nbd0", 1)
				if whole {
					st, err = o.Stack(context.Background(), "/dev/drbd0", "/dev/nbd0")
				}
				if err != nil || st.Err != "" {
					t.Fatalf("%+v, %v", st, err)
				}
				return len(st.Users)
			}
			for pid, cwd := range map[int]string{pid: "/", 4712: "/", 4713: "/", 4714: "/"} {
				if err := m.AddProcess(pid, "sleep", cwd); err != nil {
					t.Fatal(err)
				}
			}
			if n := look(false); n != 0 {
				t.Fatalf("%d users of an idle mount", n)
			}
			if err := m.MoveProcess(pid, target); err != nil {
				t.Fatal(err)
			}
			if tt.do != nil {
				if err := tt.do(m, target); err != nil {
					t.Fatal(err)
				}
			}
			if n := look(tt.whole); n != tt.want {
				t.Errorf("%d users, want %d", n, tt.want)
			}
			if tt.want == 0 {
				return
			}
			if n := look(false); n != tt.want && !tt.whole {
				t.Errorf("again: %d users: what holds something must never count as looked at", n)
			}
			if err := m.MoveProcess(pid, "/"); err != nil {
				t.Fatal(err)
			}
			if n := look(false); n != 0 {
				t.Errorf("it has left: %d users", n)
			}
		})
	}
}

// TestNeverAtRest: processes that schedstat does not tell enough of are looked at each time.
func TestNeverAtRest(t *testing.T) {
	t.Parallel()
	const pid = 4711
	schedstat := func(text string) func(*lvmtest.Machine) error {
		return func(m *lvmtest.Machine) error {
			return os.WriteFile(filepath.Join(m.Options("otter").Proc, "4711/schedstat"), []byte(text), 0o600)
		}
	}
	for name, do := range map[string]func(*lvmtest.Machine) error{
		"another thread may have run":   func(m *lvmtest.Machine) error { return m.AddThread(pid, 4712) },
		"the kernel does not count":     schedstat("0 0 0\n"),
		"it counts something else":      schedstat("1 2 3 4\n"),
		"it says more than can be read": schedstat(strings.Repeat("1 ", 200) + "\n"),
		"there is no schedstat": func(m *lvmtest.Machine) error {
			return os.Remove(filepath.Join(m.Options("otter").Proc, "4711/schedstat"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, o, target := built(t)
			if err := m.AddProcess(pid, "sleep", "/"); err != nil {
				t.Fatal(err)
			}
			if err := do(m); err != nil {
				t.Fatal(err)
			}
			for _, cwd := range []string{"/", target, "/", target} {
				if err := m.MoveProcess(pid, cwd); err != nil {
					t.Fatal(err)
				}
				st, _, err := o.Watch(context.Background(), "/dev/drbd0", "/dev/nbd0", 1)
				if err != nil || (len(st.Users) == 1) != (cwd == target) {
					t.Errorf("in %s: %+v, %v", cwd, st.Users, err)
				}
			}
		})
	}
}
