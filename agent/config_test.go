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
		{"limits", "[limits]\nmount=900\nunmount=5.5\n", ""},
		{"a limit that is none", "[limits]\ndemote=9\n", "only unmount, deactivate, activate and mount"},
		{"a limit too short", "[limits]\nmount=1\n", "5 to 3600"},
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

// section is a settings file with a resource's section that has everything.
const section = `node = "otter"
[resource.r0]
units = ["smbd.service", "foo@1.timer"]
keep = ["/srv/other"]
[[resource.r0.scripts]]
name = "app"
stop = ["/opt/app", "stop"]
start = ["/opt/app", "start"]
limit = 5
[[resource.r0.address]]
address = "10.0.0.100/24"
interface = "eth0"
[[resource.r0.address]]
address = "10.0.0.101/32"
interface = "eth0"
[[resource.r0.exports]]
path = "/srv/store"
client = "10.0.0.0/24"
options = "rw,sync,fsid=1"
`

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadConfig(path)
}

func TestServiceSection(t *testing.T) {
	c, err := load(t, section)
	if err != nil {
		t.Fatal(err)
	}
	s := c.Resource["r0"]
	if len(s.Units) != 2 || s.Scripts[0].Limit != 5 || s.Address[1].Address != "10.0.0.101/32" || s.Exports[0].Client != "10.0.0.0/24" || len(s.Keep) != 1 {
		t.Errorf("%+v", s)
	}
	if c, err = load(t, strings.Replace(section, "limit = 5", "", 1)); err != nil || c.Resource["r0"].Scripts[0].Limit != defaultLimit {
		t.Errorf("%v, %+v", err, c.Resource)
	}
	if lines := describeService(s); len(lines) != 8 {
		t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
}

// TestServiceSectionRefuses changes one thing of a good section and wants the key, the line and the reason.
func TestServiceSectionRefuses(t *testing.T) {
	for _, tt := range []struct{ old, new, want string }{
		{`"smbd.service"`, `"smbd"`, `agent.toml:3: resource.r0.units: "smbd" is no unit`},
		{`"smbd.service"`, `"--now.service x"`, "agent.toml:3: resource.r0.units:"},
		{`"smbd.service"`, `"srv-store.mount"`, "found and moved without being named"},
		{`"smbd.service"`, `"foo@1.timer"`, "named twice"},
		{`"/srv/other"`, `"srv"`, "agent.toml:4: resource.r0.keep:"},
		{`"/srv/other"`, `"/srv/../x"`, "not an absolute path"},
		{`name = "app"`, `name = "a b"`, "agent.toml:6: resource.r0.scripts[0].name:"},
		{`name = "app"`, ``, "agent.toml:5: resource.r0.scripts[0].name:"},
		{`["/opt/app", "stop"]`, `["app"]`, "agent.toml:7: resource.r0.scripts[0].stop:"},
		{`["/opt/app", "stop"]`, `[]`, "absolute path"},
		{`["/opt/app", "stop"]`, `"/opt/app stop"`, "line 7"},
		{`["/opt/app", "start"]`, `["/opt/app", "a\u0000b"]`, "agent.toml:8: resource.r0.scripts[0].start:"},
		{`limit = 5`, `limit = 601`, "agent.toml:9: resource.r0.scripts[0].limit:"},
		{`limit = 5`, `limit = -1`, "1 to 600"},
		{`limit = 5`, `limit = nan`, "1 to 600"},
		{`limit = 5`, `user = "root"`, `agent.toml:9: unknown setting "resource.r0.scripts.user"`},
		{`10.0.0.101/32`, `10.0.0.101`, "agent.toml:14: resource.r0.address[1].address:"},
		{`10.0.0.101/32`, `fe80::1/64`, "of one link"},
		{`10.0.0.101/32`, `::ffff:10.0.0.1/128`, "in disguise"},
		{`10.0.0.101/32`, `fd00::/64`, "not the address of a host"},
		{`10.0.0.101/32`, `FD00::1/64`, "not the address of a host"},
		{`10.0.0.101/32`, `::1/128`, "not the address of a host"},
		{`10.0.0.101/32`, `ff02::1/64`, "not the address of a host"},
		{`10.0.0.101/32`, `10.0.0.0/24`, "not the address of a host"},
		{`10.0.0.101/32`, `127.0.0.1/8`, "not the address of a host"},
		{`10.0.0.101/32`, `10.0.0.100/24`, "named twice"},
		{`interface = "eth0"`, `interface = "../eth0"`, "agent.toml:12: resource.r0.address[0].interface:"},
		{`interface = "eth0"`, `interface = "a-very-long-interface"`, "no name of a network interface"},
		{`client = "10.0.0.0/24"`, `client = "10.0.0.0/24(rw)"`, "agent.toml:18: resource.r0.exports[0].client:"},
		{`client = "10.0.0.0/24"`, `client = "-a"`, "no client"},
		{`client = "10.0.0.0/24"`, `client = "fd00::/64"`, "IPv6"},
		{`rw,sync,fsid=1`, `rw sync`, "agent.toml:19: resource.r0.exports[0].options:"},
		{`rw,sync,fsid=1`, ``, "no options"},
		{`path = "/srv/store"`, `path = "store"`, "agent.toml:17: resource.r0.exports[0].path:"},
		{`keep =`, `kept =`, `agent.toml:4: unknown setting "resource.r0.kept"`},
	} {
		text := strings.Replace(section, tt.old, tt.new, 1)
		if text == section {
			t.Fatalf("%q is not there", tt.old)
		}
		_, err := load(t, text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.new, err, tt.want)
		}
	}
	many := "[resource.r0]\nkeep = [" + strings.Repeat(`"/x",`, maxEntries+1) + "]\n"
	if _, err := load(t, many); err == nil || !strings.Contains(err.Error(), "agent.toml:2: resource.r0.keep: 33 entries") {
		t.Error(err)
	}
}
