package main

import (
	"bytes"
	"fmt"
	"os"

	"example.com/santui/datapath/conformance"
)

const (
	memory = "datapath/conformance/results.jsonl"
	table  = "datapath/CONFORMANCE.md"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "merge:", err)
		os.Exit(1)
	}
}

// run is to be called in the repository's root.
func run(files []string) error {
	var all []conformance.Result
	for _, name := range append([]string{memory}, files...) {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		part, err := conformance.Read(bytes.NewReader(b))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, part...)
	}
	all = conformance.Merge(all)
	var b bytes.Buffer
	if err := conformance.Write(&b, all); err != nil {
		return err
	}
	if err := os.WriteFile(memory, b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(table, []byte(conformance.Markdown(all)), 0o644)
}
