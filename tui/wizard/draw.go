package wizard

import (
	"fmt"
	"slices"
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
	title := c.Theme.Strong.Render(strings.ToUpper(string(m.verb))) + " " + m.pairName() + "  "
	switch m.verb {
	case VerbUndo:
		return title + m.undoing.ID
	case proto.VerbResolve:
		return title + "discard " + m.from
	case proto.VerbSetup:
		return title + m.resource + " on " + m.to
	case proto.VerbRejoin:
		return title + m.from + " follows " + m.to
	default:
		return title + m.from + " > " + m.to
	}
}

// steps names the five pages with the present one in capitals.
func (m *Model) steps(c screen.Ctx) string {
	names := []string{"check", "plan", "confirm", "run", "report"}
	short := fmt.Sprintf("%d/5 %s", m.page+1, strings.ToUpper(names[m.page]))
	for i, n := range names {
		names[i] = fmt.Sprintf("%d %s", i+1, n)
		if Page(i) == m.page {
			names[i] = c.Theme.Accent.Render(strings.ToUpper(names[i]))
		}
	}
	long := strings.Join(names, "  ")
	if ansi.StringWidth(m.left(c))+1+ansi.StringWidth(long) > c.W {
		return short
	}
	return long
}

func (m *Model) stack(c screen.Ctx, parts []screen.Part, foot ...string) (string, int) {
	return c.DrawStack(screen.Stack{Screen: m.Screen(), Left: m.left(c), Right: m.steps(c), Parts: parts, Foot: foot})
}

// Settle takes what the window could show as the place where scrolling goes on from.
func (m *Model) Settle(top int) { m.top = top }

func (m *Model) drawCheck(c screen.Ctx) (string, int) {
	w := c.W - 4
	if layout.SizeOf(c.W, c.H) == layout.Wide {
		w = c.W*3/5 - 4 // the nodes stand beside it
	}
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
		title = fmt.Sprintf("preflight  %s  (%s)", m.reply.Checks.At.In(c.Loc).Format(time.TimeOnly), m.tally())
		list := m.checkLines(c, w)
		if m.stale {
			title = fmt.Sprintf("preflight of %s, OLD", m.reply.Checks.At.In(c.Loc).Format(time.TimeOnly))
			lines = append(lines, "", "What was found at "+m.reply.Checks.At.In(c.Loc).Format(time.TimeOnly)+", which may not hold any more:")
			for i, l := range list {
				list[i] = c.Theme.Dim.Render("(old) " + ansi.Strip(l))
			}
		}
		lines = append(lines, list...)
	}
	parts := []screen.Part{{Panel: widget.Panel{Title: title, Lines: lines}, Fill: true, Top: m.top, Side: true}}
	if sides := m.sides(); len(sides) > 0 {
		var text []string
		for _, l := range sides {
			text = append(text, widget.Wrap(l, c.W-4)...)
		}
		parts = append([]screen.Part{{Panel: widget.Panel{Title: "both sides  (x: discard the other one)", Lines: text}, H: len(text)}}, parts...)
	}
	return m.stack(c, parts, append(m.verdict(c), m.notes(c))...)
}

// tally counts the checks by what they mean here: a soft veto does not block, it has to be accepted.
func (m *Model) tally() string {
	count := map[proto.CheckResult]int{}
	for _, k := range m.reply.Checks.Checks {
		count[k.Result]++
	}
	text := fmt.Sprintf("%d ok, %s", count[proto.CheckOK], plural(count[proto.CheckWarn], "warning"))
	hard, soft := len(m.hard()), len(m.soft())
	if hard > 0 || soft == 0 {
		text += fmt.Sprintf(", %d blocking", hard)
	}
	if soft > 0 {
		text += fmt.Sprintf(", %d to accept", soft)
	}
	return text
}

// notes is what just happened, or else which agent does not answer here: what a page shows of its node may be old.
func (m *Model) notes(c screen.Ctx) string { return c.Say(m.noted(c)) }

func (m *Model) noted(c screen.Ctx) view.Line {
	if c.Note.Text != "" {
		return c.Note
	}
	for _, n := range c.Pair.Stale() {
		if m.verb != proto.VerbTakeover || n.Name != m.from { // a takeover is about a silent node
			return view.Line{Level: view.Warn, Text: fmt.Sprintf("%s has not answered this window for %s (%s)", n.Name, view.Age(n.Age), n.StaleError())}
		}
	}
	return view.Line{}
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// verdict says in two lines whether it can go on.
func (m *Model) verdict(c screen.Ctx) []string {
	l := m.judgement()
	lines := widget.Wrap(l.Text, c.W-2)
	if len(lines) < 2 {
		return []string{"", c.Say(l)}
	}
	lines = []string{lines[0], strings.Join(lines[1:], " ")}
	return []string{c.Say(view.Line{Level: l.Level, Text: lines[0]}), c.Ink(l.Level).Render(widget.Fit(c.Theme, "  "+lines[1], c.W))}
}

func (m *Model) judgement() view.Line {
	switch {
	case m.loading:
		return view.Line{Text: "checking ..."}
	case m.reply == nil || m.loadErr != nil:
		return view.Line{}
	case len(m.hard()) > 0:
		k := m.hard()[0]
		return view.Line{Level: view.Alert, Text: "Blocking, r checks again: " + remedy(k)}
	case len(m.soft()) > 0:
		return view.Line{Level: view.Warn, Text: plural(len(m.soft()), "check") + " that can be overridden on page 3, where each is accepted by hand: " + codes(m.soft())}
	}
	return view.Line{Level: view.Good, Text: "Nothing blocks. enter shows the plan."}
}

func codes(list []proto.Check) string {
	var out []string
	for _, k := range list {
		if !slices.Contains(out, k.Code) {
			out = append(out, k.Code)
		}
	}
	return strings.Join(out, ", ")
}

func remedy(k proto.Check) string {
	if k.Remedy == "" {
		return k.Code
	}
	return k.Remedy
}

// gravity puts what blocks first, then what warns.
func gravity(k proto.Check) int {
	switch {
	case k.Blocks():
		return 0
	case k.Result == proto.CheckWarn:
		return 1
	}
	return 2
}

func (m *Model) checkLines(c screen.Ctx, w int) []string {
	var out []string
	list := slices.Clone(m.reply.Checks.Checks)
	slices.SortStableFunc(list, func(a, b proto.Check) int { return gravity(a) - gravity(b) })
	for _, k := range list {
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
			if len(m.sides()) > 0 && k.Code == proto.CheckDiscard {
				break // stands above
			}
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
	if m.reply.Last > 0 && (m.verb == proto.VerbFailover || m.verb == proto.VerbDrill) {
		effect = append(effect, "Last time the service was away for "+view.Seconds(m.reply.Last)+".")
	}
	note := m.notes(c)
	if m.drying {
		note = "dry run: both agents are asked ..."
	}
	return m.stack(c, []screen.Part{
		{Panel: widget.Panel{Title: "what will run, in this order", Lines: m.planLines(c, c.W-4)}, Fill: true, Top: m.top},
		{Panel: widget.Panel{Title: "effect", Lines: effect}, H: len(effect)},
	}, append([]string{note}, widget.WrapCommand("Same from a shell:  "+m.shell(), c.W)...)...)
}

func (m *Model) planLines(c screen.Ctx, w int) []string {
	p := m.reply.Plan
	node := 4
	for _, s := range p.Steps {
		node = max(node, ansi.StringWidth(s.Node))
	}
	node = min(node, 12)
	undoW, limitW := 20, 7
	switch {
	case w < 90:
		undoW = 14
	case w >= 130:
		undoW = 36
	}
	cmdW := max(w-4-node-2-undoW-limitW, 10)
	row := func(i, n, cmd, undo, limit string) string {
		return fmt.Sprintf("%-3s", i) + " " + widget.Fit(c.Theme, n, node) + " " + widget.Fit(c.Theme, cmd, cmdW) + " " +
			widget.FitPaths(c.Theme, undo, undoW-1) + " " + limit
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
		cmd := widget.WrapCommand(widget.Words(c.Theme, view.Command(s.Argv), cmdW-3), cmdW-3)
		limit, ink := view.Limit(s.Limit), c.Theme.Text
		if s.Skip != "" {
			undo, limit, ink = "skipped", "", c.Theme.Dim
		}
		out = append(out, ink.Render(row(fmt.Sprint(s.Index), s.Node, cmd[0], undo, limit)))
		for _, l := range cmd[1:] {
			out = append(out, ink.Render(row("", "", "  "+l, "", "")))
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
	var asks []string // what must stay visible, however low the window is
	for i, k := range m.soft() {
		box := "[ ]"
		if m.ticks[k.Code] {
			box = "[x]"
		}
		text := m.cursor(i+2) + box + " I accept " + k.Code + ": "
		switch n := len(k.Evidence); n {
		case 0:
			text += "it is not so that " + k.Title
		case 1:
			text += k.Evidence[0]
		default:
			text += fmt.Sprintf("%s, and %d more", k.Evidence[0], n-1)
		}
		asks = append(asks, c.Theme.Warn.Render(widget.Fit(c.Theme, text, w)))
	}
	if m.steppable() {
		box := "[ ]"
		if m.stepwise {
			box = "[x]"
		}
		asks = append(asks, m.cursor(m.stepAt())+box+" stop before every step and ask")
	}
	phrase := "Type  " + c.Theme.Strong.Render(m.phrase()) + "  to start:"
	typed, said := tail(m.typed, w-8)+"_", tail(m.statement, w-8)
	if m.field() == &m.statement {
		typed, said = tail(m.typed, w-8), said+"_"
	}
	if m.verb == proto.VerbTakeover {
		asks = append(asks, "How do you know that "+m.from+" is off? It is recorded.", m.cursor(m.statementAt())+" > "+said,
			phrase, m.cursor(m.phraseAt())+" > "+typed)
	} else {
		asks = append(asks, "", phrase, "", "   > "+typed)
	}
	noted := m.noted(c)
	note := widget.Wrap(noted.Text, w)
	var tells []string
	for _, x := range m.changes() {
		tells = append(tells, widget.Fit(c.Theme, x[0], 12)+" "+x[1])
	}
	if len(tells) > 0 {
		tells = append(tells, "")
	}
	for _, e := range m.risks() {
		tells = append(tells, widget.Wrap(e, w)...)
	}
	if m.reply.Last > 0 && (m.verb == proto.VerbFailover || m.verb == proto.VerbDrill) {
		tells = append(tells, "Last time the service was away for "+view.Seconds(m.reply.Last)+".")
	}
	if len(note) == 1 && note[0] == "" {
		note = nil
	}
	room := c.H - 8 - len(asks) - len(note) // header, keys, frame, buttons and blank lines
	lines := append(tells[:max(min(room, len(tells)), 0)], asks...)
	for _, l := range note {
		lines = append(lines, c.Ink(noted.Level).Render(l))
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
	keys := widget.Ends(c.Theme, "tab to Start, then enter   "+ticks(m)+"esc cancel", "checks are "+view.Age(now.Sub(m.at))+" old", c.W)
	return c.DrawDialog(screen.Dialog{Header: header, Title: m.question(), Lines: lines, Buttons: []string{"Cancel", start}, Focus: focus}, keys)
}

// ticks is the key of what can be ticked.
func ticks(m *Model) string {
	if len(m.soft()) == 0 && !m.steppable() {
		return ""
	}
	return "space ticks   "
}

// cursor marks what has the focus.
func (m *Model) cursor(at int) string {
	if m.focus == at {
		return "> "
	}
	return "  "
}

// tail is the end of what is typed, as far as there is room for it.
func tail(s string, w int) string {
	r := []rune(s)
	return string(r[max(len(r)-max(w, 1), 0):])
}

func (m *Model) drawRun(c screen.Ctx, now time.Time) (string, int) {
	op := m.op
	title := fmt.Sprintf("op %s  %s  by %s", op.ID, strings.ToUpper(string(op.State)), op.Owner)
	if op.Outage > 0 && m.verb != VerbUndo && m.verb != proto.VerbTakeover {
		title += "  service away " + view.Seconds(op.Outage)
	}
	title += "  since " + op.Started.In(c.Loc).Format(time.TimeOnly)
	steps := m.stepLines(c, now)
	var out []string
	for _, l := range append(m.said(*op), m.outputLines()...) {
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
		{Panel: widget.Panel{Title: m.outputTitle(c), Lines: out, Foot: "o: all / failed step"}, Fill: true, Top: top},
	}, m.runFoot(c, now)...)
}

func (m *Model) stepLines(c screen.Ctx, now time.Time) []string {
	var out []string
	for _, s := range m.op.Steps {
		word, level := stateWord(*m.op, s), view.Plain
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
			time = fmt.Sprintf("%s / %s", view.Age(now.Sub(t)), view.Limit(s.Step.Limit))
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
		out = append(out, left+widget.FitPaths(c.Theme, cmd, max(w-ansi.StringWidth(left)-14, 4))+" "+time)
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

// outputTitle tells when the failed step was tried, so that a second try that fails alike can be told from the first.
func (m *Model) outputTitle(c screen.Ctx) string {
	if s, ok := m.failedStep(); ok && !m.allOutput {
		at := s.Result.Started
		if s.Undo.State == proto.StepFailed {
			at = s.Undo.Started
		}
		return fmt.Sprintf("step %d output, tried at %s", s.Step.Index, at.In(c.Loc).Format(time.TimeOnly))
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
func (m *Model) runFoot(c screen.Ctx, now time.Time) []string {
	op := m.op
	var out []string
	if m.watchErr != nil {
		text := fmt.Sprintf("%s, which runs this, was last heard %s ago: what is shown is as old. It needs no watching; asking both agents again (%v)",
			m.runner(), view.Age(now.Sub(m.heard)), m.watchErr)
		out = append(out, c.Say(view.Line{Level: view.Warn, Text: text}))
	}
	switch {
	case op.State == proto.OpStopped || op.State == proto.OpPaused:
		text, ink := op.Outcome, c.Ink(view.Alert)
		if op.State == proto.OpPaused {
			text, ink = "Paused. "+m.nextStep(), c.Ink(view.Warn)
		}
		room := 2 // in a low window the choices matter more
		if c.H >= roomy {
			room = 4
		}
		for _, l := range ends(c, widget.Wrap(text, c.W-2), room) {
			out = append(out, ink.Render(widget.Fit(c.Theme, l, c.W)))
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

// ends cuts the middle out of lines that are too many: a failure begins with what failed and ends with how things stand now.
func ends(c screen.Ctx, lines []string, room int) []string {
	if len(lines) <= room {
		return lines
	}
	head := room / 2
	out := slices.Clone(lines[:head])
	if head > 0 {
		out[head-1] += " " + c.Theme.Glyphs.Ellipsis
	}
	return append(out, lines[len(lines)-(room-head):]...)
}

// nextStep names the step that waits for the operator: one that failed is tried again.
func (m *Model) nextStep() string {
	i := slices.IndexFunc(m.op.Steps, view.NotRun)
	if i < 0 {
		return "Every step has run."
	}
	s := m.op.Steps[i].Step
	return fmt.Sprintf("Next is step %d on %s: %s", s.Index, s.Node, view.Command(s.Argv))
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

// said is what the operator stated, and what was at risk.
func (m *Model) said(op proto.Op) []string {
	var out []string
	if op.Statement != "" {
		out = append(out, fmt.Sprintf("%s said of %s: %q", op.Owner, op.Plan.From, op.Statement))
	}
	for _, l := range op.AtRisk {
		out = append(out, "at risk: "+l)
	}
	return out
}

// outageText says how long the service, and where it was measured the storage, was away, each move of its own.
func outageText(op proto.Op) string {
	if op.Plan.Verb == proto.VerbTakeover { // the service had been away before anybody asked
		if op.State != proto.OpDone {
			return ""
		}
		return "service up " + view.Seconds(op.Outage) + " after the start   "
	}
	if len(op.Outages) == 0 {
		if op.Outage == 0 {
			return ""
		}
		return "service away " + view.Seconds(op.Outage) + "   "
	}
	var out strings.Builder
	for _, x := range op.Outages {
		fmt.Fprintf(&out, "to %s: service away %s", x.To, view.Seconds(x.Service))
		if x.Storage > 0 {
			fmt.Fprintf(&out, ", storage %.2f s", x.Storage)
		}
		out.WriteString("   ")
	}
	return out.String()
}

// hang wraps text beside a first column, which only its first line shows.
func hang(first, text string, w int) []string {
	indent := ansi.StringWidth(first)
	var out []string
	for i, l := range widget.WrapCommand(strings.TrimRight(text, " "), max(w-indent, 10)) {
		if i > 0 {
			first = widget.Spaces(indent)
		}
		out = append(out, first+l)
	}
	return out
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
	facts := "started " + op.Started.In(c.Loc).Format(time.DateTime) + " by " + op.Owner + ", run by the agent on " + op.Runner
	lines = append(lines, widget.Wrap(outageText(op)+facts, w)...)
	for _, l := range m.said(op) {
		for _, x := range widget.Wrap(l, w) {
			lines = append(lines, c.Theme.Warn.Render(x))
		}
	}
	if len(op.Accepted) > 0 {
		lines = append(lines, c.Theme.Warn.Render("accepted by "+op.Owner+": "+strings.Join(op.Accepted, ", ")))
	}
	lines = append(lines, "")
	for _, s := range op.Steps {
		lines = append(lines, hang(fmt.Sprintf("%-8s%2d %s ", stateWord(op, s), s.Step.Index, widget.Fit(c.Theme, s.Step.Node, 8)), view.Command(s.Step.Argv)+"  "+took(s.Result), w)...)
	}
	for _, b := range []struct {
		when string
		list []proto.Resource
	}{{"before", r.Before}, {"after", r.After}} {
		for _, x := range b.list {
			lines = append(lines, hang(fmt.Sprintf("%-7s ", b.when), fmt.Sprintf("%s on %s  %s/%s  peer %s/%s  %s", x.Name, op.Runner, x.Role, x.DiskState, x.PeerRole, x.PeerDisk, x.Conn), w)...)
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
