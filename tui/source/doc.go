// Package source brings what the agents know to the cockpit, and the cockpit's requests to the agents. Live speaks to
// real agents through package session; Replay plays a recorded file, for demonstrations, pictures and tests.
//
// State: a Live owns one session keeper per node. Goroutines: per node the keeper's own, one that watches while a
// session is up, and one per Watch that hands updates on; all end with the context that was given. A slow receiver gets
// only the newest snapshot of each node.
package source
