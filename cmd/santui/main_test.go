package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"example.com/santui/cmd/internal/cli"
	"example.com/santui/proto"
)

// bin holds the programs under test, built once.
var bin string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "santui-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	cmd := exec.Command("go", "build", "-o", dir+"/", "example.com/santui/cmd/santui", "example.com/santui/cmd/santui-agent")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		return 1
	}
	return m.Run()
}

// result is how a program ended.
type result struct {
	out, err string
	code     int
}

func (r result) String() string {
	return fmt.Sprintf("exit %d\nstdout:\n%s\nstderr:\n%s", r.code, r.out, r.err)
}

// execute runs a program of ours with a home of its own and no terminal.
func execute(t testing.TB, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME=", "SANTUI_CONFIG=", "XDG_STATE_HOME=")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %q: %v %v", name, args, err, ctx.Err())
	}
	r := result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	if strings.Contains(r.err, "goroutine ") || strings.Contains(r.err, "panic:") {
		t.Errorf("%s %q panicked:\n%v", name, args, r)
	}
	return r
}

// TestHelpOnSilentTerminal runs --help on a terminal that never answers a question. Bubble Tea would wait five seconds
// for the answer, were it asked.
func TestHelpOnSilentTerminal(t *testing.T) {
	const limit = 100 * time.Millisecond
	const answer = time.Second // no terminal takes longer
	best, busy := time.Hour, time.Hour
	// The first run also loads the program from disk: the best of some counts. Other tests run beside this one: where the
	// clock on the wall says more, the processor time counts.
	for i := 0; i < 20 && best > limit; i++ {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "santui"), "--help")
		cmd.Env = append(os.Environ(), "TERM=xterm-256color")
		begin := time.Now()
		tty, err := pty.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(tty) // ends with EIO once the program has ended
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		best, busy = min(best, time.Since(begin)), min(busy, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		_ = tty.Close()
		if !bytes.Contains(out, []byte("failover")) || bytes.ContainsRune(out, '\x1b') {
			t.Fatalf("not a plain help text: %q", out)
		}
	}
	t.Logf("--help on a silent terminal: %v, processor time %v", best, busy)
	if best > limit && (busy > limit || best > answer) {
		t.Errorf("--help took %v, processor time %v", best, busy)
	}
}

func writeConfig(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// deaf is a pair whose agents do not run.
const deaf = "[[pair]]\nname='p'\n[[pair.node]]\nname='otter'\nsocket='/nonexistent/otter.sock'\n[[pair.node]]\nname='weasel'\ncommand=['sh','-c','echo no route >&2; exit 255']\n"

func TestExitCodes(t *testing.T) {
	config := writeConfig(t, deaf)
	for _, tt := range []struct {
		args string
		code int
		want string // in stdout or stderr
	}{
		{"--help", 0, "Usage:"},
		{"--version", 0, "version"},
		{"failover --help", 0, "--dry-run"},
		{"status", 2, "[[pair]]"},
		{"status extra", 2, "extra"},
		{"status --nope", 2, "--nope"},
		{"--nope", 2, "--nope"},
		{"a b", 2, "at most 1"},
		{"sync", 2, "needs a command"},
		{"sync nope", 2, `"nope"`},
		{"config nope", 2, `"nope"`},
		{"sync rate abc --config C", 2, `"abc"`},
		{"attach", 2, "1 arg"},
		{"completion bash extra", 2, "extra"},
		{"failover --config C", 2, "--to NODE"},
		{"failover --to badger --config C", 2, "otter and weasel"},
		{"check --to badger --config C", 2, "otter and weasel"},
		{"check --config C", 2, "--to NODE"},
		{"sync start --config C", 2, "--from NODE"},
		{"resize --config C", 2, "--on NODE"},
		{"resize --on badger --config C", 2, "otter and weasel"},
		{"resize --on otter --confirm p --config C", 5, "otter"},
		{"status --pair q --config C", 2, `"q"`},
		{"--config C", 2, "terminal"},
		{"p --config C", 2, "terminal"},
		{"demo --size 1M", 2, "16M"},
		{"demo --size much", 2, `"much"`},
		{"demo --rate fast --script", 2, `"fast"`},
		{"--replay /nonexistent", 2, "/nonexistent"},
		{"--theme neon --config C", 2, `"neon" is not one of [auto dark light high-contrast mono]`},
		{"demo --theme neon", 2, `"neon"`},
		{"takeover --to otter --config C", 4, "--confirm"},
		{"drill --to otter --config C", 4, "--confirm"},
		{"rejoin --config C", 5, "otter"},
		{"resolve --config C", 2, "--discard NODE"},
		{"resolve --discard badger --config C", 2, "otter and weasel"},
		{"undo 1 --config C", 5, "otter"},
		{"verify start --config C", 5, "otter"},
		{"verify start --offset much --config C", 2, `"much"`},
		{"verify start --on badger --config C", 2, "otter and weasel"},
		{"verify stop --config C", 5, "otter"},
		{"verify status --config C", 5, "otter"},
		{"verify repair --config C", 2, "--from NODE"},
		{"doctor --config C", 5, "otter"},
		{"doctor --fix --config C", 4, "--confirm p"},
		{"setup --config C", 2, "--vg"},
		{"setup --vg v --lv l --size 7X --config C", 2, "7X"},
		{"setup --vg v --lv l --config C", 5, "otter"},
		{"failover --to otter --config C", 4, "--confirm"},
		{"failover --to otter --confirm p --config C", 5, "otter"},
		{"check --to weasel --config C", 5, "no route"},
		{"status --config C", 5, "/nonexistent/otter.sock"},
		{"sync status --config C", 5, "otter"},
		{"sync pause --config C", 5, "otter"},
		{"ops --config C", 5, "otter"},
		{"report x --config C", 5, "otter"},
		{"report --format html --config C", 5, "otter"},
		{"report x --format pdf --config C", 2, "markdown"},
		{"report x --format html --json --config C", 2, "contradict"},
		{"config check --config C", 0, "p: otter and weasel"},
		{"config path --config C", 0, config},
		{"config path --config ~/x.toml", 0, "/x.toml"},
		{"explain", 0, "BUSY-PROC"},
		{"explain busy-proc", 0, "soft veto"},
		{"explain SYNC", 0, "hard veto"},
		{"explain FROG", 2, "FROG"},
		{"explain sync --json", 0, "\"code\": \"SYNC\",\n      \"title\""},
		{"explain --json", 0, "\"hard\": true"},
		{"config check --json --config C", 0, "\"name\": \"p\",\n      \"nodes\": [\n        \"otter\",\n        \"weasel\"\n      ]"},
		{"config path --json --config C", 0, "\"path\": \"" + config + "\""},
		{"completion bash", 0, "__start_santui"},
		{"completion zsh", 0, "#compdef santui"},
		{"completion fish", 0, "santui"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(strings.ReplaceAll(tt.args, " C", " "+config))
			r := execute(t, "santui", args...)
			if r.code != tt.code || !strings.Contains(r.out+r.err, tt.want) {
				t.Errorf("want exit %d and %q, got %v", tt.code, tt.want, r)
			}
			if (r.code != 0) != (r.err != "") && r.code != cli.ExitUnreachable {
				t.Errorf("an error belongs on stderr, nothing else does: %v", r)
			}
		})
	}
}

// TestJSONErrors demands a document on stdout for every way to fail.
func TestJSONErrors(t *testing.T) {
	config := writeConfig(t, deaf)
	for _, tt := range []struct {
		args string
		exit int
		code proto.ErrorCode
	}{
		{"status --nope --json", 2, proto.CodeInvalid},
		{"status --json --config /nonexistent.toml", 2, proto.CodeInvalid},
		{"failover --json --config C", 2, proto.CodeInvalid},
		{"failover --to otter --json --config C", 4, proto.CodeNotConfirmed},
		{"check --to otter --json --config C", 5, proto.CodeUnreachable},
		{"takeover --to otter --json --config C", 4, proto.CodeNotConfirmed},
		{"ops --json --config C", 5, proto.CodeUnreachable},
		{"explain FROG --json", 2, proto.CodeInvalid},
		{"disk detach --on otter --json --config C", 5, proto.CodeUnreachable},
		{"outdate --json --config C", 2, proto.CodeInvalid},
		{"resize --on weasel --confirm p --json --config C", 5, proto.CodeUnreachable},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			r := execute(t, "santui", strings.Fields(strings.ReplaceAll(tt.args, " C", " "+config))...)
			var doc struct {
				Schema string
				Error  *proto.Error
				Exit   int
			}
			if err := json.Unmarshal([]byte(r.out), &doc); err != nil {
				t.Fatalf("%v: %v", err, r)
			}
			if doc.Schema != proto.Schema || doc.Error == nil || doc.Error.Code != tt.code || doc.Exit != tt.exit || r.code != tt.exit {
				t.Errorf("want %s with exit %d, got %v", tt.code, tt.exit, r)
			}
		})
	}
	r := execute(t, "santui", "status", "--json", "--config", config)
	var st pairStatus
	if err := json.Unmarshal([]byte(r.out), &st); err != nil || len(st.Nodes) != 2 || st.Nodes[0].Reachable || st.Nodes[0].Error == "" || r.code != 5 {
		t.Errorf("a status of deaf agents: %v %v", err, r)
	}
}

func TestWatchSaysWhatIsSilent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "santui"), "watch", "--json", "--config", writeConfig(t, deaf))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	silent := map[string]bool{}
	for dec := json.NewDecoder(out); len(silent) < 2; {
		var n struct {
			Schema, Node, Error string
			Reachable           bool
		}
		if err := dec.Decode(&n); err != nil {
			t.Fatal(err)
		}
		if n.Schema != proto.Schema || n.Reachable || n.Error == "" {
			t.Errorf("%+v", n)
		}
		silent[n.Node] = true
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // its code is what counts
	if code := cmd.ProcessState.ExitCode(); code != cli.ExitInterrupted {
		t.Errorf("exit %d", code)
	}
}

// TestOtherSystems builds the cockpit for the systems that it promises to run on.
func TestOtherSystems(t *testing.T) {
	for _, system := range []string{"darwin", "windows"} {
		t.Run(system, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, ".")
			cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "4k": 4 << 10, "64M": 64 << 20, "1G": 1 << 30, "2T": 2 << 40, "10MB": 10 << 20} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("%q: %d %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "-1", "M", "1P", "1.5G", "9999999999T", "9223372036854775807G", "1 M"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
}

// TestPlansAreSafeToPrint: a mount point's name must not reach the terminal as an escape sequence.
func TestPlansAreSafeToPrint(t *testing.T) {
	var b strings.Builder
	printPlan(&b, proto.Plan{Steps: []proto.Step{{Index: 1, Node: "otter", Argv: []string{"umount", "/mnt/\x1b]52;c;aGk=\x07\x1b[2J"}}}})
	if strings.ContainsAny(b.String(), "\x1b\x07") {
		t.Errorf("%q", b.String())
	}
}

// TestProtocolErrorsAreShown: a peer that sends what no correct peer sends is named in the status, once it happened.
func TestProtocolErrorsAreShown(t *testing.T) {
	for n, want := range map[int64]bool{0: false, 3: true} {
		var b strings.Builder
		printResource(&b, proto.Resource{Name: "r0", Counters: proto.Counters{ProtocolErrors: n}})
		if strings.Contains(b.String(), "protocol errors: 3") != want {
			t.Errorf("%d errors: %q", n, b.String())
		}
	}
}

// TestSSHHasTime: the agent's first word may take as long as ssh may take to connect; a socket is answered at once or never.
func TestSSHHasTime(t *testing.T) {
	t.Parallel()
	if got := sessionOptions(cli.Node{Name: "otter", SSH: "root@otter"}).PrologueTimeout; got <= 10*time.Second || got >= answerTime {
		t.Errorf("by ssh: %v", got)
	}
	if got := sessionOptions(cli.Node{Name: "otter", Socket: "/run/x"}).PrologueTimeout; got != 0 {
		t.Errorf("by a socket: %v", got)
	}
}
