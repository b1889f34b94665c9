//go:build root

package drbdconf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// drbdadm84 is the reader of 8.4 configurations in Debian's drbd-utils.
const drbdadm84 = "/lib/drbd/drbdadm-84"

// drbdadmDump lets drbdadm read a configuration and write what it understood. It only parses: no module is needed.
func drbdadmDump(t *testing.T, conf string) string {
	t.Helper()
	if _, err := os.Stat(drbdadm84); err != nil {
		t.Fatalf("this test needs drbd-utils: %v", err)
	}
	path := filepath.Join(t.TempDir(), "drbd.conf")
	if err := os.WriteFile(path, []byte("global { disable-ip-verification; usage-count no; }\n"+conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(drbdadm84, "-c", path, "dump", "all")
	cmd.Env = append(os.Environ(), "__DRBD_NODE__=otter")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("drbdadm-84: %v\n%s\n%s", err, stderr.String(), conf)
	}
	return string(out)
}

// TestDrbdadmAgrees dumps a configuration, lets drbdadm 8.4 read and write it, and reads that again: nothing may change.
func TestDrbdadmAgrees(t *testing.T) {
	for _, path := range []string{"testdata/guide.conf", "testdata/modern/drbd.d/mail.res", "testdata/judge.conf"} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			ours := parseFile(t, path)
			theirs, err := ParseReader(strings.NewReader(drbdadmDump(t, dumped(t, ours))), "drbdadm")
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range ours.Resources {
				o := theirs.Resources[i]
				if d := cmp.Diff(r.Hosts, o.Hosts, same); d != "" {
					t.Error(d)
				}
				if d := cmp.Diff([]any{r.Protocol, r.Net, r.Disk, r.Startup, r.Handlers}, []any{o.Protocol, o.Net, o.Disk, o.Startup, o.Handlers}, same); d != "" {
					t.Error(d)
				}
			}
		})
	}
}
