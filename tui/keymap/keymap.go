package keymap

import (
	"slices"

	"example.com/santui/proto"
	"example.com/santui/tui/view"
	"github.com/charmbracelet/bubbles/key"
	tea "github.com/charmbracelet/bubbletea"
)

// Action is what a key asks for.
type Action string

// The actions.
const (
	Panel     Action = "panel"
	PanelBack Action = "panel-back"
	Up        Action = "up"
	Down      Action = "down"
	PageUp    Action = "page-up"
	PageDown  Action = "page-down"
	Top       Action = "top"
	Bottom    Action = "bottom"
	Enter     Action = "enter"
	Back      Action = "back"
	Quit      Action = "quit"
	Help      Action = "help"
	Filter    Action = "filter"
	Copy      Action = "copy"
	Write     Action = "write"
	Refresh   Action = "refresh"
	Reconnect Action = "reconnect"
	Events    Action = "events"
	Commands  Action = "commands"
	Sync      Action = "sync"
	Failover  Action = "failover"
	Takeover  Action = "takeover"
	Drill     Action = "drill"
	Resolve   Action = "resolve"
	Rejoin    Action = "rejoin"
	UndoOp    Action = "undo-op"
	Swap      Action = "swap"
	Verify    Action = "verify"
	Attach    Action = "attach"
	Theme     Action = "theme"
	Next      Action = "next"
	Prev      Action = "prev"
	Redraw    Action = "redraw"
	Suspend   Action = "suspend"
	Pause     Action = "pause"
	Resume    Action = "resume"
	Rate      Action = "rate"
	Start     Action = "start"
	DryRun    Action = "dry-run"
	PageBack  Action = "page-before"
	PauseOp   Action = "pause-op"
	Retry     Action = "retry"
	Undo      Action = "undo"
	Keep      Action = "keep"
	Detach    Action = "detach"
	Output    Action = "output"
	Doctor    Action = "doctor"
	Fix       Action = "fix"
	Setup     Action = "setup"
	Tick      Action = "tick"
	Erase     Action = "erase"
	Clear     Action = "clear"
)

// Screen is where the operator is.
type Screen string

// The screens. The pages of the failover wizard count as screens: each has keys of its own.
const (
	Overview       Screen = "overview"
	NodeDetail     Screen = "node"
	SyncScreen     Screen = "sync"
	EventsScreen   Screen = "events"
	CommandsScreen Screen = "commands"
	DoctorScreen   Screen = "doctor"
	HelpScreen     Screen = "help"
	CheckPage      Screen = "check"
	PlanPage       Screen = "plan"
	ConfirmPage    Screen = "confirm"
	RunPage        Screen = "run"
	ReportPage     Screen = "report"
)

var (
	home    = []Screen{Overview, NodeDetail, SyncScreen, EventsScreen, CommandsScreen}
	lists   = []Screen{EventsScreen, CommandsScreen}
	wizard  = []Screen{CheckPage, PlanPage, RunPage, ReportPage}
	scrolls = []Screen{Overview, NodeDetail, SyncScreen, EventsScreen, CommandsScreen, DoctorScreen, HelpScreen, CheckPage, PlanPage, RunPage, ReportPage}
)

// State is what a binding's reason is computed from.
type State struct {
	Pair     view.Pair
	ReadOnly bool
	NoFix    string         // why the doctor has nothing to write, "" if it has
	Verb     proto.Verb     // of the wizard, "" outside
	Choices  []proto.Choice // what the operation on the wizard's fourth page offers now
}

// Binding is one key with all that is said about it.
type Binding struct {
	key.Binding
	Action  Action
	Screens []Screen // nil: everywhere but where text is typed
	// Changes marks what leads to a change of the pair; read-only sessions have none of these.
	Changes bool
	Long    string             // for the help screen
	Reason  func(State) string // why it does not work now, "" if it does; nil: always works
	Name    func(State) string // what it is called now, if that varies; else the help's words
	hidden  bool               // works, but is not worth a place in the key line
	rare    bool               // is worth a place only while it works
}

// Why tells why the binding does not work now, "" if it does.
func (b Binding) Why(s State) string {
	if b.Reason != nil {
		if r := b.Reason(s); r != "" {
			return r
		}
	}
	if b.Changes && s.ReadOnly {
		return "this session is read-only"
	}
	return ""
}

// Desc is what the key is called now.
func (b Binding) Desc(s State) string {
	if b.Name != nil {
		return b.Name(s)
	}
	return b.Help().Desc
}

// On says whether the binding works on a screen.
func (b Binding) On(s Screen) bool {
	return b.Screens == nil && s != ConfirmPage || slices.Contains(b.Screens, s)
}

// Line says whether it is shown in the key line, given whether it works now.
func (b Binding) Line(works bool) bool { return !b.hidden && (works || !b.rare) }

func bind(a Action, keys []string, shown, short, long string, screens ...Screen) Binding {
	return Binding{Binding: key.NewBinding(key.WithKeys(keys...), key.WithHelp(shown, short)), Action: a, Long: long, Screens: screens}
}

func quiet(b Binding) Binding { b.hidden = true; return b }

func rare(b Binding) Binding { b.rare = true; return b }

func changes(b Binding, reason func(State) string) Binding {
	b.Changes, b.Reason = true, reason
	return b
}

// choice binds a key to a decision that the operation may offer.
func choice(b Binding, c proto.Choice) Binding {
	return changes(rare(b), func(s State) string {
		if !slices.Contains(s.Choices, c) {
			return "the operation does not offer it now"
		}
		return ""
	})
}

func when(b Binding, reason func(State) string) Binding {
	b.Reason = reason
	return b
}

func k(keys ...string) []string { return keys }

// Bindings is the table, in the order in which keys are shown.
var Bindings = slices.Concat(syncKeys(), doctorKeys(), wizardKeys(), confirmKeys(), homeKeys(), commonKeys())

// way takes the reason of a verb from the pair.
func way(of func(view.Pair) string) func(State) string {
	return func(s State) string { return of(s.Pair) }
}

func homeKeys() []Binding {
	attach := rare(bind(Attach, k("a"), "a", "attach", "take up the operation that runs or waits; after its end, see its report", home...))
	attach.Name = func(s State) string {
		if s.Pair.Op != nil && s.Pair.Op.State.Final() {
			return "last report"
		}
		return "attach"
	}
	check := way(func(p view.Pair) string { return p.Check })
	return []Binding{
		when(attach, func(s State) string {
			if s.Pair.Op == nil {
				return "there is no operation"
			}
			return ""
		}),
		when(rare(bind(Takeover, k("F"), "F", "takeover", "the Primary is gone: make the other node Primary without it (asks how you know)", home...)),
			way(func(p view.Pair) string { return p.Takeover.Why })),
		when(rare(bind(Resolve, k("D"), "D", "discard a side", "split brain: see both sides and give the changes of one up", home...)),
			way(func(p view.Pair) string { return p.Resolve.Why })),
		when(rare(bind(Rejoin, k("J"), "J", "rejoin", "connect both nodes and let the older copy follow", home...)),
			way(func(p view.Pair) string { return p.Rejoin.Why })),
		when(rare(bind(UndoOp, k("u"), "u", "undo", "undo an operation that was left half way", home...)),
			way(func(p view.Pair) string { return p.Undo })),
		when(rare(bind(Reconnect, k("R"), "R", "retry", "try to reach silent agents now", home...)), func(s State) string {
			if len(s.Pair.Stale()) == 0 {
				return "both agents answer"
			}
			return ""
		}),
		when(bind(Failover, k("f", "f6"), "f", "failover", "check, plan, confirm and run a planned failover", home...), check),
		when(bind(Drill, k("d"), "d", "drill", "move the service there and back, with files that prove the data came along", home...), way(func(p view.Pair) string { return p.Drill })),
		bind(Sync, k("s"), "s", "sync", "the synchronisation: pause, resume, rate, start", home...),
		verifyKey(),
		bind(Events, k("l"), "l", "log", "all events of both nodes", home...),
		bind(Commands, k("c"), "c", "commands", "every command that operations ran", home...),
		when(rare(bind(Setup, k("V"), "V", "set up LVM", "make a volume group, a volume and a file system on a resource that carries nothing", home...)),
			way(func(p view.Pair) string { return p.Setup.Why })),
		bind(Doctor, k("H"), "H", "doctor", "how LVM selects its devices on both nodes, and the fix where that is not safe", home...),
		bind(Panel, k("tab"), "tab", "panel", "move to the next panel", home...),
		quiet(bind(PanelBack, k("shift+tab"), "shift+tab", "panel back", "move to the panel before", home...)),
		bind(Enter, k("enter"), "enter", "details", "open what has the focus", Overview),
		quiet(bind(Next, k("n"), "n", "next resource", "show the next resource of the pair", home...)),
		quiet(bind(Prev, k("p"), "p", "previous", "show the resource before", Overview, NodeDetail, EventsScreen, CommandsScreen)),
		bind(Filter, k("/"), "/", "filter", "show only lines with some text", lists...),
	}
}

// verifyKey starts an online verify, or stops the one that runs.
func verifyKey() Binding {
	b := changes(bind(Verify, k("v"), "v", "verify", "compare both copies online, block by block; stops the one that runs (asks)", home...),
		way(func(p view.Pair) string { return p.Verify.Why }))
	b.Name = func(s State) string {
		if s.Pair.Sync != nil && s.Pair.Sync.Kind == "verify" {
			return "stop verify"
		}
		return "verify"
	}
	return b
}

func syncKeys() []Binding {
	running := func(s State) string {
		switch {
		case s.Pair.Sync == nil:
			return "nothing is being synchronised"
		case s.Pair.Sync.Kind == "verify":
			return "a verify runs, which v stops"
		}
		return ""
	}
	return []Binding{
		changes(bind(Pause, k("P"), "P", "pause", "pause the synchronisation (asks)", SyncScreen), func(s State) string {
			if why := running(s); why != "" {
				return why
			}
			if s.Pair.Sync.Paused {
				return "it is paused"
			}
			return ""
		}),
		changes(bind(Resume, k("U"), "U", "resume", "resume a paused synchronisation (asks)", SyncScreen), func(s State) string {
			if why := running(s); why != "" {
				return why
			}
			if !s.Pair.Sync.Paused {
				return "it is not paused"
			}
			return ""
		}),
		changes(bind(Rate, k("L"), "L", "rate", "limit the synchronisation's rate (asks)", SyncScreen), running),
		changes(bind(Start, k("S"), "S", "start full sync", "declare one copy the good one and overwrite the other (asks for the pair's name)", SyncScreen),
			func(s State) string { return s.Pair.Start }),
	}
}

func wizardKeys() []Binding {
	return []Binding{
		bind(Refresh, k("r"), "r", "check again", "look at both nodes afresh", CheckPage, PlanPage),
		bind(Enter, k("enter"), "enter", "next", "go on to the next page", CheckPage, PlanPage),
		when(rare(bind(Swap, k("x"), "x", "other side", "let the other node's copy be the good one", CheckPage)), func(s State) string {
			if s.Verb != proto.VerbResolve && s.Verb != proto.VerbRejoin {
				return "only where both copies may be the good one"
			}
			return ""
		}),
		bind(DryRun, k("d"), "d", "dry run", "let both agents validate every step without acting", PlanPage),
		bind(PageBack, k("esc", "b"), "esc", "back", "the page before", PlanPage),
		choice(bind(PauseOp, k("p"), "p", "pause", "choose to stop before the next step (enter does it)", RunPage), proto.ChoicePause),
		choice(bind(Resume, k("g"), "g", "go on", "resume a paused operation (enter does it)", RunPage), proto.ChoiceResume),
		choice(bind(Retry, k("t"), "t", "try again", "choose to try the failed step again (enter does it)", RunPage), proto.ChoiceRetry),
		choice(bind(Undo, k("u"), "u", "undo", "choose to undo the steps done so far (enter does it)", RunPage), proto.ChoiceUndo),
		choice(bind(Keep, k("k"), "k", "keep", "choose to leave everything as it stands (enter does it)", RunPage), proto.ChoiceKeep),
		bind(Enter, k("enter"), "enter", "do it", "do what is chosen", RunPage),
		bind(Output, k("o"), "o", "output", "all output, or only the failed step's", RunPage),
		bind(Detach, k("x"), "x", "detach", "leave; the operation goes on on the agents", RunPage),
		bind(Enter, k("enter"), "enter", "close", "back to the overview", ReportPage),
		bind(Copy, k("y"), "y", "copy", "copy to the clipboard of the terminal (OSC 52)", slices.Concat(wizard, lists)...),
		bind(Write, k("w"), "w", "write", "write the plan or report to a file", PlanPage, ReportPage),
	}
}

// doctorKeys are those of the doctor's screen.
func doctorKeys() []Binding {
	return []Binding{
		bind(Refresh, k("r"), "r", "look again", "look at LVM's configuration of both nodes afresh", DoctorScreen),
		changes(bind(Fix, k("W"), "W", "write the fix", "write what the doctor proposes on each node (asks for the pair's name)", DoctorScreen),
			func(s State) string { return s.NoFix }),
	}
}

// confirmKeys are those of the wizard's third page, where letters are text.
func confirmKeys() []Binding {
	return []Binding{
		bind(Panel, k("tab", "down", "right"), "tab", "next", "to the next button, tick or text", ConfirmPage),
		quiet(bind(PanelBack, k("shift+tab", "up", "left"), "shift+tab", "before", "to the button, tick or text before", ConfirmPage)),
		bind(Tick, k(" "), "space", "tick", "tick what has the focus; in a text, a space", ConfirmPage),
		bind(Enter, k("enter"), "enter", "press", "press the button that has the focus, Cancel first; from a text, on to the next", ConfirmPage),
		quiet(bind(Erase, k("backspace"), "backspace", "erase", "take the last letter away", ConfirmPage)),
		quiet(bind(Clear, k("ctrl+u"), "ctrl+u", "clear", "empty the text", ConfirmPage)),
		bind(Back, k("esc"), "esc", "cancel", "back to the plan; nothing is started", ConfirmPage),
		bind(Help, k("f1"), "f1", "help", "this list", ConfirmPage),
		bind(Quit, k("ctrl+c"), "ctrl+c", "quit", "leave; nothing is started", ConfirmPage),
	}
}

func commonKeys() []Binding {
	return []Binding{
		quiet(bind(Up, k("up", "k"), "up k", "up", "move or scroll up", scrolls...)),
		quiet(bind(Down, k("down", "j"), "down j", "down", "move or scroll down", scrolls...)),
		quiet(bind(PageUp, k("pgup", "ctrl+b"), "pgup", "page up", "scroll a page up", scrolls...)),
		quiet(bind(PageDown, k("pgdown", "ctrl+f", " "), "pgdown", "page down", "scroll a page down", scrolls...)),
		quiet(bind(Top, k("home", "g"), "home g", "top", "to the first line", scrolls...)),
		quiet(bind(Bottom, k("end", "G"), "end G", "bottom", "to the last line", scrolls...)),
		bind(Back, k("esc"), "esc", "back", "leave this page; never changes or ends anything", NodeDetail, SyncScreen, EventsScreen, CommandsScreen, DoctorScreen, HelpScreen, CheckPage, ReportPage),
		quiet(bind(Back, k("esc"), "esc", "back", "leave; the operation goes on", Overview, RunPage)),
		quiet(bind(Theme, k("T"), "T", "theme", "next colour scheme")),
		quiet(bind(Redraw, k("ctrl+l"), "ctrl+l", "redraw", "draw the screen anew")),
		quiet(bind(Suspend, k("ctrl+z"), "ctrl+z", "suspend", "back to the shell; fg returns")),
		bind(Help, k("?", "f1"), "?", "help", "this list, with the reason why a key does not work now"),
		bind(Quit, k("q", "ctrl+c"), "q", "quit", "leave; asks while an operation you started still runs"),
	}
}

// Match finds what a key means on a screen. Pasted text never means anything. The first binding in the table wins, so a
// page's own keys come before the common ones.
func Match(s Screen, m tea.KeyMsg) (Binding, bool) {
	if m.Paste {
		return Binding{}, false
	}
	for _, b := range Bindings {
		if b.On(s) && key.Matches(m, b.Binding) {
			return b, true
		}
	}
	return Binding{}, false
}

// For lists the bindings of a screen, common ones included.
func For(s Screen) []Binding {
	var out []Binding
	for _, b := range Bindings {
		if b.On(s) {
			out = append(out, b)
		}
	}
	return out
}
