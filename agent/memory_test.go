package agent

import (
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"example.com/santui/agent/engine"
	"example.com/santui/agent/op"
	"example.com/santui/proto"
)

// stillEngine is an engine of which only the status is asked.
type stillEngine struct {
	engine.Engine
	st proto.Resource
}

func (e *stillEngine) Status() proto.Resource { return e.st }

// TestLastWriteSurvives: a new agent knows when its predecessor, as Primary, wrote, although not every write is stored.
func TestLastWriteSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ops")
	synctest.Test(t, func(t *testing.T) {
		born := func(eng *stillEngine) (*Agent, *resource) {
			j, err := op.OpenJournal(dir, "otter")
			if err != nil {
				t.Fatal(err)
			}
			return &Agent{journal: j, hub: newHub("otter", slog.Default()), log: slog.Default()}, &resource{name: "r0", eng: eng}
		}
		stored := func() time.Time {
			a, r := born(&stillEngine{})
			return a.dress(r, r.eng.Status()).LastWrite
		}
		eng := &stillEngine{st: proto.Resource{Role: proto.Primary, Conn: proto.Connected}}
		a, r := born(eng)
		write := func() time.Time {
			eng.st.Counters.Written += 4096
			a.track(r)
			return time.Now().Truncate(time.Second)
		}
		write()
		first := write()
		time.Sleep(10 * time.Second)
		if second := write(); !stored().Equal(first) || !a.dress(r, eng.st).LastWrite.Equal(second) {
			t.Errorf("stored %v, shown %v; want %v and %v", stored(), a.dress(r, eng.st).LastWrite, first, second)
		}
		time.Sleep(lastWritePeriod)
		if third := write(); !stored().Equal(third) {
			t.Errorf("after a minute: %v, want %v", stored(), third)
		}
		time.Sleep(time.Second)
		last := write()
		eng.st.Role = proto.Secondary
		if a.track(r); !stored().Equal(last) {
			t.Errorf("after the demotion: %v, want %v", stored(), last)
		}
	})
}
