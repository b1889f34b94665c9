// Package blocktest has what tests of storage code need: Mem, a disk in memory that
// can lose power, Faults, which makes any Device fail on purpose, and Suite, which
// every Device must pass.
package blocktest
