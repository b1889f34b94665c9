package op

import (
	"context"

	"example.com/santui/proto"
)

// Node is what an operation needs of one agent; the local agent and the peer behind its control link both implement it.
// Every method returns *proto.Error where the caller can act on the code. Implementations are safe for concurrent use.
type Node interface {
	// Name is the node's name as drbd.conf spells it.
	Name() string
	// Observe reads the resource and its stack afresh; targets are mount points to look at.
	Observe(ctx context.Context, req proto.ObserveRequest) (proto.Observation, error)
	// Step does one step (or its inverse, or only validates it) and reads the state back. It is idempotent: what is
	// already so is reported as StepAlready. An error in the result is final for this attempt.
	Step(ctx context.Context, req proto.PeerStepRequest) proto.StepResult
	// Lock takes the pair's operation lock on this node, Unlock gives it back. Both are idempotent per operation id.
	Lock(ctx context.Context, l proto.Lock) error
	Unlock(ctx context.Context, l proto.Lock) error
	// Journal stores the operation durably.
	Journal(ctx context.Context, o proto.Op) error
}
