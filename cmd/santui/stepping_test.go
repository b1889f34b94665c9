package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"example.com/santui/proto"
)

func TestAskerChooses(t *testing.T) {
	paused := proto.Op{State: proto.OpPaused, Choices: []proto.Choice{proto.ChoiceResume, proto.ChoiceUndo}, Steps: []proto.StepStatus{
		{Step: proto.Step{Index: 1, Node: "otter", Argv: []string{"umount", "/mnt"}}, Result: proto.StepResult{State: proto.StepDone}},
		{Step: proto.Step{Index: 2, Node: "otter", Argv: []string{"drbdadm", "secondary", "r0"}, Internal: true}, Result: proto.StepResult{State: proto.StepWaiting}}}}
	stopped := proto.Op{State: proto.OpStopped, Outcome: "step 2 failed", Choices: []proto.Choice{proto.ChoiceUndo, proto.ChoiceRetry, proto.ChoiceKeep}}
	for _, tt := range []struct {
		name  string
		op    proto.Op
		typed string
		want  proto.Choice
		says  string
	}{
		{"return goes on", paused, "\n", proto.ChoiceResume, "step 2 on otter: drbdadm secondary r0  (inside the agent)"},
		{"a letter", paused, "u\n", proto.ChoiceUndo, "resume (return), undo?"},
		{"a word after nonsense", stopped, "x\nkeep\n", proto.ChoiceKeep, "step 2 failed"},
		{"return decides nothing when a step failed", stopped, "\nr\n", proto.ChoiceRetry, "undo, retry, keep?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			got, err := newAsker(strings.NewReader(tt.typed), &out).choose(t.Context(), tt.op)
			if err != nil || got != tt.want || !strings.Contains(out.String(), tt.says) {
				t.Errorf("%q, %v; asked:\n%s", got, err, out.String())
			}
		})
	}
	if _, err := newAsker(strings.NewReader("x\n"), io.Discard).choose(t.Context(), stopped); !errors.Is(err, errNobody) {
		t.Errorf("at the end of the input: %v", err)
	}
}
