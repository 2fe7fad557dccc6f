package ledger

import "math"

// usual counts events of a kind by day (UTC) and knows how many there are on a usual day: the mean of the days before, newer
// ones weighing more, over about a month.
type usual struct {
	day   int64
	today uint32
	mean  float32
}

// usualDays is over about how many days the mean is taken.
const usualDays = 30

// on brings the count to the day of a moment. A day that had too many, of more than least, counts for no more than it may have had: a
// flood must not become what is usual, or the next one would pass.
func (u *usual) on(at int64, least int) {
	d := at / day
	if d <= u.day {
		return
	}
	if u.day != 0 {
		u.mean += (min(float32(u.today), u.most(least)) - u.mean) / usualDays
		u.mean *= float32(math.Pow(1-1.0/usualDays, float64(d-u.day-1)))
	}
	u.day, u.today = d, 0
}

// many reports whether n on this day are more than least and ten times the usual.
func (u *usual) many(n uint32, least int) bool {
	return float32(n) > u.most(least)
}

// most is how many a day may have.
func (u *usual) most(least int) float32 { return max(float32(least), 10*u.mean) }

// idle reports whether nothing that matters was counted for long.
func (u *usual) idle() bool { return u.today == 0 && u.mean < 0.05 }
