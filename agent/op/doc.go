// Package op runs operations on a resource with everything that sits on it: failover and drill, takeover and rejoin, and
// resolve after a split brain.
//
// Checks and plans are pure functions of what both agents observe now, so they can be computed again after any
// interruption: a step whose effect is already there counts as done. The Runner executes a plan on the agent of its node
// To, whose copy is the good one afterwards, and drives both nodes through the Node interface. Nothing is promoted without
// a statement of the other node, at most two seconds old, that it is Secondary; in a takeover, without proof that the other
// node is still silent on both links, and the operator's recorded statement that it is off.
//
// While no node is Primary, a failover brings the service up (cold.go): what that is the agents remember, and the plan says who
// of them. A memory loses nothing within the minutes in which a node shuts down.
//
// What agent.toml adds to a resource (addresses, scripts, units, exports) stands around the stack: taken down before it,
// brought up after it. The plan takes it from the node To; that the other node's file says the same is a check, and each
// agent does only what its own file names.
//
// An operation whose agent died is found orphaned in the journal. The same verb again carries on from what is there now;
// Decide with ChoiceUndo runs the inverses. Lineage compares histories as the engine does, so both agents can call a split
// brain by its name although only one side's handshake got far enough to see it.
//
// State: each Op is owned by the one goroutine that runs it (Runner.Start starts it, Runner.Close waits for it).
// Everybody else sees copies, published and written to the journal of both agents before each step begins, and when
// something else changes; the end of a step that went well shows with the beginning of the next one. The Journal keeps one
// JSON file an operation, replaced atomically, and in its folder known what is needed when nobody can be asked any more: the
// peer's last stack and this node's own, the time of the last sync, the pair's need of a rejoin.
package op
