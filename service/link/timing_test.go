package link

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Time tells nothing of why a token does not open: each fault costs what success costs, within noise. The control, which looks
// whether it knows the key before it does any work, must be found out.
func TestFaultsTakeTheSameTime(t *testing.T) {
	r := testRing(t)
	good := r.Seal(sample)
	other, err := NewRing(9, Key{ID: 9, Secret: [32]byte{9}})
	if err != nil {
		t.Fatal(err)
	}
	bounce := sample
	bounce.Purpose = Bounce
	altered := good[:59] + string(spelling[(strings.IndexByte(spelling, good[59])+1)%32]) + good[60:]
	faults := map[string]string{"good": good, "altered": altered, "unknown key": other.Seal(sample), "other purpose": r.Seal(bounce), "random": strings.Repeat("q", 60) + "a"}
	// median of many short runs, taken in turns so that the machine's moods bear on all alike
	measure := func(open func(string)) map[string]time.Duration {
		times := map[string][]time.Duration{}
		for range 300 {
			for name, s := range faults {
				start := time.Now()
				for range 50 {
					open(s)
				}
				times[name] = append(times[name], time.Since(start))
			}
		}
		medians := map[string]time.Duration{}
		for name, all := range times {
			slices.Sort(all)
			medians[name] = all[len(all)/2]
		}
		return medians
	}
	spread := func(m map[string]time.Duration) float64 {
		low, high := m["good"], m["good"]
		for _, d := range m {
			low, high = min(low, d), max(high, d)
		}
		return float64(high) / float64(low)
	}
	ours := measure(func(s string) { r.Open(s, Unsubscribe) })
	control := measure(func(s string) {
		var raw [Size]byte
		if decode(&raw, s) && r.signers[raw[1]] != nil && raw[0] == version<<4|byte(Unsubscribe) {
			r.Open(s, Unsubscribe)
		}
	})
	if !raceDetector && spread(ours) > 2 {
		t.Errorf("the slowest takes %.2f times the fastest: %v", spread(ours), ours)
	}
	if spread(control) < 2 {
		t.Errorf("the control was not found out (%.2f): this test shows nothing", spread(control))
	}
}
