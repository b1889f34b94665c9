//go:build lab

package lab

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// abandonEnv makes this test binary start so many labs, print their records' paths, and wait to be killed.
const abandonEnv = "SANTUI_LAB_ABANDON"

func TestAbandonHelper(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv(abandonEnv))
	if err != nil {
		return // only the child of TestSweep does something here
	}
	for i := range n {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			l := ForTest(t, Options{Nodes: []NodeOptions{{Name: "otter", Addr: "10.0.0.1"}}})
			os.Stdout.WriteString("record " + l.state.registryFile() + "\n")
			<-t.Context().Done()
		})
	}
}

// startAbandoned runs the helper until its labs are up and returns their records.
func startAbandoned(t *testing.T, n int) (*exec.Cmd, []*state) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestAbandonHelper$", "-test.parallel="+strconv.Itoa(n))
	cmd.Env = append(os.Environ(), abandonEnv+"="+strconv.Itoa(n))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var labs []*state
	lines := bufio.NewScanner(out)
	for len(labs) < n && lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "record "); ok {
			s, err := readState(name)
			if err != nil {
				t.Fatal(err)
			}
			labs = append(labs, s)
		}
	}
	if len(labs) < n {
		t.Fatalf("the helper printed %d records of %d: %v", len(labs), n, cmd.Wait())
	}
	return cmd, labs
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
// a maker that is asked to end removes its labs itself. It is not run beside other tests: each lab that starts sweeps.
func TestSweep(t *testing.T) {
	cmd, labs := startAbandoned(t, 1)
	s := labs[0]
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

	cmd, labs = startAbandoned(t, 2)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // exit code 130
	for _, s := range labs {
		checkGone(t, s)
	}
}
