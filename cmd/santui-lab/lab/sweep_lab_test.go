//go:build lab

package lab

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// abandonEnv makes this test binary start a lab, print its record's path, and wait to be killed.
const abandonEnv = "SANTUI_LAB_ABANDON"

func TestAbandonHelper(t *testing.T) {
	if os.Getenv(abandonEnv) == "" {
		return // only the child of TestSweep does something here
	}
	l := ForTest(t, Options{Nodes: []NodeOptions{{Name: "otter", Addr: "10.0.0.1"}}})
	os.Stdout.WriteString("record " + l.state.registryFile() + "\n")
	<-t.Context().Done()
}

// startAbandoned runs the helper until its lab is up and returns the lab's record.
func startAbandoned(t *testing.T) (*exec.Cmd, *state) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestAbandonHelper$")
	cmd.Env = append(os.Environ(), abandonEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "record "); ok {
			s, err := readState(name)
			if err != nil {
				t.Fatal(err)
			}
			return cmd, s
		}
	}
	t.Fatalf("the helper printed no record: %v", cmd.Wait())
	return nil, nil
}

func checkGone(t *testing.T, s *state) {
	t.Helper()
	if left := s.Nodes[0].Proc.members(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	for _, name := range []string{namespaceFile(s.Namespace), s.Dir, s.RunDir, s.registryFile()} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left (%v)", name, err)
		}
	}
}

// TestSweep: a lab whose maker was killed with SIGKILL is removed by the next sweep, and one whose maker lives is not;
// a maker that is asked to end removes its lab itself.
func TestSweep(t *testing.T) {
	cmd, s := startAbandoned(t)
	if removed, err := Sweep(); err != nil || slices.Contains(removed, s.Namespace) {
		t.Errorf("swept %v of a living maker, %v", removed, err)
	}
	if !s.Nodes[0].Proc.alive() {
		t.Fatal("the node is dead")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if removed, err := Sweep(); err != nil || !slices.Contains(removed, s.Namespace) {
		t.Errorf("swept %v, %v, want %s", removed, err, s.Namespace)
	}
	checkGone(t, s)

	cmd, s = startAbandoned(t)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // exit code 130
	checkGone(t, s)
}
