// Package quiet keeps a program that links Bubble Tea v1 from questioning the terminal before main.
//
// Bubble Tea v1 asks for the terminal's background colour in an init function and waits up to five seconds for the
// answer, so on a terminal that never answers even --help would stall. Answering the question beforehand, by telling
// lipgloss that the background is dark, makes it moot. It must happen before Bubble Tea's init runs: Go initialises
// packages whose imports are ready in the order of their import paths, so this package's path has to sort before
// github.com/charmbracelet/bubbletea and it may import nothing that Bubble Tea does not need itself. A test on a silent
// terminal holds that. Which colours are used is decided later, by package theme.
package quiet
