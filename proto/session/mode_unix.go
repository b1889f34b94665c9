//go:build unix

package session

import "io/fs"

// privateMode says whether only the owner may read the file.
func privateMode(m fs.FileMode) bool { return m.Perm()&0o077 == 0 }
