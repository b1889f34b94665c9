// Package conformance knows the behaviours of DRBD that this engine is measured by, and who showed each of them: tests
// say what they show (Ran), each run appends its results to a file, and the table CONFORMANCE.md is made of the newest
// result of each test. Nothing in the table is typed by hand.
//
//	SANTUI_CONFORMANCE=/tmp/results go test ./datapath/...
//	go run ./datapath/conformance/merge /tmp/results
//
// results.jsonl is the memory: one line per test, scenario and pairing. No goroutines, no state.
package conformance
