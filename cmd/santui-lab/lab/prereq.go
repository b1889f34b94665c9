package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// sshdCache holds an unpacked, not installed, openssh-server.
const sshdCache = "/var/cache/santui-lab/openssh-server"

// policyFile decides whether a package's installation may start services (Debian policy 9.11, invoke-rc.d).
const policyFile = "/usr/sbin/policy-rc.d"

// packages maps a file each package brings to the package's name.
var packages = [][2]string{
	{"/usr/bin/linux.uml", "user-mode-linux"},
	{"/usr/sbin/ip", "iproute2"},
	{"/bin/busybox", "busybox-static"},
	{"/usr/bin/ssh", "openssh-client"},
	{"/sbin/lvm", "lvm2"},
	{"/usr/sbin/thin_check", "thin-provisioning-tools"},
	{"/usr/sbin/drbdadm", "drbd-utils"},
	{"/sbin/mkfs.ext4", "e2fsprogs"},
	{"/sbin/mkfs.xfs", "xfsprogs"},
	{"/usr/lib/x86_64-linux-gnu/libwrap.so.0", "libwrap0"},
}

// ErrPrerequisite: this machine lacks something the lab needs.
var ErrPrerequisite = errors.New("lab: a prerequisite is missing")

func missingPackages() []string {
	var names []string
	for _, p := range packages {
		if _, err := os.Stat(p[0]); err != nil {
			names = append(names, p[1])
		}
	}
	return names
}

// findSSHD returns the sshd that runs in the nodes: the host's, or the one Install unpacked.
func findSSHD() (string, error) {
	for _, name := range []string{"/usr/sbin/sshd", sshdCache + "/usr/sbin/sshd"} {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	return "", fmt.Errorf("%w: no sshd for the nodes: run santui-lab install", ErrPrerequisite)
}

// Check reports what is missing, as an ErrPrerequisite that says how to get it. It changes nothing.
func Check() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: root is needed for network namespaces and taps; nothing outside the lab's own namespace is touched", ErrPrerequisite)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("%w: %w: the nodes' network cards are taps", ErrPrerequisite, err)
	}
	if missing := missingPackages(); len(missing) > 0 {
		return fmt.Errorf("%w: packages %s: run santui-lab install", ErrPrerequisite, strings.Join(missing, " "))
	}
	_, err := findSSHD()
	return err
}

// Install gets what Check misses from the machine's own package source and says what it does. No service is started:
// packages are installed under a policy that forbids it, and of openssh-server only the files are unpacked, below
// /var/cache/santui-lab, for the nodes.
func Install(ctx context.Context, out io.Writer) error {
	if os.Geteuid() != 0 {
		return Check()
	}
	missing := missingPackages()
	_, noSSHD := findSSHD()
	if len(missing) == 0 && noSSHD == nil {
		return Check()
	}
	_, _ = fmt.Fprintln(out, "santui-lab: apt-get update")
	if err := aptGet(ctx, "", "update", "-q"); err != nil {
		_, _ = fmt.Fprintf(out, "santui-lab: going on with the package lists as they are: %v\n", err)
	}
	if len(missing) > 0 {
		_, _ = fmt.Fprintf(out, "santui-lab: installing %s (no service is started)\n", strings.Join(missing, " "))
		if err := installQuietly(ctx, missing); err != nil {
			return err
		}
	}
	if noSSHD != nil {
		_, _ = fmt.Fprintf(out, "santui-lab: unpacking openssh-server into %s (not installed; it runs in the nodes only)\n", sshdCache)
		if err := unpackSSHD(ctx); err != nil {
			return err
		}
	}
	return Check()
}

func aptGet(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: apt-get %s: %w: %s", ErrPrerequisite, strings.Join(args, " "), err, lastLines(string(text), 5))
	}
	return nil
}

// installQuietly installs packages with every service kept from starting, unless the machine has a policy of its own.
func installQuietly(ctx context.Context, names []string) error {
	f, err := os.OpenFile(policyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		return fmt.Errorf("lab: %w", err)
	default:
		defer func() { _ = os.Remove(policyFile) }()
		_, err := f.WriteString("#!/bin/sh\nexit 101\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return aptGet(ctx, "", append([]string{"install", "-y", "-q", "--no-install-recommends"}, names...)...)
}

func unpackSSHD(ctx context.Context) error {
	temp, err := os.MkdirTemp("", "santui-lab-deb-")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := aptGet(ctx, temp, "download", "openssh-server"); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(temp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("%w: apt-get download openssh-server left %d packages", ErrPrerequisite, len(debs))
	}
	if err := os.MkdirAll(sshdCache, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return hostRun(ctx, "", "dpkg-deb", "-x", debs[0], sshdCache)
}
