// Package view derives what is true of the pair from what each agent says, and puts it into words: who is Primary, what
// is old, what endangers the data, what can be done next and, if not, why not. The cockpit's screens and the command
// line's text status read the same values, so they cannot disagree. Pure: no clock, no I/O, no goroutine; ages are
// computed from the receiver's own clock, never from an agent's.
package view
