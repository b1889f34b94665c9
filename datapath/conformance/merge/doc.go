// Command merge takes results of tests into datapath/conformance/results.jsonl and makes datapath/CONFORMANCE.md of them:
//
//	go run ./datapath/conformance/merge [RESULTS...]
//
// It runs in the repository's root, keeps no state beside these two files, and starts no goroutine.
package main
