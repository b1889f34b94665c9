package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestScreenshotsAreCurrent draws everything and compares it with what is committed.
func TestScreenshotsAreCurrent(t *testing.T) {
	dir := t.TempDir()
	if err := draw(dir); err != nil {
		t.Fatal(err)
	}
	for _, s := range shots {
		now, err := os.ReadFile(filepath.Join(dir, s.name()))
		if err != nil {
			t.Fatal(err)
		}
		then, err := os.ReadFile(filepath.Join("../../../screenshots", s.name()))
		if err != nil || !bytes.Equal(now, then) {
			t.Errorf("screenshots/%s is not what the cockpit shows now: run make screenshots (%v)", s.name(), err)
		}
		for dec := xml.NewDecoder(bytes.NewReader(now)); ; {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", s.name(), err)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	if code, err := run([]string{"nonsense"}); code != 2 || err == nil {
		t.Errorf("%d, %v", code, err)
	}
}
