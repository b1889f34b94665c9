//go:build !unix

package session

import "io/fs"

// privateMode cannot be told from mode bits here.
func privateMode(fs.FileMode) bool { return true }
