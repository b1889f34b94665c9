package screen

import (
	"fmt"
	"strings"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/view"
	"example.com/santui/tui/widget"
)

// NodeDetail draws all that is known of one node.
func (c Ctx) NodeDetail(name string, top int) (string, int) {
	n, _ := c.Pair.Node(name)
	lines := c.factLines(c.Pair.Facts(n, c.Loc), c.W-4)
	if n.Contact != view.Live && n.Err != nil {
		w, _ := c.Inner(1, true)
		lines = append(lines, "")
		for _, l := range widget.Wrap("last error: "+n.Err.Error(), w) {
			lines = append(lines, c.Theme.Warn.Render(l))
		}
	}
	if n.Resource != nil {
		lines = append(lines, c.more(n)...)
	}
	return c.Draw(Page{Screen: keymap.NodeDetail, Title: c.name() + "  NODE " + n.Name, Top: top, Foot: []string{c.NextLines(1)[0]}, Wide: true,
		Panel: widget.Panel{Title: c.nodeTitle(n), Lines: lines, Dim: !n.Live()}})
}

func (c Ctx) more(n view.Node) []string {
	r, s := n.Resource, n.Snapshot
	head := func(t string) string { return c.Theme.Accent.Render(t) }
	out := []string{"", head("replication"),
		fmt.Sprintf("  engine %s  front end %s  protocol %s  minor %d  size %s  open %d", r.Engine, r.FrontEnd, r.Protocol, r.Minor, view.Bytes(r.Size), r.Open),
		fmt.Sprintf("  here %s/%s  peer, as seen from here, %s/%s  link %s", r.Role, r.DiskState, r.PeerRole, r.PeerDisk, r.Conn),
		fmt.Sprintf("  out of sync %s  last in sync %s", view.Bytes(r.OutOfSync), c.stamp(r.LastInSync)),
		fmt.Sprintf("  generation current %016X  bitmap %016X  history %016X %016X", r.UUIDs.Current, r.UUIDs.Bitmap, r.UUIDs.History[0], r.UUIDs.History[1]),
		counters(r.Counters), "", head("stack")}
	if r.Stack.Err != "" {
		out = append(out, c.Theme.Warn.Render("  could not be read completely: "+r.Stack.Err))
	}
	if r.Stack.Every > 0 {
		out = append(out, c.Theme.Dim.Render(fmt.Sprintf("  processes are looked for about every %.0f s here; a check looks at once", r.Stack.Every)))
	}
	for _, g := range r.Stack.VGs {
		out = append(out, fmt.Sprintf("  vg %s  %d LV  seqno %d%s", g.Name, len(g.LVs), g.Seqno, flags(g)))
		for _, lv := range g.LVs {
			state := "inactive"
			if lv.Active {
				state = "active"
			}
			out = append(out, fmt.Sprintf("    %s  %s  %s  %s", lv.Path, view.Bytes(lv.Size), state, lv.FS))
		}
	}
	for _, m := range r.Stack.Mounts {
		out = append(out, fmt.Sprintf("  %s on %s  %s  %s  %s", m.Source, m.Target, m.FSType, m.Options, view.Of(m.Used, m.Size)))
	}
	for _, u := range r.Stack.Users {
		out = append(out, fmt.Sprintf("  used by %s %s (pid %d, uid %d)  %s", u.Kind, u.Name, u.PID, u.UID, u.Path))
	}
	if len(r.Stack.VGs)+len(r.Stack.Mounts)+len(r.Stack.Users) == 0 && r.Stack.Err == "" {
		out = append(out, "  nothing is active on the device here")
	}
	link := "down"
	if s.PeerLink.Up {
		link = "up"
	}
	out = append(out, "", head("agent"),
		fmt.Sprintf("  version %s  pid %d  started %s  kernel %s", s.Agent.Version, s.Agent.PID, c.stamp(s.Agent.StartedAt), s.Agent.Kernel),
		strings.TrimRight(fmt.Sprintf("  link to the agent on %s: %s since %s  %s", s.Peer, link, c.stamp(s.PeerLink.Since), s.PeerLink.Err), " "))
	return out
}

func flags(g proto.VG) string {
	var s string
	for _, f := range []struct {
		on   bool
		text string
	}{{g.Partial, "PARTIAL"}, {g.Foreign, "has foreign PVs"}, {g.Exported, "exported"}, {g.AutoActivation, "activates by itself"}} {
		if f.on {
			s += "  " + f.text
		}
	}
	return s
}

func counters(k proto.Counters) string {
	line := fmt.Sprintf("  sent %s  received %s  written %s  read %s  in flight %d  pending %d  unacked %d",
		view.Bytes(k.Sent), view.Bytes(k.Received), view.Bytes(k.Written), view.Bytes(k.Read), k.LocalInFly, k.Pending, k.Unacked)
	if k.ProtocolErrors > 0 {
		line += fmt.Sprintf("  protocol errors %d", k.ProtocolErrors)
	}
	return line
}

func (c Ctx) stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.In(c.Loc).Format(time.DateTime)
}

// SyncScreen draws the synchronisation with what can be done about it.
func (c Ctx) SyncScreen(top int) (string, int) {
	w, _ := c.Inner(1, true)
	var lines []string
	title := "no synchronisation runs"
	if s := c.Pair.Sync; s != nil {
		title = c.syncTitle()
		lines = append(lines, "")
		lines = append(lines, c.syncLines(w)...)
		lines = append(lines, "", fmt.Sprintf("left      %s of %s", view.Bytes(s.Left), view.Bytes(s.Total)),
			"elapsed   "+c.clock(s.Started)+" until now, mean "+view.Rate(s.Mean))
		if s.Why != "" {
			lines = append(lines, "reason    "+s.Why)
		}
		if s.Want > 0 {
			lines = append(lines, "wanted    "+view.Rate(s.Want)+" by the controller")
		}
	} else {
		lines = append(lines, c.calm()...)
		for _, n := range c.Pair.Nodes {
			if n.Resource != nil {
				lines = append(lines, fmt.Sprintf("%s  %s  %s  %s", n.Name, n.Resource.Role, n.Resource.DiskState, n.Resource.Conn))
			}
		}
		if v := c.Pair.Verified(c.Loc); v != nil {
			for _, l := range widget.Wrap(v.Text, w) {
				lines = append(lines, c.Ink(v.Level).Render(l))
			}
		}
	}
	lines = append(lines, "", c.Theme.Accent.Render("what can be done"))
	var own []keymap.Binding
	for _, b := range keymap.For(keymap.SyncScreen) {
		if b.Changes || b.Action == keymap.Verify {
			own = append(own, b)
		}
	}
	lines = append(lines, c.helpLines(own)...)
	return c.Draw(Page{Screen: keymap.SyncScreen, Title: c.name() + "  SYNC", Top: top, Foot: []string{c.NextLines(1)[0]}, Wide: true,
		Panel: widget.Panel{Title: title, Lines: lines}})
}
