// Command shots draws the screenshots of the README and plays recordings in the real cockpit:
//
//	go run ./tui/internal/shots                       draws screenshots/*.svg
//	go run ./tui/internal/shots draw FOLDER           the same, elsewhere
//	go run ./tui/internal/shots play [FILE | --still | --fail | --stale | --new]
//	go run ./tui/internal/shots record FILE.ndjson    writes the demonstration recording
//
// The pictures come from the program's own View over the states of package scene, never from a drawing program.
package main
