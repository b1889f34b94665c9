package agent

import "time"

// Looks that nobody asked for are so far apart that the time they take is this share of it: looks at all stacks while no
// cockpit watches and while one does, and each kind of look that takes programs, at each resource.
const (
	idleShare    = 0.004
	watchedShare = 0.04
	costlyShare  = 0.002
)

// freshShare is the share of a core that a look may take which somebody waits for.
const freshShare = 1

// longestPause ends the rule above: a look that takes longer than a second costs what it costs.
const longestPause = 5 * time.Minute

// paceOf is the time from one look to the next if each takes as long as cost.
func paceOf(cost time.Duration, share float64, least time.Duration) time.Duration {
	return min(max(time.Duration(float64(cost)/share), least), longestPause)
}

// stackShare is what looks at one resource's stack may take now.
func (a *Agent) stackShare() float64 {
	share := idleShare
	if a.hub.watched() {
		share = watchedShare
	}
	return share / float64(len(a.resources))
}
