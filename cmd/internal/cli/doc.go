// Package cli is what santui's programs share: exit codes, the way errors are printed, and the configuration of pairs.
// It owns no state and starts no goroutine.
package cli

// Version is the version of the programs, set by the linker.
var Version = "0.1-dev"
