package op

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/santui/proto"
)

// TestJournalProblem takes away the journal's folder: the check names it, and a write fails in words and not as a bug.
func TestJournalProblem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ops")
	j, err := OpenJournal(dir, "weasel")
	if err != nil {
		t.Fatal(err)
	}
	if p := j.Problem(); p != "" {
		t.Fatalf("a journal that can be written: %q", p)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if p := j.Problem(); !strings.Contains(p, dir+" cannot be written") {
		t.Errorf("problem: %q", p)
	}
	var pe *proto.Error
	if err := j.Put(proto.Op{ID: "1"}); !errors.As(err, &pe) || pe.Code != proto.CodeFailed || !strings.Contains(pe.Text, dir) {
		t.Errorf("Put: %v", err)
	}
}
