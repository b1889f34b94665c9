// Package session carries the control messages of package proto between a cockpit and an agent, and between the two
// agents of a pair. SPEC.md beside this file describes what is on the wire.
//
// A Session lives on one byte stream (a Unix socket, the standard streams of ssh, TLS over TCP). It begins with a
// prologue in which both sides name themselves and agree on a version; after that yamux carries one request per stream.
// Both sides may call and both may serve: Session is a Caller, and a Mux answers what the other side asks.
//
// State: a Session owns its connection; nobody else may read, write or close it. A Mux is filled before it is used and
// is read-only afterwards. A Keeper owns the session it keeps.
//
// Goroutines: each Session runs an accept loop and a keep-alive, and yamux a reader and a writer. Each request being
// served has a goroutine for the handler and one that reads, because in yamux only a read notices that the other side
// has gone. A handler must return soon after its context ends; Wait and Serve wait for all of them. A Keeper runs one
// goroutine until Close.
//
// MemoryPair makes two sessions in one process without yamux, for tests inside testing/synctest: yamux keeps timers in
// a package-level pool, which a second bubble in the same process must not touch.
package session
