// Package clean makes text from elsewhere safe to draw. Output of programs, names of processes and mounts, and messages
// of agents may hold escape sequences that move the cursor, clear the screen or write the clipboard; whatever the
// cockpit shows passes through here first. Pure; owns no state, runs no goroutine.
package clean
