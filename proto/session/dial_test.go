package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

// helper makes the test binary a program for DialCommand.
const helper = "SANTUI_SESSION_TEST_HELPER"

func helperMain(mode string) int {
	switch mode {
	case "agent":
		conn := struct {
			io.Reader
			io.WriteCloser
		}{os.Stdin, os.Stdout}
		x := session.NewMux()
		session.HandleFunc(x, "pid", func(context.Context, session.Peer, proto.Empty) (int, error) { return os.Getpid(), nil })
		if err := session.Serve(context.Background(), conn, agentOptions, x); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	case "fail":
		fmt.Fprint(os.Stderr, "first\nssh: connect to host otter port 22: \x1b[31mConnection refused\r\n")
		return 255
	case "deaf": // ignores the end of its input
		for {
			time.Sleep(time.Hour)
		}
	}
	return 2
}

func dialHelper(t *testing.T, mode string) (io.ReadWriteCloser, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return session.DialCommand(t.Context(), []string{"env", helper + "=" + mode, exe})
}

func TestDialCommand(t *testing.T) {
	conn, err := dialHelper(t, "agent")
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.Client(t.Context(), conn, session.Options{Kind: session.KindCockpit})
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := s.Call(t.Context(), "pid", proto.Empty{}, &pid); err != nil || pid == 0 || pid == os.Getpid() {
		t.Fatalf("pid %d, %v", pid, err)
	}
	_ = s.Close()
	_ = s.Wait()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d lives on after Close: %v", pid, err)
	}
}

func TestDialCommandFails(t *testing.T) {
	conn, err := dialHelper(t, "fail")
	if err != nil {
		t.Fatal(err)
	}
	_, err = session.Client(t.Context(), conn, session.Options{Kind: session.KindCockpit})
	var ce *session.CommandError
	if !errors.As(err, &ce) || ce.Exit != 255 {
		t.Fatalf("got %v, want a CommandError with exit 255", err)
	}
	if want := []string{"first", "ssh: connect to host otter port 22: [31mConnection refused"}; !slices.Equal(ce.Stderr, want) {
		t.Errorf("stderr %q, want %q", ce.Stderr, want)
	}
	if session.Code(err) != proto.CodeUnreachable || !strings.Contains(err.Error(), "Connection refused") {
		t.Errorf("the error: %v", err)
	}
	if _, err := session.DialCommand(t.Context(), []string{"/nonexistent/santui-agent"}); session.Code(err) != proto.CodeUnreachable {
		t.Errorf("a missing program: %v", err)
	}
	if _, err := session.DialCommand(t.Context(), nil); session.Code(err) != proto.CodeInvalid {
		t.Errorf("no program: %v", err)
	}
}

func TestCloseKills(t *testing.T) {
	conn, err := session.DialCommand(t.Context(), []string{"sh", "-c", "trap '' HUP TERM; sleep 1000 & echo $! $$; while :; do sleep 1000; done"})
	if err != nil {
		t.Fatal(err)
	}
	var b [64]byte
	n, err := conn.Read(b[:])
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, _ = conn.Close(), conn.Close()
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("Close took %v", d)
	}
	for _, f := range strings.Fields(string(b[:n])) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		gone := false
		for range 100 { // an orphan stays a zombie until init takes it
			if st, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(st), ") Z ") {
				gone = true
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !gone {
			t.Errorf("process %d lives on", pid)
		}
	}
}

func TestSSHArgv(t *testing.T) {
	argv, err := session.SSH{Host: "root@otter", Program: []string{"ip", "netns", "exec", "lab", "ssh"},
		Options: []string{"-i", "key"}, Remote: []string{"santui-agent", "connect", "--socket", "/run/it's here"}}.Argv()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(argv, " ")
	for _, want := range []string{"ip netns exec lab ssh -T ", " -o BatchMode=yes ", ` -i key -- root@otter santui-agent connect --socket '/run/it'\''s here'`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	for _, h := range []string{"", "-oProxyCommand=evil", "a b", "a\nb"} {
		if _, err := (session.SSH{Host: h}).Argv(); session.Code(err) != proto.CodeInvalid {
			t.Errorf("host %q: %v", h, err)
		}
		if _, err := session.DialSSH(t.Context(), h); err == nil {
			t.Errorf("host %q was dialled", h)
		}
	}
}

func TestDialUnix(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	if _, err := session.DialUnix(t.Context(), path); session.Code(err) != proto.CodeUnreachable || !strings.Contains(err.Error(), "start santui-agent") {
		t.Errorf("no socket: %v", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := session.DialUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Close(), ln.Close()
}
