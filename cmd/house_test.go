// Package cmd_test holds the rules of the house that a machine can check without a linter.
package cmd_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath string
	Name       string
	Doc        string
	Imports    []string
	GoFiles    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Name,Doc,Imports,GoFiles", "example.com/santui/...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS=linux")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, "example.com/santui/")
		list = append(list, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("only %d packages listed", len(list))
	}
	return list
}

// TestEveryPackageIsDocumented demands a doc.go with a package comment.
func TestEveryPackageIsDocumented(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// TestArrows demands that imports run downwards only: cmd, tui and agent, datapath and lvmops, proto.
func TestArrows(t *testing.T) {
	allowed := map[string][]string{
		"cmd":           {"cmd", "tui", "agent", "datapath", "lvmops", "proto"},
		"tui":           {"tui", "proto"},
		"agent":         {"agent", "datapath", "lvmops", "proto"},
		"datapath":      {"datapath", "proto"},
		"lvmops":        {"lvmops", "proto"},
		"proto":         {},
		"proto/drbd":    {"proto"},
		"proto/session": {"proto"},
	}
	for _, p := range packages(t) {
		from := room(p.ImportPath)
		for _, imp := range p.Imports {
			imp, ours := strings.CutPrefix(imp, "example.com/santui/")
			if !ours {
				continue
			}
			to := room(imp)
			ok := from == to && from != "proto"
			for _, a := range allowed[from] {
				ok = ok || a == to || a == "proto" && strings.HasPrefix(to, "proto/") && !strings.HasPrefix(from, "proto")
			}
			switch {
			case to == "proto/session" && (from == "datapath" || from == "lvmops"),
				to == "proto/drbd" && (from == "lvmops" || from == "tui"):
				ok = false
			}
			if !ok {
				t.Errorf("%s must not import %s", p.ImportPath, imp)
			}
		}
	}
}

// room is the top-level folder of a package; proto has three rooms.
func room(path string) string {
	for _, r := range []string{"proto/drbd", "proto/session"} {
		if path == r || strings.HasPrefix(path, r+"/") {
			return r
		}
	}
	top, _, _ := strings.Cut(path, "/")
	return top
}
