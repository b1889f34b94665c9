// Package tui is the cockpit: a Bubble Tea program that shows both nodes of a pair side by side and guides through
// what makes, moves or mends it: set-up, failover, drill, takeover, rejoin, the end of a split brain, the undoing of what was
// left half way, LVM's configuration. It knows agents only through package source; what it shows is derived by package view.
//
// State: the root Model owns everything that is on the screen; only its Update changes it. It decides nothing about the
// pair: operations live on the agents and go on when the cockpit ends, however it ends.
//
// Goroutines: Bubble Tea's own, one command that waits for the source's updates, the commands of requests under way
// (each with a deadline or the lifetime of its screen), and one that waits for signals. All end with Run. Each is
// started through package safe, so that a panic gives the terminal back.
package tui
