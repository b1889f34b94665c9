package view

import (
	"fmt"
	"strings"
	"time"

	"example.com/santui/proto"
)

// Fact is one labelled value of a node. Rank orders facts by how soon they are dropped where room is scarce: the
// smallest stay longest.
type Fact struct {
	Label string
	Value string
	Level Level
	Old   bool // the node does not answer; the value is from the last contact
	Rank  int
}

// OldMark is what is written behind a value that may not hold any more.
func (f Fact) OldMark() string {
	if f.Old && f.Value != "-" {
		return " (old)"
	}
	return ""
}

// Title is the node's role in words: PRIMARY, SECONDARY, "STALE 42 s otter, was PRIMARY" and so on.
func (n Node) Title() string {
	role := strings.ToUpper(n.Role().String())
	switch n.Contact {
	case Waiting:
		return "NO CONTACT YET  " + n.Name
	case Stale:
		if n.Role() == proto.RoleUnknown {
			return fmt.Sprintf("STALE %s %s", Age(n.Age), n.Name)
		}
		return fmt.Sprintf("STALE %s %s, was %s", Age(n.Age), n.Name, role)
	default:
		if n.Mark != "" {
			return role + "  " + n.Name + "  " + n.Mark
		}
		return role + "  " + n.Name
	}
}

// Facts lists what is known of the node, in the order in which it is shown. loc is the time zone for clock times.
func (p Pair) Facts(n Node, loc *time.Location) []Fact {
	out := []Fact{n.agentFact(loc)}
	r := n.Resource
	if r == nil {
		if n.Snapshot != nil && p.Resource != "" {
			out = append(out, Fact{Label: "disk", Value: "no resource " + p.Resource + " here", Level: Warn})
		}
		return n.aged(out)
	}
	out = append(out,
		Fact{Label: "resource", Value: strings.TrimSpace(fmt.Sprintf("%s  %s  %s", r.Name, r.Device, n.behind())), Rank: 7},
		p.diskFact(n),
		Fact{Label: "vg", Value: n.vgs(), Level: n.vgLevel(), Rank: 2},
		Fact{Label: "lv", Value: n.lvs(), Rank: 8},
		Fact{Label: "mount", Value: n.mounts(), Rank: 1},
		Fact{Label: "used", Value: n.used(), Rank: 5},
		Fact{Label: "users", Value: n.users(), Rank: 6},
		n.peerFact(),
		Fact{Label: "io", Value: fmt.Sprintf("sent %s  received %s  in flight %d", Bytes(r.Counters.Sent), Bytes(r.Counters.Received), r.Counters.LocalInFly+r.Counters.Pending), Rank: 10},
	)
	for i, l := range []struct {
		label string
		light proto.Light
	}{{"in sync", r.Lights.InSync}, {"verified", r.Lights.Verified}, {"redundant", r.Lights.Redundant}} {
		out = append(out, lightFact(l.label, l.light, 9+i))
	}
	out = append(out, lightFact("power off", r.Lights.SafePowerOff, 4)) // the one that is asked in a hurry
	if r.Problem != "" {
		out = append(out, Fact{Label: "problem", Value: r.Problem, Level: Alert, Rank: 0})
	}
	return n.aged(out)
}

// aged marks all but the first fact as old if the node does not answer.
func (n Node) aged(facts []Fact) []Fact {
	if n.Contact != Stale {
		return facts
	}
	for i := range facts[1:] {
		facts[i+1].Old, facts[i+1].Level = true, Plain
	}
	return facts
}

func lightFact(label string, l proto.Light, rank int) Fact {
	f := Fact{Label: label, Value: "yes", Level: Good, Rank: rank}
	if !l.On {
		f.Value, f.Level = "NO", Warn
	}
	if l.Why != "" {
		f.Value += "  " + l.Why
	}
	return f
}

func (n Node) agentFact(loc *time.Location) Fact {
	switch n.Contact {
	case Waiting:
		return Fact{Label: "agent", Value: n.StaleError(), Level: Warn}
	case Stale:
		return Fact{Label: "agent", Value: "no contact since " + n.Since.In(loc).Format(time.TimeOnly), Level: Alert}
	default:
	}
	v := "ok"
	if n.RTT > 0 {
		v += "  " + Millis(n.RTT)
	}
	if a := n.Snapshot.Agent; a.Version != "" {
		v += "  " + a.Version
	}
	return Fact{Label: "agent", Value: v}
}

// behind names the kernel's device where it differs from the one that drbd.conf names.
func (n Node) behind() string {
	r := n.Resource
	switch {
	case r.Node != "" && r.Node != r.Device:
		return "(" + strings.TrimSpace(r.FrontEnd+" "+r.Node) + ")"
	case r.FrontEnd != "":
		return "(" + r.FrontEnd + ")"
	}
	return ""
}

func (p Pair) diskFact(n Node) Fact {
	r := n.Resource
	v := r.DiskState.String()
	if s := p.Sync; s != nil && s.Target == n.Name && s.Kind != "verify" {
		v += " (" + s.Title + ")"
	}
	f := Fact{Label: "disk", Value: v + "  " + r.Disk, Level: Warn}
	switch {
	case r.DiskState == proto.UpToDate:
		f.Level = Plain
	case r.DiskState <= proto.Failed:
		f.Level = Alert
	}
	return f
}

func (n Node) vgs() string {
	if e := n.Resource.Stack.Err; e != "" {
		return "cannot be read: " + e
	}
	var out []string
	for _, g := range n.Resource.Stack.VGs {
		state := "inactive"
		for _, lv := range g.LVs {
			if lv.Active {
				state = "active"
			}
		}
		if g.Partial {
			state += " PARTIAL"
		}
		out = append(out, g.Name+"  "+state)
	}
	return orDash(out)
}

func (n Node) vgLevel() Level {
	if n.Resource.Stack.Err != "" {
		return Warn
	}
	for _, g := range n.Resource.Stack.VGs {
		if g.Partial {
			return Alert
		}
	}
	return Plain
}

func (n Node) lvs() string {
	var out []string
	for _, g := range n.Resource.Stack.VGs {
		for _, lv := range g.LVs {
			s := g.Name + "/" + lv.Name + "  " + Bytes(lv.Size)
			if lv.Open {
				s += "  open"
			}
			out = append(out, s)
		}
	}
	return orDash(out)
}

func (n Node) mounts() string {
	var out []string
	for _, m := range n.Resource.Stack.Mounts {
		mode, _, _ := strings.Cut(m.Options, ",")
		out = append(out, strings.TrimSpace(m.Target+" "+m.FSType+" "+mode))
	}
	return orDash(out)
}

func (n Node) used() string {
	for _, m := range n.Resource.Stack.Mounts {
		if m.Size > 0 {
			return fmt.Sprintf("%s (%.0f%%)", Of(m.Used, m.Size), 100*float64(m.Used)/float64(m.Size))
		}
	}
	return "-"
}

func (n Node) users() string {
	var out []string
	for _, u := range n.Resource.Stack.Users {
		s := u.Kind + " " + u.Name
		if u.PID != 0 {
			s = fmt.Sprintf("%s (pid %d)", u.Name, u.PID)
		}
		out = append(out, s)
	}
	return orDash(out)
}

func (n Node) peerFact() Fact {
	r := n.Resource
	f := Fact{Label: "peer", Value: r.Conn.String(), Rank: 3}
	switch {
	case r.Conn == proto.StandAlone:
		f.Level = Alert
	case r.Conn < proto.Connected, r.Conn >= proto.Ahead:
		f.Level = Warn
	}
	if r.OutOfSync > 0 && !r.Conn.Syncing() {
		f.Value += ", " + Bytes(r.OutOfSync) + " out of sync"
	}
	if !n.Snapshot.PeerLink.Up {
		f.Value += ", agents apart"
		f.Level = max(f.Level, Warn)
	}
	return f
}

func orDash(parts []string) string {
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}
