// Package cli is what santui's programs share: exit codes, the way errors are printed, and the configuration of pairs.
// It owns no state and starts no goroutine.
package cli
