package tui

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/internal/scene"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/source"
	"example.com/santui/tui/theme"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/termenv"
	"pgregory.net/rapid"
)

// recorder is a source that answers at once and remembers what it was asked.
type recorder struct {
	mu     sync.Mutex // protects what follows
	asked  []any
	replay *source.Replay
	hold   chan struct{} // if set, calls wait for it
}

func newRecorder(extra ...proto.Check) *recorder {
	return &recorder{replay: source.NewReplay(scene.Static(scene.InSync(), false, extra...), 1e6)}
}

func (r *recorder) Nodes() []string                            { return []string{"otter", "weasel"} }
func (r *recorder) Watch(context.Context) <-chan source.Update { return nil }
func (r *recorder) RetryNow(node string)                       { r.note("retry " + node) }
func (r *recorder) note(v any)                                 { r.mu.Lock(); r.asked = append(r.asked, v); r.mu.Unlock() }
func (r *recorder) Stream(ctx context.Context, n string, m proto.Method, in any, on func(json.RawMessage) error) error {
	r.note(in)
	if s, ok := in.(proto.SetupRequest); ok && s.DryRun {
		return r.replay.Stream(ctx, n, m, in, on)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (r *recorder) Call(ctx context.Context, n string, m proto.Method, in, out any) error {
	r.note(in)
	if r.hold != nil {
		<-r.hold
	}
	return r.replay.Call(ctx, n, m, in, out)
}

func asked[T any](r *recorder) (out []T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.asked {
		if v, ok := a.(T); ok {
			out = append(out, v)
		}
	}
	return out
}

// pilot drives a model without a program: it runs the commands and feeds what comes back, but never waits for time.
type pilot struct {
	*Model
	src *recorder
	out bytes.Buffer
}

func newPilot(tb testing.TB, w, h int, s scene.Scene, ascii bool, src *recorder) *pilot {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	return bareEnded(ctx, w, h, s, ascii, src)
}

func bareEnded(ctx context.Context, w, h int, s scene.Scene, ascii bool, src *recorder) *pilot {
	p := &pilot{src: src}
	o := Options{Pair: "store-1", Owner: "root@laptop", Location: time.UTC, Now: func() time.Time { return scene.Now }, Out: &p.out}.withDefaults()
	p.Model = newModel(ctx, src, o, theme.Mono, ascii, termenv.Ascii)
	p.frozen()
	p.send(tea.WindowSizeMsg{Width: w, Height: h})
	p.Update(updatesMsg(s.Inputs)) // its command waits for more
	return p
}

// send feeds a message and all that follows from it.
func (p *pilot) send(msg tea.Msg) {
	_, cmd := p.Update(msg)
	p.run(cmd)
}

func (p *pilot) run(cmd tea.Cmd) { p.follow(p.ctx, cmd, 10*time.Second) }

func (p *pilot) keys(list ...string) {
	for _, k := range list {
		p.send(scene.Key(k))
	}
}

func (p *pilot) sees(t *testing.T, want ...string) {
	t.Helper()
	v := p.View()
	for _, w := range want {
		if !strings.Contains(v, w) {
			t.Errorf("%q is not on the screen:\n%s", w, v)
		}
	}
}

func TestDrillFromTheOverview(t *testing.T) {
	p := newPilot(t, 80, 24, scene.InSync(), false, newRecorder())
	p.keys("f")
	p.sees(t, "1 CHECK", "Nothing blocks")
	p.keys("enter")
	p.sees(t, "2 PLAN", "umount /srv/store", "santui failover --to weasel --confirm store-1")
	p.keys("d")
	p.sees(t, "dry run: both agents accept every step")
	p.keys("enter", "store-1")
	p.sees(t, "3 CONFIRM", "> [ Cancel ]", "store-1_")
	if starts := real(asked[proto.OpStartRequest](p.src)); len(starts) != 0 {
		t.Fatalf("started already: %+v", starts)
	}
	p.keys("tab", "enter")
	if starts := real(asked[proto.OpStartRequest](p.src)); len(starts) != 1 || starts[0].Confirm != "store-1" {
		t.Fatalf("started %+v", starts)
	}
	p.sees(t, "4 RUN", "umount /srv/store")
	for limit := time.Now().Add(10 * time.Second); len(asked[proto.OpRequest](p.src)) == 0 && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
	if w := asked[proto.OpRequest](p.src); len(w) != 1 || w[0].ID != scene.Op().ID {
		t.Errorf("watches %+v", w)
	}
	p.exec(p.wiz.See(scene.Stopped(), scene.Now))
	p.sees(t, "STOPPED", "FAILED   6", "> t  try", "u  undo", "k  keep", "look at the disk's latency")
	p.exec(p.wiz.See(scene.Undone(), scene.Now))
	p.sees(t, "5 REPORT", "undone: everything is back on otter")
	p.keys("enter")
	p.sees(t, "PRIMARY  otter")
}

func real(list []proto.OpStartRequest) []proto.OpStartRequest {
	return slices.DeleteFunc(list, func(r proto.OpStartRequest) bool { return r.DryRun })
}

func TestQuitAsksOnlyWhileAnOperationRuns(t *testing.T) {
	p := newPilot(t, 80, 24, scene.Running(), false, newRecorder())
	p.keys("q")
	if !p.leaving || p.code != codeDone {
		t.Errorf("somebody else's operation kept us: leaving %v, code %d", p.leaving, p.code)
	}
	p = newPilot(t, 80, 24, scene.Running(), false, newRecorder())
	p.keys("a", "x")
	p.sees(t, "detached: operation")
	p.keys("q")
	if p.leaving {
		t.Fatal("left without a question")
	}
	if msg := holdQuit(p.Model, tea.QuitMsg{}); msg != (askQuitMsg{}) {
		t.Errorf("a quit from nowhere becomes %v", msg)
	}
	p.sees(t, "leave while the operation runs?", "> [ Stay ]")
	p.keys("enter")
	if p.leaving || p.ask != nil {
		t.Fatal("Stay left")
	}
	p.keys("q", "tab", "enter")
	if !p.leaving || p.code != codeDetached {
		t.Errorf("leaving %v, code %d", p.leaving, p.code)
	}
	if msg := holdQuit(p.Model, tea.QuitMsg{}); msg != (tea.QuitMsg{}) {
		t.Errorf("a decided quit becomes %v", msg)
	}
}

// TestQuitAfterTheReport: the operation's stream said that it is over, the snapshots do not yet.
func TestQuitAfterTheReport(t *testing.T) {
	p := newPilot(t, 80, 24, scene.Running(), false, newRecorder())
	p.keys("a")
	ended := &opStream{ch: make(chan proto.Op)}
	close(ended.ch)
	p.send(opSeenMsg{p.wiz, ended, scene.Undone(), "weasel"})
	p.sees(t, "5 REPORT")
	p.keys("esc", "q")
	if !p.leaving || p.code != codeDone {
		t.Errorf("leaving %v, code %d\n%s", p.leaving, p.code, p.View())
	}
}

func TestSignalsDetach(t *testing.T) {
	p := newPilot(t, 80, 24, scene.Running(), false, newRecorder())
	p.keys("a")
	p.send(signalMsg(codeHUP))
	if code, err := p.result(nil, &panics{}); !p.leaving || code != codeHUP || err != nil {
		t.Errorf("leaving %v, code %d, %v", p.leaving, code, err)
	}
}

func TestSyncIsSteeredOnlyAfterAQuestion(t *testing.T) {
	p := newPilot(t, 80, 24, scene.Syncing(0.4), false, newRecorder())
	p.keys("s")
	p.sees(t, "SYNC", "finish 0:50:54", "pause the synchronisation")
	p.keys("P", "enter")
	p.keys("P", "esc")
	if got := asked[proto.SyncRequest](p.src); len(got) != 0 {
		t.Fatalf("cancel asked for %+v", got)
	}
	p.keys("P", "tab", "enter")
	p.keys("L", "30M", "tab", "enter")
	got := asked[proto.SyncRequest](p.src)
	if len(got) != 2 || got[0].Action != proto.SyncPause || got[1].Action != proto.SyncRate || got[1].Rate != 30<<20 || got[1].By != "root@laptop" {
		t.Errorf("%+v", got)
	}
	p.keys("S")
	p.sees(t, "not possible now: otter is UpToDate")
}

func TestVerifyAsksFirst(t *testing.T) {
	p := newPilot(t, 80, 24, scene.InSync(), false, newRecorder())
	p.keys("v")
	p.sees(t, "verify both copies?", "> [ Cancel ]")
	p.keys("enter", "v", "esc")
	if got := asked[proto.VerifyRequest](p.src); len(got) != 0 {
		t.Fatalf("cancel asked for %+v", got)
	}
	p.keys("v", "tab", "enter")
	got := asked[proto.VerifyRequest](p.src)
	if len(got) != 1 || got[0].Action != proto.VerifyStart || got[0].Resource != "r0" || got[0].By != "root@laptop" {
		t.Fatalf("%+v", got)
	}
	p = newPilot(t, 80, 24, scene.Verifying(), false, newRecorder())
	p.sees(t, "verify  weasel > otter", "v stop verify", "4.00 KiB differ")
	p.keys("v", "tab", "enter")
	if got := asked[proto.VerifyRequest](p.src); len(got) != 1 || got[0].Action != proto.VerifyStop {
		t.Fatalf("%+v", got)
	}
}

func TestFullSyncNeedsTheName(t *testing.T) {
	p := newPilot(t, 80, 24, scene.NewPair(), false, newRecorder())
	p.sees(t, "no copy is declared good yet")
	p.keys("s", "S", "down", "store-", "tab", "enter")
	if got := asked[proto.SyncRequest](p.src); len(got) != 0 {
		t.Fatalf("started without the name: %+v", got)
	}
	p.keys("1", "enter")
	got := asked[proto.SyncRequest](p.src)
	if len(got) != 1 || got[0].Action != proto.SyncStart || got[0].Confirm != "store-1" {
		t.Fatalf("%+v", got)
	}
	p.sees(t, "full sync from weasel started")
}

func TestDisabledKeysSayWhy(t *testing.T) {
	p := newPilot(t, 80, 24, scene.StalePrimary(), false, newRecorder())
	p.sees(t, "STALE 42 s otter, was PRIMARY", "(old)", "STILL PRIMARY", "F takes over on weasel")
	p.keys("f")
	p.sees(t, "failover is not possible now: otter does not answer")
	p.keys("J")
	p.sees(t, "rejoin is not possible now: otter does not answer")
	p.keys("v")
	p.sees(t, "verify is not possible now: otter does not answer")
	p.keys("R")
	if got := asked[string](p.src); !slices.Equal(got, []string{"retry otter"}) {
		t.Errorf("%v", got)
	}
	p.keys("?")
	p.sees(t, "HELP", "not now: otter does not answer")
	p.keys("esc")
	p.sees(t, "STALE")
}

func TestFilterAndCopy(t *testing.T) {
	p := newPilot(t, 80, 24, scene.InSync(), false, newRecorder())
	p.keys("l", "/", "mounted", "enter", "y")
	p.sees(t, "filter: mounted", "mounted /srv/store")
	if strings.Contains(p.View(), "connected to otter") {
		t.Error("the filter hides nothing")
	}
	if !strings.HasPrefix(p.out.String(), "\x1b]52;c;") {
		t.Errorf("the clipboard got %q", p.out.String())
	}
}

func TestUntrustedTextIsHarmless(t *testing.T) {
	s := scene.InSync()
	p := newPilot(t, 160, 48, s, false, newRecorder())
	rec, err := source.ReadRecords(strings.NewReader(`{"node":"otter","snapshot":{"node":"otter","pair":"x","events":[{"text":"evil \u001b[2J\u001b]52;c;aa\u0007 text"}],"resources":[{"name":"r\u001b[1m0","role":"Primary","disk":"UpToDate","conn":"Connected","peer_role":"Secondary","peer_disk":"UpToDate","protocol":"C"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	p.Update(updatesMsg{{Node: "otter", Snapshot: rec[0].Snapshot, LinkUp: true}})
	if v := p.View(); strings.ContainsRune(v, '\x1b') || !strings.Contains(v, "evil") {
		t.Errorf("%q", v)
	}
}

func TestALateAnswerForAClosedWizardIsDropped(t *testing.T) {
	src := newRecorder()
	src.hold = make(chan struct{})
	p := newPilot(t, 80, 24, scene.InSync(), false, src)
	_, cmd := p.Update(scene.Key("f"))
	p.keys("esc")
	close(src.hold)
	p.run(cmd)
	if p.wiz != nil {
		t.Error("the wizard came back")
	}
}

// states are the models that any size and key must be fine with.
func states() []func(context.Context, *recorder) *pilot {
	var out []func(context.Context, *recorder) *pilot
	for _, s := range append(scene.Overviews(), scene.Running(), scene.Moved(), scene.Scene{}) {
		out = append(out, func(ctx context.Context, r *recorder) *pilot { return bareEnded(ctx, 80, 24, s, false, r) })
	}
	for _, keys := range [][]string{{"enter"}, {"s"}, {"l"}, {"c"}, {"?"}, {"f"}, {"f", "enter"}, {"f", "enter", "enter"}} {
		out = append(out, func(ctx context.Context, r *recorder) *pilot {
			p := bareEnded(ctx, 80, 24, scene.InSync(), true, r)
			p.keys(keys...)
			return p
		})
	}
	for _, op := range []proto.Op{scene.Done(scene.Op(), 2), scene.Stopped(), scene.Finished(), {}} {
		out = append(out, func(ctx context.Context, r *recorder) *pilot {
			s := scene.InSync()
			s.Inputs[1].Snapshot.Op = &op
			p := bareEnded(ctx, 80, 24, s, false, r)
			p.Update(scene.Key("a"))
			return p
		})
	}
	return out
}

func TestEverySizeOfEveryState(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var all []*pilot
	for _, s := range states() {
		all = append(all, s(ctx, newRecorder()))
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(all).Draw(t, "state")
		w, h := rapid.IntRange(1, 300).Draw(t, "w"), rapid.IntRange(1, 100).Draw(t, "h")
		p.Update(tea.WindowSizeMsg{Width: w, Height: h})
		lines := strings.Split(p.View(), "\n")
		if len(lines) != h {
			t.Fatalf("%d lines at %dx%d", len(lines), w, h)
		}
		for _, l := range lines {
			if n := ansi.StringWidth(l); n != w {
				t.Fatalf("a line of %d cells at %dx%d: %q", n, w, h, l)
			}
		}
	})
}

func TestNoSizeYetIsNothing(t *testing.T) {
	p := newPilot(t, 0, 0, scene.InSync(), false, newRecorder())
	if v := p.View(); v != "" {
		t.Errorf("%q", v)
	}
	p.keys("f", "l", "?")
}

// TestAnyKeysNeverStartUnconfirmed presses keys anywhere in the program; requests must always carry the typed name.
func TestAnyKeysNeverStartUnconfirmed(t *testing.T) {
	all := []string{"enter", "tab", "esc", "up", "down", "backspace", "pgdown", "end", "store-1", "store-1 FORCE", "store-1 DISCARD weasel", "pulled", "s", "S", "P", "L", "30M", "f", "F", "D", "J", "u", "v", "a", "l", "c", "?", "/", "n", "p", "V", "storage", "H", "W", "f1",
		"t", "u", "k", "x", "d", "b", "r", "w", "T", " ", "g", "o"}
	build := states()
	rapid.Check(t, func(rt *rapid.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		src := newRecorder()
		p := build[rapid.IntRange(0, len(build)-1).Draw(rt, "state")](ctx, src)
		for range rapid.IntRange(1, 25).Draw(rt, "keys") {
			before := len(real(asked[proto.OpStartRequest](src)))
			confirm := p.wiz != nil && p.where() == keymap.ConfirmPage && p.ask == nil
			k := rapid.SampledFrom(all).Draw(rt, "key")
			_, cmd := p.Update(scene.Key(k))
			p.follow(ctx, cmd, 2*time.Millisecond)
			if after := real(asked[proto.OpStartRequest](src)); len(after) > before && (!confirm || k != "enter" || after[before].Confirm != "store-1") {
				rt.Fatalf("%s started %+v outside the third page", k, after[before])
			}
			_ = p.View()
		}
		for _, r := range asked[proto.SyncRequest](src) {
			if r.Action == proto.SyncStart && r.Confirm != "store-1" {
				rt.Fatalf("full sync without the name: %+v", r)
			}
		}
	})
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]int64{"30M": 30 << 20, "1g": 1 << 30, " 512K ": 512 << 10, "100": 100, "": 0, "0": 0, "-3M": 0, "9999999999999G": 0, "fast": 0} {
		got, err := ParseRate(in)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
}

// journals is a source whose agents show no operation and remember one.
func journals(t *testing.T, op proto.Op) *recorder {
	t.Helper()
	brief := op
	brief.Steps = nil
	var list []source.Record
	for m, v := range map[proto.Method]any{proto.MethodOps: proto.OpsReply{Schema: proto.Schema, Ops: []proto.Op{brief}}, proto.MethodReport: proto.Report{Op: op}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, source.Record{Method: m, Out: b})
	}
	r := newRecorder()
	r.replay = source.NewReplay(list, 1e6)
	return r
}

// TestAFreshCockpitShowsWhatTheJournalsHold: agents that were started anew show no operation, but remember what was run.
func TestAFreshCockpitShowsWhatTheJournalsHold(t *testing.T) {
	p := newPilot(t, 160, 48, scene.InSync(), false, journals(t, scene.Finished()))
	p.sees(t, "the agents show no operation")
	p.opsAsked = false // newPilot runs no commands
	p.run(p.takeUpdates(scene.InSync().Inputs))
	p.sees(t, "from the journal: failover 11-22 14:02, done", "otter$ umount /srv/store")
	if n := len(asked[proto.OpRequest](p.src)); n != 1 {
		t.Errorf("%d reports were asked for", n)
	}
	p.run(p.takeUpdates(scene.InSync().Inputs))
	if n := len(asked[proto.OpRequest](p.src)); n != 1 {
		t.Errorf("asked again with every snapshot: %d", n)
	}
	p.keys("c")
	p.sees(t, "failover otter > weasel", "vgchange")
	p.keys("esc")
	p.Update(updatesMsg(scene.Moved().Inputs))
	p.sees(t, "commands of failover 11-22 14:02, done")
}

func fixes(r *recorder) (out []proto.DoctorRequest) {
	for _, d := range asked[proto.DoctorRequest](r) {
		if d.Fix {
			out = append(out, d)
		}
	}
	return out
}

func TestDoctorWritesOnlyWithTheName(t *testing.T) {
	p := newPilot(t, 80, 24, scene.InSync(), false, newRecorder())
	p.keys("H")
	p.sees(t, "DOCTOR", "otter  NOT SAFE", "weasel  healthy", "otter: would change /etc/lvm/lvm.conf", "W writes it once")
	p.keys("W", "store-", "tab", "enter", "esc", "W", "store-1", "enter") // a wrong name; the right one, but Cancel
	if f := fixes(p.src); len(f) != 0 {
		t.Fatalf("written without consent: %+v", f)
	}
	p.keys("W", "store-1", "tab", "enter")
	if f := fixes(p.src); len(f) != 1 || f[0].Confirm != "store-1" || f[0].By != "root@laptop" || f[0].Resource != "r0" {
		t.Fatalf("%+v: only otter proposes something", f)
	}
	p.sees(t, "written; the old files are kept")
	late := p.askDoctor(nil, "")
	p.keys("r")
	p.doctor.Nodes = nil
	p.Update(late())
	if len(p.doctor.Nodes) != 0 {
		t.Error("an answer to an older question was taken")
	}
	p.o.ReadOnly = true
	p.keys("esc", "H", "W")
	p.sees(t, "write the fix is not possible now: this session is read-only")
}

// TestHelpNamesEveryKey: on each screen, the help lists all that works there and elsewhere.
func TestHelpNamesEveryKey(t *testing.T) {
	p := newPilot(t, 200, 400, scene.InSync(), false, newRecorder())
	for _, from := range []keymap.Screen{keymap.Overview, keymap.DoctorScreen, keymap.ConfirmPage, keymap.RunPage} {
		text, _ := p.ctxFor().Help(from, 0)
		for _, b := range keymap.Bindings {
			if !strings.Contains(text, b.Help().Key) || !strings.Contains(text, b.Long) {
				t.Errorf("the help of %s lacks %s (%s)", from, b.Help().Key, b.Action)
			}
		}
	}
	p = newPilot(t, 80, 24, scene.InSync(), false, newRecorder())
	p.keys("f", "enter", "enter", "sto", "f1")
	p.sees(t, "HELP", "keys of this screen: confirm", "press the button that has the focus")
	p.keys("esc")
	p.sees(t, "3 CONFIRM", "sto_")
}

func setups(r *recorder) (out []proto.SetupRequest) {
	for _, s := range asked[proto.SetupRequest](r) {
		if !s.DryRun {
			out = append(out, s)
		}
	}
	return out
}

func TestSetup(t *testing.T) {
	p := newPilot(t, 80, 24, scene.Empty(), false, newRecorder())
	p.sees(t, "It carries nothing yet: V sets LVM up")
	p.keys("V")
	p.sees(t, "set up r0", "not yet: volume group is missing")
	for _, c := range []struct{ vg, lv, size, fs, mount, why string }{
		{"-x", "data", "", "ext4", "", "volume group is no name for LVM"}, {"storage", "da ta", "", "ext4", "", "volume is no name for LVM"},
		{"storage", "data", "10", "ext4", "", "size is no size"}, {"storage", "data", "-3G", "ext4", "", "size is no size"},
		{"storage", "data", "1G", "ntfs", "", "file system is ext4 or xfs"}, {"storage", "data", "1G", "xfs", "srv", "mount point begins with"},
	} {
		for i, text := range []string{c.vg, c.lv, c.size, c.fs, c.mount} {
			p.form.fields[i].text = text
		}
		p.form.focus = p.form.next()
		p.keys("enter")
		if p.form == nil || !strings.HasPrefix(p.form.blocked(), c.why) {
			t.Fatalf("%+v: %v", c, p.form)
		}
	}
	p.keys("esc", "V", "storage", "enter", "data", "enter", "10G", "enter", "enter", "/srv/store", "enter")
	p.sees(t, "> [ Cancel ]")
	p.keys("tab", "enter")
	p.sees(t, "SETUP store-1  r0 on otter", "1 CHECK", "Nothing blocks")
	want := proto.SetupRequest{Resource: "r0", VG: "storage", LV: "data", Size: 10 << 30, FSType: "ext4", Mount: "/srv/store", DryRun: true, Owner: "root@laptop"}
	if got := asked[proto.SetupRequest](p.src); len(got) != 1 || got[0] != want {
		t.Fatalf("asked for %+v", got)
	}
	p.keys("enter")
	p.sees(t, "2 PLAN", "vgcreate", "santui setup --vg storage --lv data --fs ext4 --size", "10737418240 --mount /srv/store --confirm store-1")
	p.keys("enter", "store-", "tab", "enter")
	p.sees(t, "write to r0, on both nodes?", "not started")
	if got := setups(p.src); len(got) != 0 {
		t.Fatalf("started without the name: %+v", got)
	}
	p.keys("1", "enter")
	for limit := time.Now().Add(10 * time.Second); len(setups(p.src)) == 0 && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
	want.DryRun, want.Confirm = false, "store-1"
	if got := setups(p.src); len(got) != 1 || got[0] != want {
		t.Fatalf("started %+v", got)
	}
	if !p.busy() {
		t.Error("a set-up that was asked for does not keep the cockpit from leaving unasked")
	}
	running := scene.SetupOp()
	running.Steps[0].Result.State = proto.StepRunning
	open := &opStream{ch: make(chan proto.Op), begins: true}
	close(open.ch)
	p.Update(opSeenMsg{p.wiz, open, running, "otter"})
	p.sees(t, "4 RUN", "pvcreate")
	if strings.Contains(p.View(), "p pause") {
		t.Error("a set-up offers a pause that it does not have")
	}
	end := running
	end.State, end.Outcome, end.Rev = proto.OpDone, "r0 on otter carries volume group storage", 9
	p.Update(opSeenMsg{p.wiz, open, end, "otter"})
	p.sees(t, "5 REPORT", "carries volume group storage")
}

func TestSetupThatDoesNotBegin(t *testing.T) {
	p := newPilot(t, 80, 24, scene.Empty(), false, newRecorder())
	p.keys("V", "storage", "tab", "data", "tab", "tab", "tab", "tab", "tab", "enter", "enter", "enter", "store-1", "tab")
	p.wiz.Key(scene.Key("enter"), keymap.Binding{}, scene.Now)
	p.exec(p.wiz.WatchEnded("", proto.Errorf(proto.CodeLocked, "ann@desk holds the lock"), scene.Now))
	p.sees(t, "3 CONFIRM", "ann@desk holds the lock")
	if p.busy() {
		t.Error("it counts as begun")
	}
}

// TestHostileNamesInTheWizard: names of mounts, groups and processes are somebody else's text on every page.
func TestHostileNamesInTheWizard(t *testing.T) {
	const evil = "/srv/a\x1b[2J\n\x1b]52;c;aa\a \u202e日本"
	r := scene.Reply(scene.Failed(proto.CheckBusyProc, "otter", "pid 1 "+evil))
	r.Plan.Effect = []string{evil}
	for i := range r.Plan.Steps {
		r.Plan.Steps[i].Argv = append(r.Plan.Steps[i].Argv, evil)
		r.Plan.Steps[i].Why = evil
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	src := newRecorder()
	src.replay = source.NewReplay([]source.Record{{Method: proto.MethodPlan, Out: b}}, 1e6)
	for _, size := range [][2]int{{80, 24}, {160, 48}} {
		p := newPilot(t, size[0], size[1], scene.InSync(), false, src)
		for _, key := range []string{"f", "enter", "enter"} {
			p.keys(key)
			v := p.View()
			if strings.ContainsAny(v, "\x1b\a\u202e") || !strings.Contains(v, "/srv/a") {
				t.Errorf("after %s:\n%q", key, v)
			}
			for _, l := range strings.Split(v, "\n") {
				if n := ansi.StringWidth(l); n != size[0] {
					t.Errorf("after %s, a line of %d cells: %q", key, n, l)
				}
			}
		}
	}
}
