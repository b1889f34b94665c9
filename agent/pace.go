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

// untilBeat is how long to wait until the clock shows the next multiple of period, and no less than half of it: whoever looks again
// and again does it when the others do, because what an idle agent costs is how often it wakes.
func untilBeat(period time.Duration) time.Duration {
	d := period - time.Duration(time.Now().UnixNano())%period
	if d < period/2 {
		d += period
	}
	return d
}

// stackShare is what looks at one resource's stack may take now.
func (a *Agent) stackShare() float64 {
	share := idleShare
	if a.hub.watched() {
		share = watchedShare
	}
	return share / float64(len(a.resources))
}
