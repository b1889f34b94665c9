//go:build !linux

package demo

import (
	"errors"
	"os"
	"syscall"
)

// ownNamespace is never reached: Needs refuses every system but Linux before anything is started.
func ownNamespace() *syscall.SysProcAttr { return nil }

// claim is never reached either.
func claim(string) (*os.File, error) { return nil, errors.ErrUnsupported }
