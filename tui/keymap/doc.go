// Package keymap is the one place where keys are defined: what they are called, on which screens they work, whether
// they lead to a change, and why they do not work right now. The key line, the help screen and the dispatch all read
// this table, so they cannot differ. No key changes anything by itself: the strongest opens a confirmation. Pure.
package keymap
