// Package demo runs a whole pair on one machine: two agents, each its own process with its own mount namespace and a
// disk file, replicating over the loopback interface.
//
// A Pair owns its directory, the two processes and everything they mount; Close takes all of it away again, in order,
// also after a failure half way. What works in the file system is named, and waited for, for half a minute. The agents
// get TERM when the process that started them dies. One goroutine an agent waits for its end.
package demo
