package op

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"example.com/santui/proto"
)

// View is what both agents say about one resource at one moment, seen from the node that shall become Primary.
// FromErr is set when the other agent could not be asked; From is then empty but for its name.
type View struct {
	From, To   proto.Observation
	FromErr    error
	Heard      time.Time // when From arrived, by the clock of To
	Unfinished *proto.Op // an earlier operation on this resource that did not come to an end
	Known      Known     // what this node remembers of the resource
	NoSnapshot bool      // leave out the copy of what a resolve discards
	// Limits are time limits of steps, seconds, other than the usual ones.
	Limits map[proto.StepKind]float64
	// Moved is the newest operation that brought the service up on a node, nil if this node knows of none.
	Moved *proto.Op
}

// continues says whether the move takes up an operation that was left half way: it goes on to the same node, or home.
func (v View) continues() bool {
	u := v.Unfinished
	return u != nil && u.Plan.Resource == v.To.Resource.Name && (u.Plan.To == v.To.Node || u.Plan.From == v.To.Node)
}

// maxSkew is how far the two clocks may be apart before it is worth a warning.
const maxSkew = 2 * time.Second

// Checks evaluates every condition of a planned move. The result has one entry per code that applies, in table order.
func Checks(v View) []proto.Check {
	c := &checker{beside: v.beside()}
	c.agents(v)
	c.lock(v)
	c.roles(v)
	c.replication(v)
	c.stack(v)
	if v.cold() {
		c.cold(v)
		v.From.Resource.Stack = v.remembered().stack
	}
	c.target(v)
	c.facts(v)
	c.service(v)
	slices.SortStableFunc(c.out, func(a, b proto.Check) int { return codeIndex(a.Code) - codeIndex(b.Code) })
	return c.out
}

func codeIndex(name string) int {
	return slices.IndexFunc(proto.AllCodes(), func(c proto.Code) bool { return c.Name == name })
}

type checker struct {
	beside proto.Service // what agent.toml adds: it is moved, and not in the way
	out    []proto.Check
}

func (c *checker) add(code, node string, result proto.CheckResult, evidence ...string) {
	def, _ := proto.CodeOf(code)
	ch := proto.Check{Code: code, Node: node, Result: result, Hard: def.Hard, Title: def.Title, Evidence: evidence}
	if result != proto.CheckOK {
		ch.Remedy = def.Remedy
	}
	c.out = append(c.out, ch)
}

// ok adds a pass, or a fail with the evidence collected.
func (c *checker) judge(code, node string, bad []string, good string) {
	if len(bad) > 0 {
		c.add(code, node, proto.CheckFail, bad...)
		return
	}
	c.add(code, node, proto.CheckOK, good)
}

// grade is judge with a third verdict: warn holds what is no reason to refuse.
func (c *checker) grade(code, node string, bad, warn []string, good string) {
	if len(bad) == 0 && len(warn) > 0 {
		c.add(code, node, proto.CheckWarn, warn...)
		return
	}
	c.judge(code, node, append(bad, warn...), good)
}

func (c *checker) agents(v View) {
	if v.FromErr != nil {
		c.add(proto.CheckAgents, v.From.Node, proto.CheckFail, fmt.Sprintf("%s does not answer %s: %v", v.From.Node, v.To.Node, v.FromErr))
		return
	}
	c.add(proto.CheckAgents, "", proto.CheckOK, fmt.Sprintf("%s and %s", v.From.Node, v.To.Node))
	c.journals(v.From, v.To)
	if a, b := v.From.Agent.Version, v.To.Agent.Version; a != b {
		c.add(proto.CheckVersions, "", proto.CheckWarn, fmt.Sprintf("%s runs %s, %s runs %s", v.From.Node, a, v.To.Node, b))
	} else {
		c.add(proto.CheckVersions, "", proto.CheckOK, a)
	}
	if older(v.To.Agent.Kernel, v.From.Agent.Kernel) {
		c.add(proto.CheckKernels, v.To.Node, proto.CheckWarn, fmt.Sprintf("%s runs %s, %s runs %s", v.To.Node, v.To.Agent.Kernel, v.From.Node, v.From.Agent.Kernel))
	} else {
		c.add(proto.CheckKernels, "", proto.CheckOK, v.To.Agent.Kernel)
	}
	heard := v.Heard // looking at a node may take seconds: the two looks are not at the same time
	if heard.IsZero() {
		heard = v.To.At
	}
	if skew := v.From.At.Sub(heard); math.Abs(skew.Seconds()) > maxSkew.Seconds() {
		c.add(proto.CheckClock, "", proto.CheckWarn, fmt.Sprintf("%s and %s differ by %.1f s", v.From.Node, v.To.Node, math.Abs(skew.Seconds())))
	} else {
		c.add(proto.CheckClock, "", proto.CheckOK)
	}
}

// older compares the first two numbers of kernel releases; what is none is not older.
func older(a, b string) bool {
	var x, y [2]int
	if n, _ := fmt.Sscanf(a, "%d.%d", &x[0], &x[1]); n != 2 {
		return false
	}
	if n, _ := fmt.Sscanf(b, "%d.%d", &y[0], &y[1]); n != 2 {
		return false
	}
	return slices.Compare(x[:], y[:]) < 0
}

// journals passes on which nodes could not note an operation down.
func (c *checker) journals(nodes ...proto.Observation) {
	var bad []string
	for _, o := range nodes {
		if o.Journal != "" {
			bad = append(bad, o.Node+": "+o.Journal)
		}
	}
	c.judge(proto.CheckJournal, "", bad, "")
}

func (c *checker) lock(v View) {
	for _, o := range []proto.Observation{v.From, v.To} {
		if o.Lock != nil {
			c.add(proto.CheckLocked, o.Node, proto.CheckFail,
				fmt.Sprintf("operation %s of %s holds the lock since %s", o.Lock.OpID, o.Lock.Owner, o.Lock.Since.Format(time.TimeOnly)))
			return
		}
	}
	c.add(proto.CheckLocked, "", proto.CheckOK)
	if u := v.Unfinished; u != nil {
		c.add(proto.CheckUnfinished, "", proto.CheckWarn, fmt.Sprintf("%s to %s, %s: %s", u.ID, u.Plan.To, u.State, u.Outcome))
	}
}

func (c *checker) roles(v View) {
	if v.FromErr != nil {
		return // AGENTS blocks already; nothing can be said about two nodes by asking one
	}
	from, to := v.From.Resource, v.To.Resource
	var bad []string
	switch {
	case to.Role == proto.Primary && v.continues() && from.Role == proto.Secondary:
		// The rest of an interrupted move to this node: activate and mount.
	case to.Role == proto.Primary:
		bad = append(bad, fmt.Sprintf("%s is Primary already: nothing to move", v.To.Node))
	case to.Role != proto.Secondary:
		bad = append(bad, fmt.Sprintf("%s is %s", v.To.Node, to.Role))
	case from.Role != proto.Primary && from.Role != proto.Secondary:
		bad = append(bad, fmt.Sprintf("%s is %s", v.From.Node, from.Role))
	}
	good := fmt.Sprintf("%s is %s, %s is %s", v.From.Node, from.Role, v.To.Node, to.Role)
	c.judge(proto.CheckRoles, "", bad, good)

	bad = nil
	if from.Role != to.PeerRole {
		bad = append(bad, fmt.Sprintf("%s says it is %s, %s sees it as %s", v.From.Node, from.Role, v.To.Node, to.PeerRole))
	}
	if to.Role != from.PeerRole {
		bad = append(bad, fmt.Sprintf("%s says it is %s, %s sees it as %s", v.To.Node, to.Role, v.From.Node, from.PeerRole))
	}
	if from.Size != to.Size {
		bad = append(bad, fmt.Sprintf("%s has %d bytes, %s has %d", v.From.Node, from.Size, v.To.Node, to.Size))
	}
	if from.Protocol != to.Protocol {
		bad = append(bad, fmt.Sprintf("%s uses protocol %s, %s protocol %s", v.From.Node, from.Protocol, v.To.Node, to.Protocol))
	}
	c.judge(proto.CheckDisagree, "", bad, "roles, size and protocol match")
}

func (c *checker) replication(v View) {
	to := v.To.Resource
	if to.Conn < proto.Connected {
		c.add(proto.CheckLink, v.To.Node, proto.CheckFail, fmt.Sprintf("%s: %s", v.To.Node, to.Conn))
	} else {
		c.add(proto.CheckLink, "", proto.CheckOK, to.Conn.String())
	}
	var bad []string
	for _, o := range []proto.Observation{v.From, v.To} {
		r := o.Resource
		if r.Conn > proto.Connected {
			text := fmt.Sprintf("%s: %s", o.Node, r.Conn)
			if r.Sync != nil && r.Sync.Total > 0 {
				text += fmt.Sprintf(", %.1f%% done", 100*float64(r.Sync.Total-r.Sync.Left)/float64(r.Sync.Total))
				if r.Sync.Finish > 0 {
					text += ", " + (time.Duration(r.Sync.Finish) * time.Second).String() + " left"
				}
			}
			if r.Conn >= proto.Ahead {
				text += fmt.Sprintf(", %d KiB out of sync; the link is congested", r.OutOfSync/1024)
			}
			bad = append(bad, text)
		} else if r.OutOfSync > 0 {
			text := fmt.Sprintf("%s: %d KiB out of sync", o.Node, r.OutOfSync/1024)
			if r.Conn == proto.Connected && r.DiskState == proto.UpToDate && r.PeerDisk == proto.UpToDate {
				text += ", and no resync runs: copy them with santui verify repair"
			}
			bad = append(bad, text)
		}
	}
	c.judge(proto.CheckSync, "", bad, "0 B out of sync")
	if to.DiskState != proto.UpToDate {
		c.add(proto.CheckDisk, v.To.Node, proto.CheckFail, fmt.Sprintf("%s on %s is %s", to.Disk, v.To.Node, to.DiskState))
	} else {
		c.add(proto.CheckDisk, v.To.Node, proto.CheckOK, fmt.Sprintf("%s on %s", to.Disk, v.To.Node))
	}
}

func (c *checker) stack(v View) {
	if v.FromErr != nil || v.From.Resource.Role != proto.Primary {
		return
	}
	node, st := v.From.Node, v.From.Resource.Stack
	if st.Err != "" {
		c.add(proto.CheckStack, node, proto.CheckUnknown, st.Err)
	} else {
		c.add(proto.CheckStack, node, proto.CheckOK, describe(st))
	}
	var procs, ns, devs []string
	for _, u := range st.Users {
		if u.Unit != "" && slices.Contains(c.beside.Units, u.Unit) {
			continue // stopped before the unmount
		}
		switch u.Kind {
		case "process":
			procs = append(procs, fmt.Sprintf("pid %d %s %s %s%s", u.PID, u.Name, u.How, u.Path, owner(u)))
		case "mount-namespace":
			ns = append(ns, fmt.Sprintf("pid %d %s has %s", u.PID, u.Name, u.Path))
		default:
			if _, ok := userCodes[u.Kind]; !ok {
				devs = append(devs, fmt.Sprintf("%s %s %s", u.Kind, u.Name, u.Path))
			}
		}
	}
	if len(c.beside.Scripts) > 0 {
		c.grade(proto.CheckBusyProc, node, nil, procs, "") // whom the scripts end nobody knows; if not these, the unmount says so
	} else {
		c.judge(proto.CheckBusyProc, node, procs, "")
	}
	c.judge(proto.CheckBusyNS, node, ns, "")
	c.judge(proto.CheckBusyDevice, node, devs, "")
	c.volumeGroups(node, st)
	c.volumes(node, st)
}

// owner says whose a process is: its unit, and its user where that is not root. The user's name is not asked for: the answer
// may have to come over a network.
func owner(u proto.User) string {
	switch {
	case u.Unit != "" && u.UID != 0:
		return fmt.Sprintf(" (%s, uid %d)", u.Unit, u.UID)
	case u.Unit != "":
		return " (" + u.Unit + ")"
	case u.UID != 0:
		return fmt.Sprintf(" (uid %d)", u.UID)
	}
	return ""
}

func (c *checker) volumeGroups(node string, st proto.Stack) {
	var bad, auto []string
	for _, vg := range st.VGs {
		if vg.Partial {
			bad = append(bad, vg.Name+" misses a physical volume")
		}
		if vg.Exported {
			bad = append(bad, vg.Name+" is exported")
		}
		if vg.Foreign {
			bad = append(bad, vg.Name+" has physical volumes outside the replicated device")
		}
		if vg.AutoActivation {
			auto = append(auto, vg.Name)
		}
	}
	if len(st.VGs) == 0 {
		return
	}
	c.judge(proto.CheckVG, node, bad, vgNames(st))
	if len(auto) > 0 {
		c.add(proto.CheckVGAuto, node, proto.CheckWarn, strings.Join(auto, ", "))
	} else {
		c.add(proto.CheckVGAuto, node, proto.CheckOK)
	}
}

func (c *checker) target(v View) {
	node := v.To.Node
	var bad, warn []string
	for _, mp := range v.To.Targets {
		switch {
		case mp.Mounted != "" && v.To.Resource.Role == proto.Primary && v.continues():
		case mp.Mounted != "":
			bad = append(bad, fmt.Sprintf("%s has %s mounted on %s", mp.Path, mp.Mounted, node))
		case !mp.Exists:
			bad = append(bad, fmt.Sprintf("%s does not exist on %s", mp.Path, node))
		case !mp.Dir:
			bad = append(bad, fmt.Sprintf("%s is not a directory on %s", mp.Path, node))
		case !mp.Empty:
			warn = append(warn, fmt.Sprintf("%s on %s is not empty: the mount will hide what is in it", mp.Path, node))
		}
	}
	switch {
	case len(bad) == 0 && len(warn) > 0:
		c.add(proto.CheckMountPoint, node, proto.CheckWarn, warn...)
	case len(v.To.Targets) > 0:
		c.judge(proto.CheckMountPoint, node, bad, fmt.Sprintf("%d on %s", len(v.To.Targets), node))
	}
	if len(v.From.Resource.Stack.VGs) > 0 {
		bad = nil
		for _, vg := range v.From.Resource.Stack.VGs {
			if slices.Contains(v.To.VGClash, vg.Name) {
				bad = append(bad, fmt.Sprintf("%s exists on %s outside the replicated device", vg.Name, node))
			}
		}
		for _, left := range v.To.Left {
			bad = append(bad, fmt.Sprintf("%s has %s", node, left))
		}
		c.judge(proto.CheckVGClash, node, bad, vgNames(v.From.Resource.Stack))
	}
	bad = nil
	for _, tool := range needed(v.From.Resource.Stack) {
		if v.To.Tools[tool] == "" {
			bad = append(bad, tool+" is missing on "+node)
		}
	}
	c.judge(proto.CheckTools, node, bad, "")
	var managers []string
	for _, o := range []proto.Observation{v.From, v.To} {
		for _, m := range o.Managers {
			managers = append(managers, m+" runs on "+o.Node)
		}
	}
	c.judge(proto.CheckManager, "", managers, "")
}

// needed lists the programs that bringing up the stack takes.
func needed(st proto.Stack) []string {
	var tools []string
	if len(st.VGs) > 0 {
		tools = append(tools, "vgchange", "lvm")
	}
	if hasThin(st) {
		tools = append(tools, "thin_check")
	}
	if len(st.Mounts) > 0 {
		tools = append(tools, "mount", "umount")
	}
	return tools
}

func vgNames(st proto.Stack) string {
	names := make([]string, len(st.VGs))
	for i, vg := range st.VGs {
		names[i] = vg.Name
	}
	return strings.Join(names, ", ")
}

func describe(st proto.Stack) string {
	var parts []string
	for _, vg := range st.VGs {
		parts = append(parts, fmt.Sprintf("VG %s with %d LV", vg.Name, len(vg.LVs)))
	}
	for _, m := range st.Mounts {
		parts = append(parts, fmt.Sprintf("%s on %s", m.FSType, m.Target))
	}
	if len(parts) == 0 {
		return "nothing mounted, no volume group active"
	}
	return strings.Join(parts, ", ")
}
