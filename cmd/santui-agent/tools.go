package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/santui/agent"
	"example.com/santui/cmd/internal/cli"
	"example.com/santui/datapath/meta"
)

// describeMD words the superblock for people. It changes nothing: an activity log that waits to be applied stays so.
func describeMD(dev *agent.Backing) (string, error) {
	md, err := meta.Open(dev.Disk, meta.OpenOptions{MetaDisk: dev.MetaDisk})
	if err != nil {
		return "", err
	}
	sb := md.Superblock()
	var b strings.Builder
	fmt.Fprintf(&b, "version      v08\nla-size      %d bytes\n", sb.AgreedSize)
	fmt.Fprintf(&b, "current      %016X\nbitmap       %016X\nhistory      %016X %016X\n",
		sb.UUIDs.Current, sb.UUIDs.Bitmap, sb.UUIDs.History[0], sb.UUIDs.History[1])
	fmt.Fprintf(&b, "flags        %s\nout of sync  %d KiB\nactivity log %s\n", sb.Flags, md.Bitmap().Weight()*4,
		map[bool]string{true: "must be applied", false: "clean"}[md.NeedsApplyAL()])
	if bad := md.Damage(); bad != "" {
		fmt.Fprintf(&b, "damaged      %s\n", bad)
	}
	return b.String(), nil
}

// bundle adds what the running agent says and the newest journal entries. An agent that does not answer is said to be so.
func bundle(ctx context.Context, cfg agent.Config, w io.Writer) error {
	snap, err := look(ctx, cfg)
	if err != nil {
		_, _ = fmt.Fprintf(w, "\nno answer of a running agent: %v\n", err)
	} else {
		_, _ = fmt.Fprintln(w, "\nsnapshot:")
		if err := cli.PrintJSON(w, snap); err != nil {
			return err
		}
	}
	names, err := filepath.Glob(filepath.Join(cfg.StateDir, "ops", "*.json"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names[max(0, len(names)-5):] {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(w, "\n%s:\n%s", name, b)
	}
	return nil
}
