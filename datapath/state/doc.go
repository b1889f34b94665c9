// Package state decides what a replicated resource does: Step takes the state of one node and an event, and gives the
// next state and the effects. It does no I/O, knows no clock, makes no random numbers and starts no goroutine; the
// owner goroutine of package datapath holds the State and carries the effects out.
package state
