// Package exporttest has backends for tests of front ends: a device in memory
// that counts what reaches it, can fail and can stall, and a device that does
// nothing. Both are safe for concurrent use and start no goroutines.
package exporttest
