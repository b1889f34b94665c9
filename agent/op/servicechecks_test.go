package op

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"example.com/santui/proto"
)

// TestServiceChecks makes each condition of what agent.toml adds appear in a healthy view, and looks for its code, its
// result and its evidence.
func TestServiceChecks(t *testing.T) {
	user := func(u proto.User) func(*View) {
		return func(v *View) { v.From.Resource.Stack.Users = append(v.From.Resource.Stack.Users, u) }
	}
	for _, tt := range []struct {
		code   string
		result proto.CheckResult
		want   string
		make   func(*View)
	}{
		{proto.CheckDrift, proto.CheckOK, "", func(*View) {}},
		{proto.CheckDrift, proto.CheckFail, "units: otter has [nmbd.service], weasel has [smbd.service]", func(v *View) { v.From.Service.Config.Units = []string{"nmbd.service"} }},
		{proto.CheckDrift, proto.CheckFail, "weasel has [{10.0.0.100/24 eth0}]", func(v *View) { v.From.Service = nil }},
		{proto.CheckDrift, proto.CheckFail, "weasel has []", func(v *View) { v.To.Service = nil }},
		{proto.CheckUnits, proto.CheckOK, "smbd.service", func(*View) {}},
		{proto.CheckUnits, proto.CheckFail, "smbd.service is not-found on weasel", func(v *View) { v.To.Service.Units[0].Load = "not-found" }},
		{proto.CheckUnits, proto.CheckFail, "is active on weasel, where the service is not", func(v *View) { v.To.Service.Units[0].Active = "active" }},
		{proto.CheckUnits, proto.CheckWarn, "is inactive on otter; it is started all the same", func(v *View) { v.From.Service.Units[0].Active = "inactive" }},
		{proto.CheckUnits, proto.CheckWarn, "is enabled on weasel", func(v *View) { v.To.Service.Units[0].File = "enabled" }},
		{proto.CheckUnits, proto.CheckUnknown, "weasel: systemd does not run", func(v *View) {
			v.To.Service.Units, v.To.Service.Errs = nil, []string{"systemd does not run"}
		}},
		{proto.CheckScripts, proto.CheckFail, "otter: /opt/app is not run", func(v *View) { v.From.Service.Scripts = []string{"/opt/app is not run"} }},
		{proto.CheckAddress, proto.CheckFail, "10.0.0.100/24 is on weasel (eth0), where the service is not", func(v *View) { v.To.Service.Addresses[0].Held = "eth0" }},
		{proto.CheckAddress, proto.CheckFail, "there is no interface eth0 on weasel", func(v *View) { v.To.Service.Addresses[0].Problem = "there is no interface eth0" }},
		{proto.CheckAddress, proto.CheckFail, "is on eth1 of otter, not on eth0", func(v *View) { v.From.Service.Addresses[0].Held = "eth1" }},
		{proto.CheckAddress, proto.CheckWarn, "10.0.0.100/24 is not on otter", func(v *View) { v.From.Service.Addresses[0].Held = "" }},
		{proto.CheckAddress, proto.CheckUnknown, "otter tells of 0", func(v *View) { v.From.Service.Addresses = nil }},
		{proto.CheckExports, proto.CheckFail, "weasel: exportfs", func(v *View) { v.To.Service.NFS = "exportfs: program is not installed" }},
		{proto.CheckExports, proto.CheckWarn, "does not run on weasel", func(v *View) { v.To.Service.Unserved = true }},
		{proto.CheckExports, proto.CheckWarn, `on otter without "rw"`, func(v *View) { v.From.Service.Exports[0].Options = "ro,sync" }},
		{proto.CheckExports, proto.CheckWarn, "/mnt is not exported to * on otter", func(v *View) { v.From.Service.Exports = nil }},
		{proto.CheckKeep, proto.CheckFail, "/mnt is /dev/storage/test, on the replicated device", func(v *View) { v.To.Service.Config.Keep = []string{"/mnt"} }},
		{proto.CheckBusyNFS, proto.CheckOK, "", func(*View) {}},
		{proto.CheckBusyNFS, proto.CheckFail, "nfs 10.0.0.9(rw)", user(proto.User{Kind: "nfs", Name: "10.0.0.9(rw)", Path: "/mnt"})},
		{proto.CheckBusyNFS, proto.CheckFail, "nfs *,10.0.0.9", user(proto.User{Kind: "nfs", Name: "*,10.0.0.9", Path: "/mnt"})},
		{proto.CheckBusyTarget, proto.CheckFail, "iscsi disk0", user(proto.User{Kind: "iscsi", Name: "disk0", Path: "/mnt/disk0"})},
		{proto.CheckBusyProc, proto.CheckOK, "", func(v *View) { v.To.Service.Config.Scripts = nil }},
		{proto.CheckBusyProc, proto.CheckWarn, "pid 9 other", user(proto.User{Kind: "process", PID: 9, Name: "other"})},
		{proto.CheckBusyProc, proto.CheckFail, "pid 9 other", func(v *View) {
			v.To.Service.Config.Scripts = nil
			user(proto.User{Kind: "process", PID: 9, Name: "other", Unit: "other.service"})(v)
		}},
		{proto.CheckBusyNS, proto.CheckOK, "", user(proto.User{Kind: "mount-namespace", PID: 8, Unit: "smbd.service", Path: "/mnt"})},
		{proto.CheckBusyNS, proto.CheckFail, "pid 8", user(proto.User{Kind: "mount-namespace", PID: 8, Path: "/mnt"})},
	} {
		g := newRig(t)
		g.w.equip()
		v, err := g.r.view(context.Background(), proto.ObserveRequest{Resource: "r0"}, proto.VerbFailover)
		if err != nil {
			t.Fatal(err)
		}
		tt.make(&v)
		checks := Checks(v)
		i := slices.IndexFunc(checks, func(c proto.Check) bool { return c.Code == tt.code })
		if i < 0 {
			t.Errorf("%s %q: not judged", tt.code, tt.want)
			continue
		}
		if c := checks[i]; c.Result != tt.result || !strings.Contains(strings.Join(c.Evidence, "; "), tt.want) || c.Result != proto.CheckOK && c.Remedy == "" {
			t.Errorf("%s: %s %q %q, want %s %q", tt.code, c.Result, c.Evidence, c.Remedy, tt.result, tt.want)
		}
	}
}

// TestServiceOrder: the plan takes down what is beside the stack before it, brings it up after it, in reverse, and shows the
// commands that will run.
func TestServiceOrder(t *testing.T) {
	g := newRig(t)
	g.w.equip()
	reply, err := g.r.Look(t.Context(), proto.CheckRequest{Verb: proto.VerbFailover, Resource: "r0"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range reply.Plan.Steps {
		got = append(got, s.Node+": "+strings.Join(s.Argv, " "))
	}
	want := []string{
		"otter: ip addr del 10.0.0.100/24 dev eth0", "otter: /opt/app stop", "otter: systemctl stop smbd.service", "otter: exportfs -u *:/mnt",
		"otter: umount /mnt", "otter: vgchange -an --devices /dev/drbd0 storage", "otter: drbdadm secondary r0", "otter: drbdadm role r0",
		"weasel: drbdadm primary r0", "weasel: vgchange -ay --devices /dev/drbd0 storage", "weasel: mount -t ext4 -o rw /dev/storage/test /mnt",
		"weasel: exportfs -o rw *:/mnt", "weasel: systemctl start smbd.service", "weasel: /opt/app start", "weasel: ip addr add 10.0.0.100/24 dev eth0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the plan is\n%s", strings.Join(got, "\n"))
	}
}

// TestNothingStartsWithoutItsMounts: a takeover that does not know what was mounted starts nothing on top of it.
func TestNothingStartsWithoutItsMounts(t *testing.T) {
	g := newRig(t)
	g.w.equip()
	powerCut(g)
	if err := g.r.journal.Remember("r0", func(k *Known) { *k = Known{Resource: "r0"} }); err != nil {
		t.Fatal(err)
	}
	o := g.begin(t, request(proto.VerbTakeover))
	if m := g.w.nodes["weasel"]; o.State != proto.OpDone || m.role != proto.Primary || m.unit || m.script || m.export || m.address {
		t.Errorf("%s: %s; %+v", o.State, o.Outcome, m)
	}
	if _, err := g.r.Start(t.Context(), request(proto.VerbTakeover)); !errors.Is(err, &proto.Error{Code: proto.CodeVeto}) {
		t.Errorf("again: %v", err)
	}
}
