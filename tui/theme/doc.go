// Package theme holds what the cockpit looks like: colours times glyphs, built once per program on a renderer of its
// own, so nothing here touches lipgloss's globals. State is told by word, then by shape, then by colour: without
// colour, bold and reverse everything is still said. The default pairs blue with orange; no distinction rests on red
// against green. Pure; runs no goroutine.
package theme
