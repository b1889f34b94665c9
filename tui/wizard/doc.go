// Package wizard guides through every verb: CHECK, PLAN, CONFIRM, RUN, REPORT. It is a state machine without I/O: keys and
// answers go in, requests come out, and the root model carries them out. The operation itself lives on the agents; the
// wizard asks for it, watches it, and passes decisions on, so leaving it never stops anything.
//
// Begin, the request that starts an operation, the Watch that begins a set-up, and the Decide that undoes an operation which
// does not run any more are made in one place only: the enter key on the Start button of the third page, with the phrase typed and every soft veto ticked. The
// phrase is the pair's name; a takeover also takes FORCE and a statement how the other node is known to be off, the end of
// a split brain DISCARD and the node that loses.
package wizard
