package wizard

import (
	"fmt"
	"strings"
	"time"

	"example.com/santui/proto"
	"example.com/santui/tui/layout"
	"example.com/santui/tui/screen"
	"example.com/santui/tui/view"
	"example.com/santui/tui/widget"
	"github.com/charmbracelet/x/ansi"
)

// Draw draws the page and returns where its scrolled part ended up, for Settle. now is our clock, for the age of the
// checks and the time a step has taken.
func (m *Model) Draw(c screen.Ctx, now time.Time) (string, int) {
	if c.Note.Text == "" {
		c.Note = m.note
	}
	switch m.page {
	case Check:
		return m.drawCheck(c)
	case Plan:
		return m.drawPlan(c)
	case Confirm:
		return m.drawConfirm(c, now), 0
	case Run:
		return m.drawRun(c, now)
	default:
		return m.drawReport(c)
	}
}

func (m *Model) left(c screen.Ctx) string {
	return c.Theme.Strong.Render("FAILOVER") + fmt.Sprintf(" %s  %s > %s", m.pairName(), m.from, m.to)
}

// steps names the five pages with the present one in capitals.
func (m *Model) steps(c screen.Ctx) string {
	names := []string{"check", "plan", "confirm", "run", "report"}
	if c.W < 80 {
		return fmt.Sprintf("%d/5 %s", m.page+1, strings.ToUpper(names[m.page]))
	}
	for i, n := range names {
		names[i] = fmt.Sprintf("%d %s", i+1, n)
		if Page(i) == m.page {
			names[i] = c.Theme.Accent.Render(strings.ToUpper(names[i]))
		}
	}
	return strings.Join(names, "  ")
}

func (m *Model) stack(c screen.Ctx, parts []screen.Part, foot ...string) (string, int) {
	return c.DrawStack(screen.Stack{Screen: m.Screen(), Left: m.left(c), Right: m.steps(c), Parts: parts, Foot: foot})
}

// Settle takes what the window could show as the place where scrolling goes on from.
func (m *Model) Settle(top int) { m.top = top }

func (m *Model) drawCheck(c screen.Ctx) (string, int) {
	w, _ := c.Inner(3, true)
	title, lines := "preflight", []string{}
	switch {
	case m.loading && m.reply == nil:
		lines = []string{"both agents are asked ..."}
	case m.loadErr != nil:
		for _, l := range widget.Wrap("the checks could not be made: "+m.loadErr.Error(), w) {
			lines = append(lines, c.Theme.Alert.Render(l))
		}
		lines = append(lines, "", "r tries again")
	}
	if m.reply != nil {
		count := map[proto.CheckResult]int{}
		for _, k := range m.reply.Checks.Checks {
			count[k.Result]++
		}
		title = fmt.Sprintf("preflight  %s  (%d ok, %d warnings, %d blocking)", m.reply.Checks.At.In(c.Loc).Format(time.TimeOnly),
			count[proto.CheckOK], count[proto.CheckWarn], count[proto.CheckFail]+count[proto.CheckUnknown])
		lines = append(lines, m.checkLines(c, w)...)
	}
	return m.stack(c, []screen.Part{{Panel: widget.Panel{Title: title, Lines: lines}, Fill: true, Top: m.top, Side: true}}, "", m.verdict(c), m.notes(c))
}

func (m *Model) notes(c screen.Ctx) string { return c.Say(c.Note) }

func (m *Model) verdict(c screen.Ctx) string {
	switch {
	case m.loading:
		return "checking ..."
	case m.reply == nil || m.loadErr != nil:
		return ""
	case len(m.hard()) > 0:
		k := m.hard()[0]
		return c.Say(view.Line{Level: view.Alert, Text: "Blocking: " + remedy(k) + ", then press r to check again."})
	case len(m.soft()) > 0:
		return c.Say(view.Line{Level: view.Warn, Text: fmt.Sprintf("%d of these can be accepted on page 3: %s", len(m.soft()), m.soft()[0].Code)})
	}
	return c.Say(view.Line{Level: view.Good, Text: "Nothing blocks. enter shows the plan."})
}

func remedy(k proto.Check) string {
	if k.Remedy == "" {
		return k.Code
	}
	return k.Remedy
}

func (m *Model) checkLines(c screen.Ctx, w int) []string {
	var out []string
	for _, k := range m.reply.Checks.Checks {
		word, level := string(k.Result), view.Plain
		switch k.Result {
		case proto.CheckFail:
			word, level = "FAIL", view.Alert
		case proto.CheckUnknown:
			word, level = "UNKNOWN", view.Alert
		case proto.CheckWarn:
			level = view.Warn
		case proto.CheckOK:
			level = view.Good
		}
		line := c.Ink(level).Render(fmt.Sprintf("%-7s", word)) + " " + k.Title
		if k.Node != "" {
			line += "  (" + k.Node + ")"
		}
		if k.Result == proto.CheckOK && len(k.Evidence) > 0 {
			line = widget.Fit(c.Theme, line, min(50, max(w-20, 0))) + " " + c.Theme.Dim.Render(k.Evidence[0])
		}
		out = append(out, line)
		if k.Result == proto.CheckOK {
			continue
		}
		for _, e := range k.Evidence {
			for _, l := range widget.Wrap(e, w-10) {
				out = append(out, "          "+l)
			}
		}
		if k.Remedy != "" {
			for i, l := range widget.Wrap("remedy: "+k.Remedy, w-10) {
				if i > 0 {
					l = "  " + l
				}
				out = append(out, "        "+c.Theme.Dim.Render(l))
			}
		}
	}
	return out
}

func (m *Model) drawPlan(c screen.Ctx) (string, int) {
	w, _ := c.Inner(3, true)
	p := m.reply.Plan
	var effect []string
	for _, e := range p.Effect {
		effect = append(effect, widget.Wrap(e, w)...)
	}
	if m.reply.Last > 0 {
		effect = append(effect, "Last time the service was away for "+view.Seconds(m.reply.Last)+".")
	}
	note := m.notes(c)
	if m.drying {
		note = "dry run: both agents are asked ..."
	}
	return m.stack(c, []screen.Part{
		{Panel: widget.Panel{Title: "what will run, in this order", Lines: m.planLines(c, c.W-4)}, Fill: true, Top: m.top},
		{Panel: widget.Panel{Title: "effect", Lines: effect}, H: len(effect)},
	}, note, widget.Fit(c.Theme, "Same from a shell:  santui failover --to "+p.To+" --confirm "+m.pairName(), c.W))
}

func (m *Model) planLines(c screen.Ctx, w int) []string {
	p := m.reply.Plan
	node := 4
	for _, s := range p.Steps {
		node = max(node, ansi.StringWidth(s.Node))
	}
	node = min(node, 12)
	undoW, limitW := 20, 7
	if w < 90 {
		undoW = 14
	}
	cmdW := max(w-4-node-2-undoW-limitW, 10)
	row := func(i, n, cmd, undo, limit string) string {
		return fmt.Sprintf("%-3s", i) + " " + widget.Fit(c.Theme, n, node) + " " + widget.Fit(c.Theme, cmd, cmdW) + " " +
			widget.Fit(c.Theme, undo, undoW) + limit
	}
	out := []string{c.Theme.Dim.Render(row("#", "node", "command", "undo", "limit"))}
	for _, s := range p.Steps {
		undo := "-"
		if len(s.Undo) > 0 {
			undo = string(s.UndoKind)
			if undoW >= 20 {
				undo = view.Command(s.Undo)
			}
		}
		cmd := widget.Wrap(view.Command(s.Argv), cmdW-1)
		out = append(out, row(fmt.Sprint(s.Index), s.Node, cmd[0], undo, view.Seconds(s.Limit)))
		for _, l := range cmd[1:] {
			out = append(out, row("", "", "  "+l, "", ""))
		}
		if m.dry != nil {
			out = append(out, m.dryLine(c, s.Index)...)
		}
	}
	return out
}

func (m *Model) dryLine(c screen.Ctx, index int) []string {
	for _, s := range m.dry.Steps {
		if s.Step.Index != index {
			continue
		}
		if s.Result.Err != nil {
			return []string{c.Theme.Alert.Render("      dry run: " + s.Result.Err.Text)}
		}
		if s.Result.Now != "" {
			return []string{c.Theme.Dim.Render("      dry run: " + s.Result.Now)}
		}
	}
	return nil
}

func (m *Model) drawConfirm(c screen.Ctx, now time.Time) string {
	w := min(c.W, 76) - 4
	lines := []string{
		widget.Fit(c.Theme, m.from, 12) + " Primary   > Secondary",
		widget.Fit(c.Theme, m.to, 12) + " Secondary > Primary", "",
	}
	for _, e := range m.reply.Plan.Effect[:min(1, len(m.reply.Plan.Effect))] {
		lines = append(lines, widget.Wrap(e, w)...)
	}
	if m.reply.Last > 0 {
		lines = append(lines, "Last time the service was away for "+view.Seconds(m.reply.Last)+".")
	}
	for i, k := range m.soft() {
		box, cursor := "[ ]", "  "
		if m.ticks[k.Code] {
			box = "[x]"
		}
		if m.focus == i+2 {
			cursor = "> "
		}
		text := cursor + box + " I accept " + k.Code + ": not so: " + k.Title
		if len(k.Evidence) > 0 {
			text += ": " + k.Evidence[0]
		}
		lines = append(lines, c.Theme.Warn.Render(widget.Fit(c.Theme, text, w)))
	}
	lines = append(lines, "", "Type the pair's name  "+c.Theme.Strong.Render(m.pairName())+"  to start:", "", "   > "+m.typed+"_", "")
	for _, l := range widget.Wrap(c.Note.Text, w) {
		lines = append(lines, c.Ink(c.Note.Level).Render(l))
	}
	start := "Start"
	if why := m.whyNotStart(); why != "" {
		start += " (" + why + ")"
	}
	focus := -1
	if m.focus < 2 {
		focus = m.focus
	}
	header := widget.Ends(c.Theme, m.left(c), m.steps(c), c.W)
	age := now.Sub(m.at)
	keys := widget.Ends(c.Theme, "tab to Start, then enter   space ticks   esc cancel", "checks are "+view.Age(age)+" old", c.W)
	return c.DrawDialog(screen.Dialog{Header: header, Title: "make " + m.to + " the Primary?", Lines: lines, Buttons: []string{"Cancel", start}, Focus: focus}, keys)
}

func (m *Model) drawRun(c screen.Ctx, now time.Time) (string, int) {
	op := m.op
	title := fmt.Sprintf("op %s  %s", op.ID, strings.ToUpper(string(op.State)))
	if op.Outage > 0 {
		title += "  service away " + view.Seconds(op.Outage)
	}
	title += fmt.Sprintf("  started %s by %s", op.Started.In(c.Loc).Format(time.TimeOnly), op.Owner)
	steps := m.stepLines(c, now)
	var out []string
	for _, l := range m.outputLines() {
		out = append(out, widget.Wrap(l, c.W-4)...)
	}
	top := m.top
	if m.follow {
		top = -1
	}
	rows := len(steps)
	if layout.SizeOf(c.W, c.H) == layout.Wide {
		rows = max(rows, 16) // what the nodes beside it need
	}
	return m.stack(c, []screen.Part{
		{Panel: widget.Panel{Title: title, Lines: steps}, H: rows, Keep: m.activeStep(), Side: true},
		{Panel: widget.Panel{Title: m.outputTitle(), Lines: out, Foot: "o: all / failed step"}, Fill: true, Top: top},
	}, m.runFoot(c)...)
}

func (m *Model) stepLines(c screen.Ctx, now time.Time) []string {
	var out []string
	for _, s := range m.op.Steps {
		word, level := stateWord(s), view.Plain
		switch s.Result.State {
		case proto.StepFailed:
			level = view.Alert
		case proto.StepDone, proto.StepAlready:
			level = view.Good
		case proto.StepRunning:
			level = view.Warn
		default:
		}
		time := took(s.Result)
		if t, ok := m.stepSince[s.Step.Index]; ok {
			time = fmt.Sprintf("%s / %s", view.Age(now.Sub(t)), view.Seconds(s.Step.Limit))
		}
		cmd := view.Command(s.Step.Argv)
		if s.Undo.State != "" && s.Undo.State != proto.StepWaiting {
			cmd = view.Command(s.Step.Undo)
		}
		left := c.Ink(level).Render(fmt.Sprintf("%-8s", word)) + fmt.Sprintf("%2d ", s.Step.Index) + widget.Fit(c.Theme, s.Step.Node, 8) + " "
		if s.Step.Internal {
			cmd += "  (inside the agent)"
		}
		w := c.W - 4
		if layout.SizeOf(c.W, c.H) == layout.Wide {
			w = c.W*3/5 - 4
		}
		out = append(out, left+widget.Fit(c.Theme, cmd, max(w-ansi.StringWidth(left)-14, 4))+" "+time)
	}
	return out
}

// activeStep is the line of the step that matters now: the failed one, the running one, or the last that was done.
func (m *Model) activeStep() int {
	last := 0
	for i, s := range m.op.Steps {
		switch {
		case s.Undo.State == proto.StepFailed || s.Undo.State == proto.StepUndoing:
			return i
		case s.Undo.State == "" && (s.Result.State == proto.StepFailed || s.Result.State == proto.StepRunning):
			return i
		case s.Result.State == proto.StepDone || s.Result.State == proto.StepAlready:
			last = i
		}
	}
	return last
}

func (m *Model) failedStep() (proto.StepStatus, bool) {
	for _, s := range m.op.Steps {
		if s.Undo.State == proto.StepFailed || s.Undo.State == "" && s.Result.State == proto.StepFailed {
			return s, true
		}
	}
	return proto.StepStatus{}, false
}

func (m *Model) outputTitle() string {
	if s, ok := m.failedStep(); ok && !m.allOutput {
		return fmt.Sprintf("step %d output", s.Step.Index)
	}
	return "output"
}

func (m *Model) outputLines() []string {
	if s, ok := m.failedStep(); ok && !m.allOutput {
		return stepOutput(s)
	}
	var out []string
	for _, s := range m.op.Steps {
		out = append(out, stepOutput(s)...)
	}
	return out
}

// roomy is the height from which the fourth page's texts are written out in full.
const roomy = 24

var choiceText = map[proto.Choice][2]string{
	proto.ChoiceRetry:  {"t", "try the failed step again"},
	proto.ChoiceUndo:   {"u", "undo what was done, newest first"},
	proto.ChoiceKeep:   {"k", "keep this state and leave; the pair needs attention (exit code 7)"},
	proto.ChoicePause:  {"p", "pause after this step"},
	proto.ChoiceResume: {"g", "go on"},
}

// runFoot is the state in words and, while something is to be decided, the choices.
func (m *Model) runFoot(c screen.Ctx) []string {
	op := m.op
	var out []string
	if m.watchErr != nil {
		out = append(out, c.Say(view.Line{Level: view.Warn, Text: "the view of the operation broke off (" + m.watchErr.Error() + "); it goes on there, asking again"}))
	}
	switch {
	case op.State == proto.OpStopped || op.State == proto.OpPaused:
		text := op.Outcome
		if text == "" {
			text = "the operation is " + string(op.State)
		}
		wrapped := widget.Wrap(text, c.W-2)
		room := 2 // in a low window the choices matter more
		if c.H >= roomy {
			room = 4
		}
		for _, l := range wrapped[:min(room, len(wrapped))] {
			out = append(out, c.Ink(view.Alert).Render(widget.Fit(c.Theme, l, c.W)))
		}
		out = append(out, "")
		for i, ch := range op.Choices {
			cursor := "   "
			if i == m.choice {
				cursor = " > "
			}
			t := choiceText[ch]
			if t[1] == "" {
				t[1] = string(ch)
			}
			text := widget.Wrap(t[1]+m.undoNote(ch), c.W-8)
			if c.H < roomy && len(text) > 1 {
				text = []string{widget.Fit(c.Theme, t[1]+m.undoNote(ch), c.W-8)}
			}
			for k, line := range text {
				if k == 0 {
					line = cursor + t[0] + "  " + line
				} else {
					line = "      " + line
				}
				if i == m.choice {
					line = c.Theme.Accent.Render(line)
				}
				out = append(out, line)
			}
		}
	case m.choice == 0 && op.State == proto.OpRunning:
		out = append(out, " > p  pause after this step: enter does it")
	default:
		out = append(out, "The operation runs on the agents. Closing this window does not stop it.")
	}
	if m.deciding {
		out = append(out, "asked for, no answer yet ...")
	}
	return append(out, m.notes(c))
}

// undoNote lists what undoing would run.
func (m *Model) undoNote(ch proto.Choice) string {
	if ch != proto.ChoiceUndo {
		return ""
	}
	var parts []string
	for i := len(m.op.Steps) - 1; i >= 0; i-- {
		s := m.op.Steps[i]
		if s.Step.UndoKind != "" && (s.Result.State == proto.StepDone || s.Result.State == proto.StepFailed) {
			parts = append(parts, fmt.Sprintf("%s on %s", s.Step.UndoKind, s.Step.Node))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

func (m *Model) drawReport(c screen.Ctx) (string, int) {
	r := m.final()
	w := c.W - 4
	op := r.Op
	var lines []string
	level := view.Good
	if op.State != proto.OpDone {
		level = view.Alert
	}
	head := strings.ToUpper(string(op.State))
	if !strings.HasPrefix(strings.ToUpper(op.Outcome), head) {
		op.Outcome = head + ": " + op.Outcome
	}
	for _, l := range widget.Wrap(op.Outcome, w) {
		lines = append(lines, c.Ink(level).Render(l))
	}
	lines = append(lines, fmt.Sprintf("service away %s   started %s   by %s   run by the agent on %s", view.Seconds(op.Outage),
		op.Started.In(c.Loc).Format(time.DateTime), op.Owner, op.Runner))
	if len(op.Accepted) > 0 {
		lines = append(lines, c.Theme.Warn.Render("accepted by "+op.Owner+": "+strings.Join(op.Accepted, ", ")))
	}
	lines = append(lines, "")
	for _, s := range op.Steps {
		lines = append(lines, fmt.Sprintf("%-8s%2d %s %s  %s", stateWord(s), s.Step.Index, widget.Fit(c.Theme, s.Step.Node, 8), view.Command(s.Step.Argv), took(s.Result)))
	}
	for _, b := range []struct {
		when string
		list []proto.Resource
	}{{"before", r.Before}, {"after", r.After}} {
		for _, x := range b.list {
			lines = append(lines, fmt.Sprintf("%-7s %s  %s/%s  peer %s/%s  %s", b.when, x.Name, x.Role, x.DiskState, x.PeerRole, x.PeerDisk, x.Conn))
		}
	}
	lines = append(lines, "", c.Theme.Accent.Render("commands"))
	for _, s := range op.Steps {
		for _, l := range stepOutput(s) {
			lines = append(lines, widget.Wrap(l, w)...)
		}
	}
	foot := "The report is kept on both agents."
	if m.reportErr != nil {
		foot = "The agent's report could not be fetched: " + m.reportErr.Error()
	}
	return m.stack(c, []screen.Part{{Panel: widget.Panel{Title: "report of op " + op.ID, Lines: lines}, Fill: true, Top: m.top}},
		widget.Fit(c.Theme, foot, c.W), m.notes(c))
}
