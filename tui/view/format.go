package view

import (
	"fmt"
	"math"
	"strings"
	"time"
)

var units = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// scale picks the unit in which n has at most four digits before the point.
func scale(n int64) (v float64, unit int) {
	v = float64(n)
	for math.Abs(v) >= 1000 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	return v, unit
}

func digits(v float64, unit int) string {
	switch a := math.Abs(v); {
	case unit == 0 || a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// Bytes writes a size: 0 B, 512 KiB, 1.31 TiB.
func Bytes(n int64) string {
	v, u := scale(n)
	return digits(v, u) + " " + units[u]
}

// Of writes a part of a whole in the whole's unit: 0.90 / 2.00 TiB.
func Of(part, whole int64) string {
	_, u := scale(whole)
	p, w := float64(part), float64(whole)
	for range u {
		p, w = p/1024, w/1024
	}
	return digits(p, u) + " / " + digits(w, u) + " " + units[u]
}

// Rate writes bytes a second.
func Rate(n int64) string { return Bytes(n) + "/s" }

// Speeds writes a present and a mean rate in one unit: 412 (398) MiB/s.
func Speeds(now, mean int64) string {
	_, u := scale(max(now, mean))
	n, m := float64(now), float64(mean)
	for range u {
		n, m = n/1024, m/1024
	}
	return digits(n, u) + " (" + digits(m, u) + ") " + units[u] + "/s"
}

// Clock writes a duration as h:mm:ss, as /proc/drbd does.
func Clock(seconds float64) string {
	if seconds < 0 || math.IsNaN(seconds) || seconds > 1e9 {
		return "unknown"
	}
	s := int64(math.Round(seconds))
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// Seconds writes how long a step took: 0.4 s, 31 s, 4:05 min.
func Seconds(s float64) string {
	switch {
	case s < 10:
		return fmt.Sprintf("%.1f s", max(s, 0))
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	default:
		return fmt.Sprintf("%d:%02d min", int64(s)/60, int64(s)%60)
	}
}

// Limit writes a time limit, which is a round number: 30 s, 5 min.
func Limit(s float64) string {
	if n := int64(s); s == float64(n) && n >= 120 && n%60 == 0 {
		return fmt.Sprintf("%d min", n/60)
	}
	return fmt.Sprintf("%.0f s", s)
}

// Millis writes how long an exchange over the network took: 0.4 ms, 35 ms.
func Millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 1 {
		return fmt.Sprintf("%.1f ms", max(ms, 0.1))
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// Age writes how old something is, coarser the older: 42 s, 3 min, 2 h, 5 d.
func Age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(max(d, 0).Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d d", int(d.Hours()/24))
	}
}

// Percent writes a fraction with one digit, never 100.0 before it is 1.
func Percent(f float64) string {
	p := f * 100
	if f < 1 {
		p = math.Min(p, 99.9)
	}
	return fmt.Sprintf("%.1f%%", max(p, 0))
}

// Command writes a command line so that a shell reads the same words.
func Command(argv []string) string {
	out := make([]string, len(argv))
	for i, a := range argv {
		out[i] = quote(a)
	}
	return strings.Join(out, " ")
}

func quote(a string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=:,@%+", r)
	}
	if a != "" && !strings.ContainsFunc(a, func(r rune) bool { return !plain(r) }) {
		return a
	}
	return "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
}
