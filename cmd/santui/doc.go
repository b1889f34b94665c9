// Command santui is the cockpit over a pair of storage agents and the command line with the same abilities.
//
// Without a subcommand it opens the cockpit. Every subcommand works without a terminal, prints JSON with --json, and
// ends with one of the exit codes of cmd/internal/cli. All connections are made on demand; a watch runs one goroutine a
// node, which ends with the command.
package main
