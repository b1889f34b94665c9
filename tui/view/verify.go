package view

import (
	"fmt"
	"time"

	"example.com/santui/proto"
)

// verify: both copies are connected and at rest. The node that compares is the Secondary, so that the reading disturbs
// the service least; while a verify runs it is the one that began it.
func (p Pair) verify() Way {
	w := Way{}
	for _, n := range p.Nodes {
		if !n.Live() || n.Resource == nil {
			continue
		}
		if n.Resource.Conn == proto.VerifyS {
			return Way{From: p.other(n.Name).Name, To: n.Name}
		}
		if w.To == "" || n.Role() == proto.Secondary && n.Name != p.Primary {
			w.To, w.From = n.Name, p.other(n.Name).Name
		}
	}
	switch {
	case len(p.Nodes) < 2:
		w.Why = "the pair has only one node here"
	case p.silent() != "":
		w.Why = p.silent()
	case p.Running():
		w.Why = fmt.Sprintf("operation %s is under way", p.Op.ID)
	case p.Sync != nil:
		w.Why = fmt.Sprintf("a %s runs", p.Sync.Title)
	}
	for _, n := range p.Nodes {
		switch {
		case w.Why != "":
		case n.Resource == nil:
			w.Why = p.Resource + " is not known on " + n.Name
		case n.Resource.Conn != proto.Connected:
			w.Why = "replication is " + n.Resource.Conn.String()
		case n.Resource.DiskState != proto.UpToDate:
			w.Why = fmt.Sprintf("%s is %s", n.Name, n.Resource.DiskState)
		}
	}
	return w
}

// Verified is the outcome of the newest verify in words, nil if there was none.
func (p Pair) Verified(loc *time.Location) *Line {
	var v *proto.Verify
	for _, n := range p.Nodes {
		if n.Live() && n.Resource != nil && n.Resource.Verify != nil && (v == nil || n.Resource.Verify.Ended.After(v.Ended)) {
			v = n.Resource.Verify
		}
	}
	if v == nil {
		return nil
	}
	l := Line{Good, fmt.Sprintf("verify by %s, ended %s: %s compared, %s differ", v.By, v.Ended.In(loc).Format(time.DateTime), Of(v.Checked, v.Size), Bytes(v.Differ))}
	switch {
	case v.Differ > 0:
		l.Level = Alert
		l.Text += ". santui verify repair --from NODE --confirm " + p.Name + " makes the copies one"
	case v.Failed > 0:
		l.Level = Alert
		l.Text += ", " + Bytes(v.Failed) + " could not be read"
	case !v.Complete:
		l.Level = Warn
		l.Text += ", not complete"
	}
	if v.Why != "" {
		l.Text += ": " + v.Why
	}
	return &l
}
