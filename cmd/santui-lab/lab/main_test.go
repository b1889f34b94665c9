//go:build lab

package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// builtDir is where TestMain put santui and santui-agent, built from this tree. A child of TestSweep has none.
var builtDir string

// built is the path of one of the two.
func built(name string) string { return filepath.Join(builtDir, name) }

func TestMain(m *testing.M) {
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func testMain(m *testing.M) (int, error) {
	ctx := context.Background()
	if err := Install(ctx, os.Stderr); err != nil {
		return 1, err
	}
	if os.Getenv(abandonEnv) == "" {
		dir, err := os.MkdirTemp("", "santui-built-")
		if err != nil {
			return 1, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		build := exec.CommandContext(ctx, "go", "build", "-o", dir+"/", "example.com/santui/cmd/santui", "example.com/santui/cmd/santui-agent")
		if out, err := build.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build the programs under test: %w: %s", err, out)
		}
		builtDir = dir
	}
	return m.Run(), nil
}
