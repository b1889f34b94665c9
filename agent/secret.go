package agent

import (
	"bytes"
	"regexp"
	"strings"

	"example.com/santui/proto"
)

// shortSecret is the length, bytes, below which a shared secret is too likely a part of ordinary words to be looked for.
const shortSecret = 4

// named finds values that announce themselves: password=x, shared-secret "x".
var named = regexp.MustCompile(`(?i)((?:password|passwd|passphrase|secret)["']?(?:\s*[=:]\s*["']?|\s+["']))[^\s"']+`)

// conceal takes secrets out of what a step has to tell, before it reaches a journal: the output of programs is kept on
// both nodes and copied into tickets.
func conceal(res *proto.StepResult, secrets [][]byte) {
	var pairs []string
	for _, s := range secrets {
		if s := string(bytes.TrimSpace(s)); len(s) >= shortSecret {
			pairs = append(pairs, s, "***")
		}
	}
	known := strings.NewReplacer(pairs...)
	clean := func(s string) string { return named.ReplaceAllString(known.Replace(s), "$1***") }
	all := func(in []string) []string {
		out := make([]string, len(in))
		for i, s := range in {
			out[i] = clean(s)
		}
		return out
	}
	res.Now, res.Output = clean(res.Now), all(res.Output)
	if res.Err != nil {
		e := *res.Err
		e.Text, e.Remedy = clean(e.Text), clean(e.Remedy)
		res.Err = &e
	}
	for i := range res.Commands {
		c := &res.Commands[i]
		c.Argv, c.Output, c.Err = all(c.Argv), all(c.Output), clean(c.Err)
	}
}

// secrets are those of all resources.
func (a *Agent) secrets() [][]byte {
	var out [][]byte
	for _, r := range a.resources {
		out = append(out, r.conf.datapath.Secret)
	}
	return out
}
