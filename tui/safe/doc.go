// Package safe starts goroutines and Bubble Tea commands that cannot leave the user's terminal raw. A panic in a
// goroutine of ours would end the process inside the alternate screen; started here it reaches the handler that the
// context carries, which restores the terminal first. It owns no state; its goroutines belong to the callers.
package safe
