package op

import (
	"fmt"
	"slices"
	"time"

	"example.com/santui/datapath/state"
	"example.com/santui/proto"
)

// SilentFor is how long both links must have been down before a node counts as gone.
const SilentFor = 30 * time.Second

// sentinelRoom is the free space that a drill wants in each file system, bytes.
const sentinelRoom = 16 << 20

// ChecksOf evaluates every condition of a verb. The result has one entry per code that applies, in table order.
func ChecksOf(verb proto.Verb, v View) []proto.Check {
	var out []proto.Check
	c := &checker{beside: v.beside()}
	switch verb {
	case proto.VerbDrill:
		out = drillChecks(v)
	case proto.VerbTakeover:
		c.takeover(v)
		out = c.out
	case proto.VerbRejoin:
		c.rejoin(v)
		out = c.out
	case proto.VerbResolve:
		c.resolve(v)
		out = c.out
	default:
		out = append(Checks(v), forked(v)...)
	}
	slices.SortStableFunc(out, func(a, b proto.Check) int { return codeIndex(a.Code) - codeIndex(b.Code) })
	return out
}

// drillChecks are those of a failover, on a pair that is whole, plus what the drill's files need.
func drillChecks(v View) []proto.Check {
	c := &checker{out: append(Checks(v), forked(v)...)}
	for i := range c.out {
		if c.out[i].Code == proto.CheckUnfinished { // a drill does not carry on what something else left
			c.out[i].Result = proto.CheckFail
		}
	}
	if v.FromErr != nil {
		return c.out
	}
	var bad []string
	files := sentinelMounts(v.From.Resource.Stack.Mounts)
	if len(files) == 0 {
		bad = append(bad, "nothing is mounted read-write on "+v.From.Node)
	}
	for _, m := range files {
		if free := m.Size - m.Used; m.Size > 0 && free < sentinelRoom {
			bad = append(bad, fmt.Sprintf("%s has %d KiB free, the drill wants %d", m.Target, free>>10, sentinelRoom>>10))
		}
	}
	c.judge(proto.CheckSentinel, v.From.Node, bad, fmt.Sprintf("%d on %s", len(files), v.From.Node))
	return c.out
}

// forked is SPLIT of a planned move: why a link that is down will not come up by itself.
func forked(v View) []proto.Check {
	if v.FromErr != nil || v.To.Resource.Conn >= proto.Connected {
		return nil
	}
	c := &checker{}
	if l := LineageOf(v.To, v.From); l.Split {
		c.add(proto.CheckSplit, "", proto.CheckFail, l.Text)
	}
	return c.out
}

func (c *checker) takeover(v View) {
	c.gone(v)
	c.journals(v.To)
	c.deadLock(v)
	to := v.To.Resource
	switch {
	case to.Role == proto.Primary && !v.continues():
		c.add(proto.CheckRoles, v.To.Node, proto.CheckFail, v.To.Node+" is Primary already: nothing to take over")
	case to.Role != proto.Primary && to.Role != proto.Secondary:
		c.add(proto.CheckRoles, v.To.Node, proto.CheckFail, fmt.Sprintf("%s is %s", v.To.Node, to.Role))
	default:
		c.add(proto.CheckRoles, v.To.Node, proto.CheckOK, fmt.Sprintf("%s is %s", v.To.Node, to.Role))
	}
	c.disk(v)
	c.add(proto.CheckDataRisk, v.To.Node, proto.CheckWarn, atRisk(v)...)
	k := v.Known
	if k.PeerAt.IsZero() {
		c.add(proto.CheckLastStack, v.To.Node, proto.CheckWarn, v.To.Node+" has never seen what is mounted on "+v.From.Node)
	} else {
		c.add(proto.CheckLastStack, v.To.Node, proto.CheckOK, describe(k.Peer)+"; last changed "+stamp(k.PeerAt))
	}
	v.From.Resource.Stack = k.Peer
	c.target(v)
	c.backing(v.To)
	c.duplicates(v.To)
	c.service(v)
}

// gone judges whether nothing of the other node answers, for long enough.
func (c *checker) gone(v View) {
	var bad []string
	from, to := v.From.Node, v.To
	short := func(what string, since time.Time) {
		if d := to.At.Sub(since); since.IsZero() || d < SilentFor {
			bad = append(bad, fmt.Sprintf("%s has been down for %.0f s only; %.0f s are needed", what, max(0, d.Seconds()), SilentFor.Seconds()))
		}
	}
	switch {
	case v.FromErr == nil:
		bad = append(bad, fmt.Sprintf("the agent of %s answers: it is %s", from, v.From.Resource.Role))
	case to.PeerLink.Up:
		bad = append(bad, fmt.Sprintf("the control link to %s is up, although it gave no answer: %v", from, v.FromErr))
	default:
		short("the control link to "+from, to.PeerLink.Since)
	}
	if to.Resource.Conn >= proto.Connected {
		bad = append(bad, fmt.Sprintf("replication with %s is %s", from, to.Resource.Conn))
	} else {
		short("replication with "+from, to.Resource.ConnSince)
	}
	c.judge(proto.CheckPeerGone, v.From.Node, bad, fmt.Sprintf("no control link to %s since %s, %s since %s",
		from, stamp(to.PeerLink.Since), to.Resource.Conn, stamp(to.Resource.ConnSince)))
}

// deadLock is LOCKED of a takeover: a lock whose operation ran on the node that is gone has died with it.
func (c *checker) deadLock(v View) {
	switch l := v.To.Lock; {
	case l == nil:
		c.add(proto.CheckLocked, "", proto.CheckOK)
	case l.Node == v.From.Node:
		c.add(proto.CheckLocked, v.To.Node, proto.CheckWarn, fmt.Sprintf("operation %s of %s ran on %s and has died with it", l.OpID, l.Owner, l.Node))
	default:
		c.lock(v)
		return
	}
	if u := v.Unfinished; u != nil {
		c.add(proto.CheckUnfinished, "", proto.CheckWarn, fmt.Sprintf("%s to %s, %s: %s", u.ID, u.Plan.To, u.State, u.Outcome))
	}
}

func (c *checker) disk(v View) {
	to := v.To.Resource
	if to.DiskState != proto.UpToDate {
		c.add(proto.CheckDisk, v.To.Node, proto.CheckFail, fmt.Sprintf("%s on %s is %s", to.Disk, v.To.Node, to.DiskState))
		return
	}
	c.add(proto.CheckDisk, v.To.Node, proto.CheckOK, fmt.Sprintf("%s on %s", to.Disk, v.To.Node))
}

// atRisk words what a takeover may lose.
func atRisk(v View) []string {
	to, from, r := v.To.Node, v.From.Node, v.To.Resource
	last := r.LastInSync
	if v.Known.InSync.After(last) {
		last = v.Known.InSync
	}
	first := fmt.Sprintf("%s does not know when it was last identical to %s", to, from)
	if !last.IsZero() {
		first = fmt.Sprintf("%s was last identical to %s at %s, %s ago", to, from, stamp(last), v.To.At.Sub(last).Round(time.Second))
	}
	lost := amount(r.OutOfSync) + " are known to differ"
	if !r.ConnSince.IsZero() && r.Conn < proto.Connected {
		lost += fmt.Sprintf("; what %s wrote after %s, when the link broke, is missing here", from, stamp(r.ConnSince))
	}
	return []string{first, lost}
}

// amount writes a number of bytes, with the same in a unit that people can picture beside it.
func amount(n int64) string {
	text := fmt.Sprintf("%d bytes", n)
	for _, u := range []struct {
		name string
		bits int
	}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if n >= 1<<u.bits {
			return fmt.Sprintf("%s (%.1f %s)", text, float64(n)/float64(int64(1)<<u.bits), u.name)
		}
	}
	return text
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.Local().Format(time.DateTime)
}

func (c *checker) rejoin(v View) {
	c.agents(v)
	c.lock(v)
	if v.FromErr != nil {
		return
	}
	l := LineageOf(v.To, v.From)
	var bad []string
	if v.From.Resource.Role == proto.Primary && !l.Split {
		bad = append(bad, fmt.Sprintf("%s is Primary (%s): only a Secondary follows the other node. Take that down, or name %s as the node to stay",
			v.From.Node, describe(v.From.Resource.Stack), v.From.Node))
	}
	c.judge(proto.CheckRoles, "", bad, fmt.Sprintf("%s is %s, %s is %s", v.From.Node, v.From.Resource.Role, v.To.Node, v.To.Resource.Role))
	c.disk(v)
	switch {
	case l.Split:
		bad = []string{l.Text}
	case l.Source == v.From.Node && v.To.Resource.Conn < proto.Connected:
		bad = []string{fmt.Sprintf("%s would be overwritten with %s's data: %s. Name %s as the node to stay", v.To.Node, v.From.Node, l.Text, v.From.Node)}
	default:
		bad = nil
	}
	c.judge(proto.CheckSplit, "", bad, l.Text)
	c.backing(v.From, v.To)
	c.leftovers(v)
}

// leftovers names what the service left on the node that shall follow, which is Secondary: it stands on a device that is
// dead, or on none of replication's, and is in the way of this node's next turn as Primary.
func (c *checker) leftovers(v View) {
	if v.From.Resource.Role == proto.Primary {
		return // ROLES names it
	}
	var left []string
	for _, m := range slices.Backward(v.From.Targets) {
		if m.Mounted != "" {
			left = append(left, fmt.Sprintf("%s on %s still shows %s: umount it there", m.Path, v.From.Node, m.Mounted))
		}
	}
	for _, l := range v.From.Left {
		left = append(left, v.From.Node+" has "+l)
	}
	c.grade(proto.CheckLeftovers, v.From.Node, nil, left, fmt.Sprintf("%d mount points and %d volume groups looked for", len(v.From.Targets), len(v.Known.Peer.VGs)))
}

func (c *checker) resolve(v View) {
	c.agents(v)
	c.lock(v)
	if v.FromErr != nil {
		return
	}
	c.disk(v)
	l := LineageOf(v.To, v.From)
	var bad []string
	switch {
	case resolved(v):
		l.Text = "the resolve that was left half way has taken effect"
	case v.To.Resource.Conn >= proto.Connected:
		bad = []string{fmt.Sprintf("the nodes replicate: %s", v.To.Resource.Conn)}
	case !l.Split:
		bad = []string{l.Text}
	}
	c.judge(proto.CheckForked, "", bad, l.Text)
	c.add(proto.CheckDiscard, v.From.Node, proto.CheckWarn, discards(v)...)
	c.backing(v.From, v.To)
	c.stack(v)
	c.service(v)
	v.From.Resource.Stack = proto.Stack{}
	c.target(v)
}

// resolved says whether an earlier resolve in the same direction only missed its own end.
func resolved(v View) bool {
	return v.To.Resource.Conn >= proto.Connected && v.continues() && v.Unfinished.Plan.Verb == proto.VerbResolve && v.Unfinished.Plan.To == v.To.Node
}

// discards puts the two sides next to each other and says what discarding From loses.
func discards(v View) []string {
	side := func(o proto.Observation) string {
		r := o.Resource
		text := fmt.Sprintf("%s: %s since %s", o.Node, r.Role, stamp(r.RoleSince))
		if !r.LastWrite.IsZero() {
			text += ", last write " + stamp(r.LastWrite)
		} else {
			text += ", time of the last write not known"
		}
		return fmt.Sprintf("%s, %s changed since the fork", text, amount(r.OutOfSync))
	}
	return []string{
		"stays:    " + side(v.To), "discards: " + side(v.From),
		fmt.Sprintf("%s that only %s has are lost; %s", amount(v.From.Resource.OutOfSync), v.From.Node, kept(v)),
	}
}

// kept says whether a copy is made first.
func kept(v View) string {
	s, why := snapshotOf(v)
	if s == nil {
		return "they are not copied anywhere first: " + why
	}
	return fmt.Sprintf("snapshot %s/%s keeps them until it is removed", s.VG, s.Name)
}

// Lineage is how two copies are related, by their generation identifiers alone.
type Lineage struct {
	Split  bool   // neither is the other's ancestor: changes of one side must be given up
	Source string // the node that the other would resync from, "" if none or unknown
	Text   string
}

// LineageOf compares the histories of two observed copies as the engine does when the nodes connect. What only the
// engine knows (who crashed) can change the direction, but not whether there is a split brain.
func LineageOf(a, b proto.Observation) Lineage {
	side := func(o proto.Observation) state.Side {
		u := o.Resource.UUIDs
		return state.Side{UUIDs: state.UUIDs{Current: u.Current, Bitmap: u.Bitmap, History0: u.History[0], History1: u.History[1]}, Role: o.Resource.Role}
	}
	verdict := state.Compare(side(a), side(b), state.Caps{})
	gen := fmt.Sprintf(" (%s %016X, %s %016X)", a.Node, a.Resource.UUIDs.Current, b.Node, b.Resource.UUIDs.Current)
	switch verdict.Result {
	case state.SplitBrain, state.SplitBrain2:
		return Lineage{Split: true, Text: "split brain: " + verdict.Text + gen}
	case state.Unrelated:
		return Lineage{Split: true, Text: verdict.Text + gen}
	case state.SourceBitmap, state.SourceFull:
		return Lineage{Source: a.Node, Text: fmt.Sprintf("%s follows %s: %s", b.Node, a.Node, verdict.Text) + gen}
	case state.TargetBitmap, state.TargetFull:
		return Lineage{Source: b.Node, Text: fmt.Sprintf("%s follows %s: %s", a.Node, b.Node, verdict.Text) + gen}
	default:
		return Lineage{Text: verdict.Text + gen}
	}
}
