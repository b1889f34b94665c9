package lvmops

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// packages are the packages whose version decides what a move may meet, and the question to one of its programs.
var packages = []struct{ name, tool, question string }{
	{"lvm2", "lvm", "version"},
	{"e2fsprogs", "mkfs.ext4", "-V"}, // answers on stderr
	{"xfsprogs", "mkfs.xfs", "-V"},
	{"util-linux", "mount", "--version"},
	{"thin-provisioning-tools", "thin_check", "--version"},
}

// version is what a program of some file has said of itself.
type version struct{ file, said string }

// ThinTools is the version of thin_check, which lvm runs when it activates a thin pool; "" if it is not installed. The
// program runs once for each version of its file.
func (o *Ops) ThinTools(ctx context.Context) (string, error) {
	return o.versionOf(ctx, "thin_check", "--version")
}

// Versions tells the versions of what is installed of LVM and the file systems' programs, by package. Each program runs once for
// each version of its file; one that does not say is left out.
func (o *Ops) Versions(ctx context.Context) map[string]string {
	out := map[string]string{}
	for _, p := range packages {
		said, err := o.versionOf(ctx, p.tool, p.question)
		if v := versionNumber.FindString(said); err == nil && v != "" {
			out[p.name] = v
		}
	}
	return out
}

var versionNumber = regexp.MustCompile(`[0-9]+\.[0-9][0-9A-Za-z.()+~-]*`)

// versionOf is what a program says of itself on one line, "" if it is not installed.
func (o *Ops) versionOf(ctx context.Context, tool, question string) (string, error) {
	path := o.Tools()[tool]
	if path == "" {
		return "", nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "", o.failed(err, "looking at %s", path)
	}
	file := fmt.Sprintf("%s %d %d", path, fi.Size(), fi.ModTime().UnixNano())
	o.mu.Lock()
	v := o.versions[tool]
	o.mu.Unlock()
	if v.file == file {
		return v.said, nil
	}
	res, err := o.run(ctx, nil, Cmd{Argv: []string{tool, question}, Limit: LimitLook})
	if err != nil {
		return "", o.failed(err, "asking %s for its version", tool)
	}
	said := Lines(res.Stdout)
	if len(said) == 0 {
		said = Lines(res.Stderr)
	}
	v = version{file, cut(strings.Join(said, " "), 64)}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[tool] = v
	return v.said, nil
}
