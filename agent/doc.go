// Package agent is the headless daemon of one node: it brings the resources of drbd.conf up, watches what sits on them,
// answers cockpits and the peer agent, and runs operations.
//
// State and who owns it:
//
//   - each resource: its engine.Engine; the agent only asks.
//   - the readiness of each resource, and what the event list says of it: one goroutine (readyLoop), under Agent's mutex.
//   - the snapshot: the hub. One goroutine (hub.run) builds it when something changed and publishes an immutable value;
//     readers take it without locks.
//   - the volume stack of a resource: one goroutine a resource (stackLoop) reads it while this node is Primary. It glances
//     every few seconds and looks as often as a share of a core allows (pace.go), at once when a glance shows a change.
//     It and the readiness checks let the steps of an operation go first. A check that is asked for looks afresh at what can
//     have changed since, an operation at everything.
//   - the backing disk and the replication link of a resource: one goroutine a resource (guard) looks at them every few seconds.
//   - the operation lock and this node's copy of the journal: Agent, under its mutex.
//   - a running operation: op.Runner on the node that becomes Primary, or stays it.
//   - a drill's probe: one goroutine a mount point (probes), which ends with the unmount or with the operation's lock.
//   - the systemd inhibitor: one goroutine (inhibitor.run) follows the light "safe to power off" of the snapshot.
//   - what outlives the agent (both nodes' last stacks, roles, the need of a rejoin): op.Journal; Agent.track, Agent.seen and
//     whoever observes the peer tell it.
//   - the control link to the peer: this agent dials and calls, the peer's own link is served. One goroutine keeps the
//     outgoing session up; each incoming connection is served by one goroutine that ends with it.
//
// Agent.Run starts all of them and returns when all have ended.
package agent
