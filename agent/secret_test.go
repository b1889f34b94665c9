package agent

import (
	"encoding/json"
	"strings"
	"testing"

	"example.com/santui/proto"
)

// TestConceal puts a secret wherever a program could put it.
func TestConceal(t *testing.T) {
	const secret, other = "FooFunFactory", "hunter2"
	text := "+ sh -c " + secret + `-x; shared-secret "` + other + `"; PASSWORD=` + other + ` passphrase: '` + other + `'`
	err := proto.Errorf(proto.CodeFailed, "%s", text).WithRemedy("%s", text)
	res := proto.StepResult{Now: text, Output: []string{text}, Err: err,
		Commands: []proto.Execution{{Argv: []string{"x", "--password=" + other, secret}, Output: []string{text}, Err: text}}}
	conceal(&res, [][]byte{nil, []byte("ab"), []byte(secret)})
	b, jerr := json.Marshal(res)
	if jerr != nil {
		t.Fatal(jerr)
	}
	if s := string(b); strings.Contains(s, secret) || strings.Contains(s, other) || strings.Count(s, "***") < 6 {
		t.Error(s)
	}
	if !strings.Contains(err.Text, secret) {
		t.Error("the error itself, which may be shared, was changed")
	}
	plain := proto.StepResult{Now: "0 logical volume(s) in volume group \"secret\" now active", Output: []string{"about abc"},
		Commands: []proto.Execution{{Argv: []string{"vgchange", "-an", "secret"}}}}
	conceal(&plain, [][]byte{[]byte("ab")})
	if plain.Now != "0 logical volume(s) in volume group \"secret\" now active" || plain.Output[0] != "about abc" || plain.Commands[0].Argv[2] != "secret" {
		t.Errorf("%+v", plain)
	}
}
