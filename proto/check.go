package proto

import "time"

// CheckResult is the outcome of one check.
type CheckResult string

// The outcomes. A check that could not be evaluated is never OK: it is Unknown, and Unknown blocks like Fail.
const (
	CheckOK      CheckResult = "ok"
	CheckWarn    CheckResult = "warn"
	CheckFail    CheckResult = "fail"
	CheckUnknown CheckResult = "unknown"
)

// Check is one coded condition with its evidence. The table of all codes is in codes.go.
type Check struct {
	Code     string      `json:"code"`
	Node     string      `json:"node,omitempty"` // the node it is about
	Result   CheckResult `json:"result"`
	Hard     bool        `json:"hard"` // a veto that this verb never overrides
	Title    string      `json:"title"`
	Evidence []string    `json:"evidence,omitempty"`
	Remedy   string      `json:"remedy,omitempty"`
}

// Blocks says whether the check is a veto.
func (c Check) Blocks() bool { return c.Result == CheckFail || c.Result == CheckUnknown }

// CheckList is the outcome of all checks for one move.
type CheckList struct {
	Schema   string    `json:"schema"`
	Verb     Verb      `json:"verb"`
	Resource string    `json:"resource"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	At       time.Time `json:"at"`
	Checks   []Check   `json:"checks"`
}

// Ready says whether nothing blocks.
func (l CheckList) Ready() bool { return len(l.Blocking()) == 0 }

// Blocking returns the vetoes, hard ones first.
func (l CheckList) Blocking() []Check {
	var hard, soft []Check
	for _, c := range l.Checks {
		switch {
		case c.Blocks() && c.Hard:
			hard = append(hard, c)
		case c.Blocks():
			soft = append(soft, c)
		}
	}
	return append(hard, soft...)
}
