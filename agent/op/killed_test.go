package op

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/santui/proto"
)

// TestKilledDuringStep ends the runner as kill -9 does, while a step runs, before its effect and after it: the journal says
// that the step runs. Its successor finds the operation orphaned and brings the pair home: by undo, or by the verb again.
func TestKilledDuringStep(t *testing.T) {
	var rows []cell
	for _, wd := range worlds {
		if wd.verb == proto.VerbDrill && wd.name != "drill" {
			continue // its two halves are failovers
		}
		for _, s := range planOf(t, wd) {
			if s.Skip != "" || s.Kind == proto.StepAttest || s.Kind == proto.StepGone ||
				strings.HasSuffix(wd.name, "+") && s.Unit == "" && s.Script == nil && s.Address == nil && s.Export == nil {
				continue // without effect, or its plain twin has it
			}
			for _, after := range []bool{false, true} {
				how := "undo"
				if wd.verb == proto.VerbRejoin || wd.verb == proto.VerbResolve || wd.verb != proto.VerbDrill && s.Index%2 == 0 {
					how = "again"
				}
				row := cell{wd.name, fmt.Sprintf("%d %s@%s", s.Index, s.Kind, s.Node), "kill -9 before effect", how, "", "ok"}
				if after {
					row.fault = "kill -9 after effect"
				}
				t.Run(strings.Join([]string{row.verb, row.step, row.fault, how}, " "), func(t *testing.T) {
					if row.end, row.state = killed(t, wd, s.Index, after, how); row.state != "ok" {
						t.Error(row.state)
					}
				})
				rows = append(rows, row)
			}
		}
	}
	printMatrix(t, rows)
}

// killed runs a verb until its runner dies in step number index.
func killed(t *testing.T, wd world, index int, after bool, how string) (end, verdict string) {
	g := newRig(t)
	wd.prepare(g)
	dir := filepath.Join(t.TempDir(), "then")
	kill := func(req proto.PeerStepRequest, now bool) bool {
		if req.Undo || req.DryRun || req.Step.Index != index || now != after {
			return false
		}
		if err := os.CopyFS(dir, os.DirFS(g.r.journal.dir)); err != nil {
			t.Error(err)
		}
		return true
	}
	g.otter.kill, g.weasel.kill = kill, kill
	o := g.begin(t, request(wd.verb)) // ends when the dead runner has noticed that nobody hears it
	g.otter.kill, g.weasel.kill = nil, nil
	g.rebornFrom(t, dir)
	return g.orphaned(t, wd, o.ID, how)
}
