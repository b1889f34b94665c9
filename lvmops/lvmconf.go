package lvmops

import (
	"fmt"
	"slices"
	"strings"
)

// confSpan is where a setting stands in the text of an lvm.conf.
type confSpan struct {
	valueAt, valueEnd int // of its value
	values            []string
}

// confScan finds what the doctor needs in an lvm.conf (lvm.conf(5)): where section devices begins, and a setting in it,
// in either spelling (`devices { key = ...` or `devices/key = ...`). Of a setting that is there twice the last one counts.
func confScan(text, key string) (section int, found *confSpan, err error) {
	section = -1
	var stack []string
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '#':
			i = lineEnd(text, i)
		case c == '"' || c == '\'':
			if i, err = stringEnd(text, i); err != nil {
				return section, nil, err
			}
		case c == '}':
			if len(stack) == 0 {
				return section, nil, fmt.Errorf("a } without { at byte %d", i)
			}
			stack = stack[:len(stack)-1]
			i++
		case isIdent(c):
			end := i
			for end < len(text) && isIdent(text[end]) {
				end++
			}
			name, next := text[i:end], skipBlank(text, end)
			i = end
			if next < len(text) && text[next] == '{' {
				if name == "devices" && len(stack) == 0 {
					section = next + 1
				}
				stack = append(stack, name)
				i = next + 1
			} else if next < len(text) && text[next] == '=' && strings.Join(append(slices.Clone(stack), name), "/") == "devices/"+key {
				if found, err = confValue(text, skipBlank(text, next+1)); err != nil {
					return section, nil, err
				}
				i = found.valueEnd
			}
		default:
			i++
		}
	}
	if len(stack) > 0 {
		return section, nil, fmt.Errorf("section %s is not closed", stack[len(stack)-1])
	}
	return section, found, nil
}

// confValue reads a value that is a string or an array of strings.
func confValue(text string, at int) (*confSpan, error) {
	s := &confSpan{valueAt: at, valueEnd: at}
	array := at < len(text) && text[at] == '['
	i := at
	if array {
		i++
	}
	for i < len(text) {
		switch c := text[i]; {
		case c == '#':
			i = lineEnd(text, i)
		case c == '"' || c == '\'':
			end, err := stringEnd(text, i)
			if err != nil {
				return nil, err
			}
			s.values = append(s.values, text[i+1:end-1])
			i = end
			if !array {
				s.valueEnd = end
				return s, nil
			}
		case c == ']' && array:
			s.valueEnd = i + 1
			return s, nil
		case array && (c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			i++
		default:
			return nil, fmt.Errorf("the value at byte %d is neither a string nor a list of strings", at)
		}
	}
	return nil, fmt.Errorf("the value at byte %d does not end", at)
}

func isIdent(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '/' || c == '.'
}

func lineEnd(text string, i int) int {
	if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
		return i + n
	}
	return len(text)
}

func stringEnd(text string, i int) (int, error) {
	for j := i + 1; j < len(text); j++ {
		switch text[j] {
		case '\\':
			j++
		case text[i]:
			return j + 1, nil
		}
	}
	return 0, fmt.Errorf("the string at byte %d does not end", i)
}

// skipBlank skips blanks, line breaks and comments.
func skipBlank(text string, i int) int {
	for i < len(text) {
		switch text[i] {
		case ' ', '\t', '\n', '\r':
			i++
		case '#':
			i = lineEnd(text, i)
		default:
			return i
		}
	}
	return i
}

// confReject returns the text with patterns put first in devices/global_filter. What is there stays, after them.
func confReject(text string, patterns []string) (string, error) {
	section, found, err := confScan(text, "global_filter")
	if err != nil {
		return "", err
	}
	all := slices.Clone(patterns)
	if found != nil {
		for _, v := range found.values {
			if !slices.Contains(all, v) {
				all = append(all, v)
			}
		}
	}
	quoted := make([]string, len(all))
	for i, p := range all {
		quoted[i] = `"` + p + `"`
	}
	value := "[ " + strings.Join(quoted, ", ") + " ]"
	line := "\n\t# the disks behind replicated devices, written by santui doctor\n\tglobal_filter = " + value
	switch {
	case found != nil:
		return text[:found.valueAt] + value + text[found.valueEnd:], nil
	case section >= 0:
		return text[:section] + line + text[section:], nil
	case text == "" || strings.HasSuffix(text, "\n"):
		return text + "devices {" + line + "\n}\n", nil
	default:
		return text + "\ndevices {" + line + "\n}\n", nil
	}
}

// rejectPattern is the filter pattern that rejects exactly one name. What regular expressions treat specially becomes a
// dot, which matches it too.
func rejectPattern(name string) string {
	plain := strings.Map(func(r rune) rune {
		if strings.ContainsRune(`.+*?[](){}|\^$"'`, r) || r < ' ' {
			return '.'
		}
		return r
	}, name)
	return "r|^" + plain + "$|"
}

// diffLines shows a change of a text whose beginning and end stayed: the lines that went and came, with a line of
// context.
func diffLines(before, after string) []string {
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var out []string
	if head > 0 {
		out = append(out, " "+a[head-1])
	}
	for _, l := range a[head : len(a)-tail] {
		out = append(out, "-"+l)
	}
	for _, l := range b[head : len(b)-tail] {
		out = append(out, "+"+l)
	}
	if tail > 0 {
		out = append(out, " "+a[len(a)-tail])
	}
	for i := range out {
		out[i] = Printable(cut(out[i], 512))
	}
	return out[:min(len(out), 64)]
}
