//go:build !linux

package datapath

import (
	"errors"
	"syscall"
)

func tcpInfo(syscall.Conn) (tcp, error) { return tcp{}, errors.ErrUnsupported }
