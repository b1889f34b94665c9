package lvmops

import (
	"fmt"
	"strings"
)

// maxName is the longest VG or LV name, NAME_LEN - 1 in LVM2's lib/metadata/metadata-exported.h.
const maxName = 127

// reservedLV are the names that lvm keeps for itself (lvm(8), "VALID NAMES").
var (
	reservedLVPrefix = []string{"snapshot", "pvmove"}
	reservedLVPart   = []string{"_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_iorig", "_imeta", "_mimage", "_mlog", "_pmspare",
		"_rimage", "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_wcorig"}
)

// CheckVGName applies LVM's rules (lvm(8), "VALID NAMES") to the name of a volume group.
func CheckVGName(name string) error { return checkName("volume group", name) }

// CheckLVName applies LVM's rules to the name of a new logical volume.
func CheckLVName(name string) error {
	if err := checkName("logical volume", name); err != nil {
		return err
	}
	for _, p := range reservedLVPrefix {
		if strings.HasPrefix(name, p) {
			return fmt.Errorf("logical volume name %q begins with %q, which lvm reserves", name, p)
		}
	}
	for _, p := range reservedLVPart {
		if strings.Contains(name, p) {
			return fmt.Errorf("logical volume name %q contains %q, which lvm reserves", name, p)
		}
	}
	return nil
}

func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s name is empty", what)
	case len(name) > maxName:
		return fmt.Errorf("%s name of %d bytes is longer than %d", what, len(name), maxName)
	case name[0] == '-':
		return fmt.Errorf("%s name %q begins with '-'", what, name)
	case name == "." || name == "..":
		return fmt.Errorf("%s name %q is reserved", what, name)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("+_.-", r):
		default:
			return fmt.Errorf("%s name %q contains %q; lvm allows a-z A-Z 0-9 + _ . -", what, name, r)
		}
	}
	return nil
}
