// Command santui-lab runs two Linux kernels as processes of this machine, with a network between them and a disk each,
// and everything on them that a storage node has: device-mapper, NBD, DRBD, file systems. It is for development and for
// anyone whose own kernel lacks them. The machinery is package lab; this program gives it verbs:
//
//	santui-lab up | status | sh NODE [CMD...] | cut | heal | kill NODE | start NODE | stop NODE | down | demo | install
//
// up leaves the nodes running in sessions of their own; the other verbs find them by the record in the lab's directory
// (--dir). demo needs no up: it makes a lab of its own and removes it.
package main
