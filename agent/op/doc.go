// Package op runs operations: planned failovers of a resource with everything that sits on it.
//
// Checks and plans are pure functions of what both agents observe now, so they can be computed again after any
// interruption: a step whose effect is already there counts as done. The Runner executes a plan on the agent of the node
// that becomes Primary and drives both nodes through the Node interface.
//
// State: each Op is owned by the one goroutine that runs it (Runner.Start starts it, Runner.Close waits for it).
// Everybody else sees copies, published after every change and written to the journal of both agents before the next step
// begins. The Journal keeps one JSON file an operation, replaced atomically.
package op
