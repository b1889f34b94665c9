// Package wizard is the guided failover: CHECK, PLAN, CONFIRM, RUN, REPORT. It is a state machine without I/O: keys and
// answers go in, requests come out, and the root model carries them out. The operation itself lives on the agents; the
// wizard asks for it, watches it, and passes decisions on, so leaving it never stops anything.
//
// Begin, the request that starts an operation, is made in one place only: the enter key on the Start button of the third
// page, with the pair's name typed and every soft veto ticked.
package wizard
