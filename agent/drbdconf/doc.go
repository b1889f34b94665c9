// Package drbdconf reads drbd.conf: DRBD 8.4's syntax for two nodes with one volume, and the dialect of DRBD 0.7.
//
// A file that says something wrong is refused with every mistake's place, the line, and a hint. A file that says
// something right which this version of santui does not do is read: the resource then carries a Finding, and whoever
// uses it must ask Refused first. What a program outside would have to be run for (handlers, incon-degr-cmd) is read
// and never run.
//
// The grammar and its limits are those of drbd-utils, user/v84/drbdadm_scanner.fl and drbdadm_parser.c; ranges and
// defaults those of user/v84/linux/drbd_limits.h. The 0.7 dialect is that of drbd 0.7's user/drbdadm_scanner.fl.
//
// The package owns no state and starts no goroutine. A Config does not change after Parse.
package drbdconf
