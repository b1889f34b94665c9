package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/santui/proto"
)

// TestOnlyWhatIsConfigured: the other agent cannot have anything done here that this node's own agent.toml does not name.
func TestOnlyWhatIsConfigured(t *testing.T) {
	c, err := load(t, section)
	if err != nil {
		t.Fatal(err)
	}
	s := c.Resource["r0"]
	a := &Agent{cfg: c, hub: newHub("otter", slog.Default()), lock: &proto.Lock{OpID: "op", Node: c.Node}, stepping: make(chan struct{}, 1)}
	a.resources = []*resource{{name: "r0", conf: resourceConf{service: s}}}
	other, fast := s.Scripts[0], s.Scripts[0]
	other.Start, fast.Limit = []string{"/bin/sh", "-c", "true"}, 6
	for _, tt := range []struct {
		name string
		step proto.Step
		ok   bool
	}{
		{"unit", proto.Step{Kind: proto.StepStopUnit, Unit: "smbd.service"}, true},
		{"another unit", proto.Step{Kind: proto.StepStopUnit, Unit: "sshd.service"}, false},
		{"script", proto.Step{Kind: proto.StepStopScript, Script: &s.Scripts[0]}, true},
		{"another program under its name", proto.Step{Kind: proto.StepStartScript, Script: &other}, false},
		{"another limit", proto.Step{Kind: proto.StepStartScript, Script: &fast}, false},
		{"address", proto.Step{Kind: proto.StepDropAddress, Address: &s.Address[0]}, true},
		{"another address", proto.Step{Kind: proto.StepDropAddress, Address: &proto.Address{Address: "10.0.0.1/24", Interface: "eth0"}}, false},
		{"export", proto.Step{Kind: proto.StepExport, Export: &s.Exports[0]}, true},
		{"export with other options", proto.Step{Kind: proto.StepExport, Export: &proto.Export{Path: "/srv/store", Client: "10.0.0.0/24", Options: "rw,no_root_squash"}}, false},
	} {
		tt.step.Node, tt.step.Resource = "otter", "r0"
		for _, dry := range []bool{false, true} {
			err := (local{a}).mayStep(proto.PeerStepRequest{OpID: "op", Step: tt.step, DryRun: dry})
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, &proto.Error{Code: proto.CodeInvalid}) {
				t.Errorf("%s, dry run %v: %v", tt.name, dry, err)
			}
		}
	}
	// A kind without what it is about comes from a broken peer.
	res := (local{a}).Step(t.Context(), proto.PeerStepRequest{OpID: "op", Step: proto.Step{Kind: proto.StepStopUnit, Node: "otter", Resource: "r0"}})
	if !errors.Is(res.Err, &proto.Error{Code: proto.CodeUnsupported}) {
		t.Errorf("%+v", res.Err)
	}
}

func TestSectionOfUnknownResource(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "drbd.conf")
	text := `resource r0 { protocol C;
  on otter { device /dev/drbd0; disk /dev/md3; address 10.0.0.1:7788; meta-disk internal; }
  on weasel { device /dev/drbd0; disk /dev/md3; address 10.0.0.2:7788; meta-disk internal; } }`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"r0": "", "r1": "agent.toml:3: resource.r1."} {
		c, err := load(t, "drbd_conf = '"+conf+"'\n"+strings.ReplaceAll(section, "resource.r0", "resource."+name))
		if err != nil {
			t.Fatal(err)
		}
		confs, err := loadResources(c)
		if want == "" && (err != nil || len(confs[0].service.Units) != 2) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
