package lvmops

import (
	"context"
	"path/filepath"
	"strings"
)

// remember keeps what Glance looks for.
func (o *Ops) remember(f *family, mine []mount) {
	known := make(map[devno]bool, len(f.devices))
	for no := range f.devices {
		known[no] = true
	}
	for _, m := range mine {
		known[m.sb] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shown[f.node] = known
}

// Glance returns a text that changes with most of what Stack would find, and costs next to nothing however many volumes and
// processes there are: the volume group's metadata, what holds the device, the mounts of what the last look found, swap
// areas. Processes, other mount namespaces and the kernel's exports are not in it.
func (o *Ops) Glance(ctx context.Context, node string) string {
	o.mu.Lock()
	known := o.shown[node]
	o.mu.Unlock()
	var b strings.Builder
	if head, err := o.readHead(ctx, node); err != nil {
		b.WriteString(err.Error())
	} else if l := pvLabel(head); l != nil {
		b.Write(l.mark)
	} else {
		b.WriteString(sniff(head))
	}
	if ma, mi, err := o.opt.DeviceNumber(node); err == nil {
		dir := filepath.Join(o.opt.Sys, "dev/block", devno{ma, mi}.String())
		b.WriteString("\n" + strings.Join(entries(filepath.Join(dir, "holders")), " ") + "\n")
	}
	table, err := readBounded(filepath.Join(o.opt.Proc, "self/mountinfo"), maxMountinfo)
	if err != nil {
		b.WriteString(err.Error())
	}
	for line := range strings.Lines(string(table)) {
		// The third word is the file system's number (proc(5)); btrfs has ones that no device has.
		f := strings.SplitN(line, " ", 4)
		if no, ok := parseDevno(f[min(2, len(f)-1)]); ok && (known[no] || strings.Contains(line, " - btrfs ")) {
			b.WriteString(line)
		}
	}
	swaps, err := o.swaps()
	if err != nil {
		b.WriteString(err.Error())
	}
	b.WriteString(strings.Join(swaps, "\n"))
	return b.String()
}
