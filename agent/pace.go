package agent

import "time"

// Looks that nobody asked for take no more than these shares of a core, all together less than one percent: looks at the
// stacks while no cockpit watches and while one does, and at what takes programs to find.
const (
	idleShare    = 0.004
	watchedShare = 0.04
	costlyShare  = 0.002
)

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
