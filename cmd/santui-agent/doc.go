// Command santui-agent is the daemon of one node and its small tools: run, connect (what a cockpit starts over ssh),
// check-config, create-md, dump-md, wait-connect (for boot), support-bundle and version. All state is the agent package's.
package main
