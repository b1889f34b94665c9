// Package scene makes states of a pair for pictures and tests: the same values feed the golden files, the screenshots
// and the demonstration recording, so none of them can show what the cockpit would not. Times are fixed. Pure.
package scene
