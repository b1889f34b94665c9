//go:build unix

package session

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the program in a process group of its own: a ctrl-c in the terminal must not cut the link of an
// operation, and what the program started (ssh's ProxyCommand) can be killed with it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
