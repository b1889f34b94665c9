// Command cmd plays recordings in the real cockpit and draws the screenshots:
//
//	go run ./tui/internal/shots/cmd play [FILE.ndjson | --still | --fail | --stale | --new]   the cockpit over a recording
//	go run ./tui/internal/shots/cmd record FILE.ndjson   writes the demonstration recording
//	go run ./tui/internal/shots/cmd draw FOLDER          draws the screenshots as SVG
package main

import (
	"context"
	"fmt"
	"os"

	"example.com/santui/tui"
	"example.com/santui/tui/internal/scene"
	"example.com/santui/tui/internal/shots"
	"example.com/santui/tui/source"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

const usage = "usage: play [FILE.ndjson] | record FILE.ndjson | draw FOLDER"

func run(args []string) (int, error) {
	switch {
	case len(args) == 1 && args[0] == "--help":
		fmt.Println(usage)
		return 0, nil
	case len(args) >= 1 && args[0] == "play":
		return play(args[1:])
	case len(args) == 2 && args[0] == "record":
		return status(record(args[1]))
	case len(args) == 2 && args[0] == "draw":
		return status(shots.Draw(args[1]))
	}
	return 2, fmt.Errorf("%s", usage)
}

func status(err error) (int, error) {
	if err != nil {
		return 1, err
	}
	return 0, nil
}

func record(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := source.WriteRecords(f, scene.Film(40, false)); err != nil {
		return err
	}
	return f.Close()
}

// still are scenes that play shows instead of a film.
var still = map[string]func() []source.Record{
	"--still": func() []source.Record { return scene.Static(scene.InSync(), false) },
	"--fail":  func() []source.Record { return scene.Static(scene.InSync(), true) },
	"--stale": func() []source.Record { return scene.Static(scene.StalePrimary(), false) },
	"--new":   func() []source.Record { return scene.Static(scene.NewPair(), false) },
}

func play(args []string) (int, error) {
	records := scene.Film(40, false)
	if len(args) > 0 {
		if make, ok := still[args[0]]; ok {
			records = make()
		} else {
			f, err := os.Open(args[0])
			if err != nil {
				return 2, err
			}
			defer func() { _ = f.Close() }()
			if records, err = source.ReadRecords(f); err != nil {
				return 2, err
			}
		}
	}
	return tui.Run(context.Background(), source.NewReplay(records, 1), tui.Options{Pair: "store-1", Owner: "root@laptop", StateDir: os.TempDir()})
}
