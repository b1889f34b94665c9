package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadConfig(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", ""},
		{"full", "node='otter'\npair='p'\nhandlers_may_halt=true\ninhibit_shutdown=true\n[peer]\nlisten='1:2'\naddress='3:4'\npin='SHA256:x'\n", ""},
		{"unknown", "color='red'\n", `unknown setting "color"`},
		{"syntax", "node=\n", "At line 1"},
		{"front end", "front_end='ublkk'\n", "not one of"},
		{"relative", "run_dir='run'\n", "not an absolute path"},
		{"half a peer", "[peer]\nlisten='1:2'\n", "together"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "agent.toml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := LoadConfig(path)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err == nil && (c.Node == "" || c.Socket == "") {
				t.Errorf("defaults are missing: %+v", c)
			}
		})
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "none.toml")); err == nil {
		t.Error("a missing file that was named must be an error")
	}
}
