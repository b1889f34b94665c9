package screen

import (
	"fmt"

	"example.com/santui/proto"
	"example.com/santui/tui/keymap"
	"example.com/santui/tui/layout"
	"example.com/santui/tui/widget"
	"github.com/charmbracelet/x/ansi"
)

// Diagnosis is what the doctors of both nodes found.
type Diagnosis struct {
	Loading bool
	Nodes   []NodeDiagnosis
}

// NodeDiagnosis is one node's, or why there is none.
type NodeDiagnosis struct {
	Node  string
	Reply *proto.DoctorReply
	Err   error
}

// Proposes says whether a node's doctor would change a file.
func (n NodeDiagnosis) Proposes() bool {
	return n.Reply != nil && n.Reply.Fix != nil && !n.Reply.Fix.Done && len(n.Reply.Fix.Diff) > 0
}

// WhyNoFix tells why nothing can be written, "" if something can.
func (d Diagnosis) WhyNoFix() string {
	if d.Loading {
		return "both nodes are being looked at"
	}
	for _, n := range d.Nodes {
		if n.Proposes() {
			return ""
		}
	}
	return "no node proposes a change"
}

// Doctor draws both nodes' findings side by side, and under them the exact change that each proposes.
func (c Ctx) Doctor(d Diagnosis, top int) (string, int) {
	w, _ := c.Inner(1, true)
	var lines []string
	if d.Loading && len(d.Nodes) == 0 {
		lines = []string{"both agents look at LVM's configuration ..."}
	}
	if len(d.Nodes) == 2 && layout.SizeOf(c.W, c.H) != layout.Small {
		half := (w - 3) / 2
		left, right := c.findings(d.Nodes[0], half), c.findings(d.Nodes[1], half)
		for i := range max(len(left), len(right)) {
			lines = append(lines, c.cell(left, i, half)+" "+c.Theme.Border.Render(c.Theme.Glyphs.Vertical)+" "+c.cell(right, i, half))
		}
	} else {
		for _, n := range d.Nodes {
			lines = append(append(lines, c.findings(n, w)...), "")
		}
	}
	for _, n := range d.Nodes {
		lines = append(lines, c.change(n, w)...)
	}
	foot := c.NextLines(1)[0]
	if c.Note.Text == "" {
		foot = "Nothing is changed by looking.  From a shell:  santui doctor"
		switch {
		case d.Loading:
			foot = "both agents are asked ..."
		case d.WhyNoFix() == "":
			foot = "W writes it once the pair's name is typed.  From a shell:  santui doctor --fix"
		}
	}
	return c.Draw(Page{Screen: keymap.DoctorScreen, Title: c.name() + "  DOCTOR", Top: top, Foot: []string{widget.Fit(c.Theme, foot, c.W)}, Wide: true,
		Panel: widget.Panel{Title: "how LVM selects its devices", Lines: lines}})
}

func (c Ctx) cell(lines []string, i, w int) string {
	if i >= len(lines) {
		return widget.Spaces(w)
	}
	return widget.Fit(c.Theme, lines[i], w)
}

// findings are a node's, in lines of at most w cells.
func (c Ctx) findings(n NodeDiagnosis, w int) []string {
	if n.Reply == nil {
		out := []string{c.Theme.Strong.Render(n.Node) + "  " + c.Theme.Alert.Render("not known")}
		if n.Err != nil {
			for _, l := range widget.Wrap(n.Err.Error(), w) {
				out = append(out, c.Theme.Warn.Render(l))
			}
		}
		return out
	}
	d := n.Reply
	word := c.Theme.Good.Render("healthy")
	if !d.Healthy {
		word = c.Theme.Alert.Render("NOT SAFE")
	}
	out := []string{c.Theme.Strong.Render(d.Node) + "  " + word}
	for _, t := range append([]string{fmt.Sprintf("%s on %s", d.Device, d.Disk), d.Layout}, d.Findings...) {
		out = append(out, hanging(t, w)...)
	}
	if d.Hint != "" {
		for _, l := range hanging("by hand: "+d.Hint, w) {
			out = append(out, c.Theme.Warn.Render(l))
		}
	}
	return out
}

// hanging wraps a text so that its further lines are indented.
func hanging(text string, w int) []string {
	out := widget.Wrap(text, w-2)
	for i := 1; i < len(out); i++ {
		out[i] = "  " + out[i]
	}
	return out
}

// change is what a node's doctor would write, or wrote.
func (c Ctx) change(n NodeDiagnosis, w int) []string {
	if n.Reply == nil || n.Reply.Fix == nil || len(n.Reply.Fix.Diff) == 0 {
		return nil
	}
	f := n.Reply.Fix
	head := fmt.Sprintf("%s: would change %s", n.Node, f.File)
	if f.Done {
		head = fmt.Sprintf("%s: changed %s", n.Node, f.File)
		if f.Backup != "" {
			head += "; the old one is " + f.Backup
		}
	}
	out := []string{""}
	for _, l := range widget.Wrap(head, w) {
		out = append(out, c.Theme.Accent.Render(l))
	}
	for _, l := range f.Diff {
		for _, x := range widget.WrapCommand(ansi.Strip(l), w-2) {
			out = append(out, "  "+x)
		}
	}
	return out
}
