package conformance

import (
	"fmt"
	"strings"
	"time"
)

// Markdown makes the table of merged results.
func Markdown(results []Result) string {
	var b strings.Builder
	b.WriteString("# Conformance\n\nMade by `go run ./datapath/conformance/merge` of what tests wrote that ran; never edited. Names of scenarios are those of\n" +
		"DRBD's own test suite where it has them. \"kernel\" is DRBD 8.4's module in the lab. A cell holds the newest result of each\n" +
		"test that shows the scenario in that pairing; the tests are named below.\n\n| scenario | what |")
	for _, p := range Pairings {
		fmt.Fprintf(&b, " %s |", p)
	}
	b.WriteString("\n|---|---|---|---|---|\n")
	for _, s := range Scenarios {
		fmt.Fprintf(&b, "| %s | %s |", s.Name, s.About)
		for _, p := range Pairings {
			fmt.Fprintf(&b, " %s |", cell(s, p, results))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## Who showed it\n\n| scenario | pairing | test | result | when |\n|---|---|---|---|---|\n")
	for _, x := range results {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", x.Scenario, x.Pairing, x.Test, word(x.Passed), x.At.Format(time.DateOnly))
	}
	return b.String()
}

func cell(s Scenario, p Pairing, results []Result) string {
	ran, failed := 0, 0
	for _, x := range results {
		if x.Scenario == s.Name && x.Pairing == p {
			ran++
			if !x.Passed {
				failed++
			}
		}
	}
	switch why := s.Not[p]; {
	case failed > 0:
		return "**failed**"
	case ran > 0:
		return "passed"
	case why != "":
		return "does not apply: " + why
	default:
		return "not run"
	}
}

func word(passed bool) string {
	if passed {
		return "passed"
	}
	return "**failed**"
}
