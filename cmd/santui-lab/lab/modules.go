package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// defaultModules are loaded on every node, in this order of wish (dependencies are put before them).
var defaultModules = []string{
	"loop", "fuse", "nbd", "hmac", "sch_netem",
	"dm-mod", "dm-snapshot", "dm-thin-pool", "dm-mirror", "dm-flakey", "dm-log-writes", "dm-delay",
}

// moduleOptions are the load-time parameters of modules the lab does not take as they come.
var moduleOptions = map[string]string{"nbd": "nbds_max=16"}

// ErrNoModule: the kernel has the module neither as a file nor built in.
var ErrNoModule = errors.New("lab: no such kernel module")

// moduleTree is what modules.dep and modules.builtin (depmod's formats, see modules.dep(5)) say about one kernel.
type moduleTree struct {
	path    map[string]string   // name -> path below the module directory
	deps    map[string][]string // path -> paths it needs
	builtin map[string]bool
}

// moduleName turns a file name into the kernel's name for it: no directory, no suffix, '-' as '_'.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// parseModules reads modules.dep and modules.builtin.
func parseModules(dep, builtin io.Reader) (*moduleTree, error) {
	t := &moduleTree{path: map[string]string{}, deps: map[string][]string{}, builtin: map[string]bool{}}
	lines := bufio.NewScanner(dep)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, needs, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			return nil, fmt.Errorf("lab: modules.dep: no colon in %q", lines.Text())
		}
		t.path[moduleName(file)] = file
		t.deps[file] = strings.Fields(needs)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("lab: read modules.dep: %w", err)
	}
	lines = bufio.NewScanner(builtin)
	for lines.Scan() {
		t.builtin[moduleName(lines.Text())] = true
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("lab: read modules.builtin: %w", err)
	}
	return t, nil
}

// loadModules reads the module directory of the installed UML kernel.
func loadModules(dir string) (*moduleTree, error) {
	dep, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("lab: the UML kernel's modules: %w", err)
	}
	defer func() { _ = dep.Close() }()
	builtin, err := os.Open(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("lab: the UML kernel's modules: %w", err)
	}
	defer func() { _ = builtin.Close() }()
	return parseModules(dep, builtin)
}

// order returns the module files to insert, each after everything it needs, nothing twice. What is built in needs no
// file; a name that is neither is an ErrNoModule.
func (t *moduleTree) order(names ...string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	var add func(file string)
	add = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		for _, need := range t.deps[file] {
			add(need)
		}
		files = append(files, file)
	}
	for _, name := range names {
		name = moduleName(name)
		file, ok := t.path[name]
		switch {
		case ok:
			add(file)
		case !t.builtin[name]:
			return nil, fmt.Errorf("%w: %s", ErrNoModule, name)
		}
	}
	return files, nil
}

// insmodList is the text init.sh reads: one module file and its options a line.
func insmodList(files []string) string {
	var b strings.Builder
	for _, file := range files {
		fmt.Fprintln(&b, strings.TrimSpace(file+" "+moduleOptions[moduleName(file)]))
	}
	return b.String()
}

// findModuleDir returns the module directory of the newest UML kernel below root (/usr/lib/uml/modules).
func findModuleDir(root string) (string, error) {
	dirs, err := filepath.Glob(filepath.Join(root, "*", "modules.dep"))
	if err != nil || len(dirs) == 0 {
		return "", fmt.Errorf("lab: no UML kernel modules below %s: install the package user-mode-linux", root)
	}
	return filepath.Dir(dirs[len(dirs)-1]), nil
}
