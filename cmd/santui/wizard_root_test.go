//go:build root

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
)

// open starts the cockpit over a pair in a window of its own.
func (r *rig) open(t *testing.T, width, height int) *screen {
	t.Helper()
	s := newScreen(t, width, height)
	s.keys(t, fmt.Sprintf("LANG=C.UTF-8 %s/santui --config %s; echo code=$?", bin, r.config), "Enter")
	return s
}

// toConfirm goes with a wizard's key to its third page, over checks with a verdict and a plan that shows the words.
func (s *screen) toConfirm(t *testing.T, key, title, verdict string, plan ...string) {
	t.Helper()
	s.keys(t, key)
	s.see(t, 20*time.Second, title, "1 CHECK", verdict)
	s.keys(t, "Enter")
	s.see(t, 5*time.Second, append(plan, "2 PLAN", "Same from a shell:  santui ")...)
	s.keys(t, "Enter")
	s.see(t, 5*time.Second, "3 CONFIRM")
}

// start types the phrase and goes from Cancel, which has the focus, to Start.
func (s *screen) start(t *testing.T, phrase string) {
	t.Helper()
	s.see(t, 5*time.Second, "> [ Cancel ]", "Type  "+phrase+"  to start")
	s.keys(t, "-l", phrase)
	s.see(t, 5*time.Second, "> [ Cancel ]", "> "+phrase+"_", "[ Start ]")
	s.keys(t, "Tab")
	s.see(t, 5*time.Second, "> [ Start ]")
	s.keys(t, "Enter")
}

// paste puts text into the window the way a terminal pastes it.
func (s *screen) paste(t *testing.T, text string) {
	t.Helper()
	s.tmux(t, "set-buffer", text)
	s.tmux(t, "paste-buffer", "-p", "-t", "s")
}

// inService makes a pair whose service is up on otter.
func inService(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, 32<<20, "1G")
	if err := r.StartSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.MakeFS(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.WriteFile("otter", "file", 1); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestWizards goes through every verb's wizard by keys, in real terminals over real agents: a node is lost with writes that
// only it has, taken over from, found to have forked, resolved, rejoined. While the agents wait the 30 s that a takeover
// asks for, another pair is drilled, and a failover is stepped through, fails, is kept and undone.
func TestWizards(t *testing.T) {
	lost := inService(t)
	small := lost.open(t, 80, 24)
	small.see(t, 60*time.Second, "PRIMARY  otter", "0 B out of sync", "ready: f moves r0")
	lost.run(t, 0, "disconnect --on otter")
	if _, err := lost.WriteFile("otter", "only-here", 2); err != nil {
		t.Fatal(err)
	}
	if err := lost.Kill("otter"); err != nil {
		t.Fatal(err)
	}
	silentSince := time.Now()
	small.see(t, 30*time.Second, "STALE", "STILL PRIMARY", "F takes over on weasel")
	small.keys(t, "F")
	t.Logf("\n%s", small.see(t, 20*time.Second, "TAKEOVER demo", "30 s are", "Blocking, r checks again"))

	other := inService(t)
	wide := other.open(t, 160, 48)
	wide.see(t, 60*time.Second, "PRIMARY  otter", "0 B out of sync", "ready: f moves r0")
	drillByKeys(t, other, wide)
	undoByKeys(t, other, wide)

	time.Sleep(time.Until(silentSince.Add(31 * time.Second)))
	takeoverByKeys(t, lost, small)
	if err := lost.Boot("otter"); err != nil {
		t.Fatal(err)
	}
	resolveByKeys(t, lost, small)
	rejoinByKeys(t, lost, small)
	small.keys(t, "q")
	small.see(t, 10*time.Second, "code=0")
	small.restored(t)
}

// drillByKeys drills. A paste with a newline, and a window that shrinks in the middle, start and lose nothing.
func drillByKeys(t *testing.T, r *rig, s *screen) {
	t.Helper()
	s.toConfirm(t, "d", "DRILL demo  otter > weasel", "Nothing blocks", "sha256sum", "is away twice")
	s.paste(t, "demo\n\x1b[31m\nrm -rf /\n")
	t.Logf("\n%s", s.see(t, 5*time.Second, "3 CONFIRM", "> [ Cancel ]", "what is typed does not match"))
	s.keys(t, "C-u")
	s.keys(t, "-l", "de")
	s.tmux(t, "resize-window", "-t", "s", "-x", "30", "-y", "8")
	s.see(t, 5*time.Second, "window too small")
	s.tmux(t, "resize-window", "-t", "s", "-x", "160", "-y", "48")
	s.see(t, 5*time.Second, "> de_", "> [ Cancel ]")
	s.keys(t, "C-u")
	s.start(t, "demo")
	s.see(t, 60*time.Second, "5 REPORT", "DONE", "all as written")
	s.keys(t, "Escape")
	s.see(t, 30*time.Second, "PRIMARY  otter", "commands of drill", "ready: f moves r0 from otter to weasel") // the snapshots know that it is over
	r.on(t, "otter")
}

// undoByKeys steps through a failover whose first step fails, tries it again, keeps it, and undoes it.
func undoByKeys(t *testing.T, r *rig, s *screen) {
	t.Helper()
	_, stop := r.busy(t, "otter")
	s.toConfirm(t, "f", "FAILOVER demo  otter > weasel", "each is accepted by hand: BUSY-PROC", "umount")
	s.keys(t, "Tab", "Tab", "Space", "Tab", "Space", "Tab")
	s.see(t, 5*time.Second, "[x] I accept BUSY-PROC", "[x] stop before every step")
	s.start(t, "demo")
	s.see(t, 20*time.Second, "PAUSED", "Next is step 1 on otter: umount", "> g  go on")
	time.Sleep(1100 * time.Millisecond) // an enter right after the choices appeared does not choose
	s.keys(t, "Enter")
	failed := s.see(t, 20*time.Second, "STOPPED", "FAILED", "Now: otter is Primary", "> u  undo")
	t.Logf("\n%s", failed)
	s.keys(t, "t")
	s.see(t, 5*time.Second, "> t  try the failed step again")
	s.keys(t, "Enter")
	s.see(t, 20*time.Second, "PAUSED", "Next is step 1 on otter: umount", "> g  go on")
	time.Sleep(1100 * time.Millisecond)
	s.keys(t, "Enter")
	tried := failed[strings.Index(failed, "tried at"):][:len("tried at 00:00:00")]
	poll(t, 20*time.Second, "the step is tried again", func() (bool, string) {
		text := s.see(t, 20*time.Second, "STOPPED", "> u  undo")
		return !strings.Contains(text, tried), text
	})
	s.keys(t, "k", "Enter")
	s.see(t, 20*time.Second, "5 REPORT", "ATTENTION", "not run")
	s.keys(t, "Escape")
	s.see(t, 15*time.Second, "left half way", "u undo")
	stop()
	s.toConfirm(t, "u", "UNDO demo", "Nothing blocks", "is taken back")
	s.start(t, "demo")
	s.see(t, 30*time.Second, "5 REPORT", "undone: everything is back on otter")
	s.keys(t, "Escape")
	s.see(t, 15*time.Second, "ready: f moves r0 from otter to weasel")
	r.on(t, "otter")
	s.keys(t, "q")
	s.see(t, 10*time.Second, "code=0")
}

// takeoverByKeys waits for the checks to pass and takes over: with a statement, the pair's name and FORCE.
func takeoverByKeys(t *testing.T, r *rig, s *screen) {
	t.Helper()
	s.keys(t, "r")
	s.see(t, 20*time.Second, "0 blocking", "enter shows the plan")
	s.keys(t, "Enter")
	s.see(t, 5*time.Second, "2 PLAN", "without asking otter", "--peer-is-off")
	s.keys(t, "Enter")
	s.see(t, 5*time.Second, "WITHOUT otter?", "must be OFF", "Start (say how you know that otter is off)")
	s.keys(t, "-l", "power button, by me")
	s.keys(t, "Enter")
	s.see(t, 5*time.Second, "> power button, by me", "Start (type demo FORCE)")
	s.keys(t, "-l", "demo FORCE")
	s.keys(t, "Enter") // on to Cancel, and not further
	s.see(t, 5*time.Second, "3 CONFIRM", "> [ Cancel ]", "[ Start ]")
	s.keys(t, "Tab", "Enter")
	s.see(t, 30*time.Second, "5 REPORT", "DONE: r0 is Primary on weasel, without otter", `said of otter: "power button, by me"`)
	s.keys(t, "Escape")
	s.see(t, 15*time.Second, "PRIMARY  weasel  TOOK OVER")
	if _, err := r.WriteFile("weasel", "alone", 3); err != nil {
		t.Error(err)
	}
}

// resolveByKeys gives up what only otter has.
func resolveByKeys(t *testing.T, r *rig, s *screen) {
	t.Helper()
	for range 3 {
		s.keys(t, "R") // the next attempt may be half a minute away
		time.Sleep(300 * time.Millisecond)
	}
	t.Logf("\n%s", s.see(t, 40*time.Second, "otter  SPLIT BRAIN", "weasel  SPLIT BRAIN", "D shows both sides"))
	s.keys(t, "D")
	s.see(t, 20*time.Second, "RESOLVE demo  discard otter", "stays:    weasel: Primary", "discards: otter: Secondary", "0 blocking")
	s.keys(t, "Enter")
	s.see(t, 5*time.Second, "2 PLAN", "--discard-my-data", "cannot be undone")
	s.keys(t, "Enter")
	s.see(t, 5*time.Second, "its changes are LOST")
	s.start(t, "demo DISCARD otter")
	s.see(t, 60*time.Second, "5 REPORT", "DONE: the changes of otter are discarded")
	s.keys(t, "Escape")
	s.see(t, 30*time.Second, "SECONDARY  otter", "PRIMARY  weasel", "0 B out of sync")
	r.on(t, "weasel")
}

// rejoinByKeys connects nodes that stand alone.
func rejoinByKeys(t *testing.T, r *rig, s *screen) {
	t.Helper()
	r.run(t, 0, "disconnect --on otter")
	s.see(t, 15*time.Second, "STANDALONE", "J connects them")
	s.toConfirm(t, "J", "REJOIN demo  otter follows weasel", "Nothing blocks", "drbdadm connect r0")
	s.start(t, "demo")
	s.see(t, 60*time.Second, "5 REPORT", "DONE: otter follows weasel again")
	s.keys(t, "Escape")
	s.see(t, 30*time.Second, "ready: f moves r0 from weasel to otter")
	for _, n := range []string{"otter", "weasel"} {
		if snap, err := r.Snapshot(t.Context(), n); err != nil || snap.Resources[0].DiskState != proto.UpToDate || snap.Resources[0].Conn != proto.Connected {
			t.Errorf("%s: %+v %v", n, snap.Resources, err)
		}
	}
}
