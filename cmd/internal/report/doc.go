// Package report writes what the agents remember of an operation, or of many, as text, Markdown or HTML.
//
// Operation and History turn the agents' values into a Page; each format writes any Page. Everything in those values may be
// somebody else's text: it is cleaned once, here, and each format escapes it by its own rules. An HTML page is one file that
// loads nothing and runs nothing. The package owns no state and starts no goroutine.
package report
