package imapin

import "time"

// RetrySoon makes a poller try again at once.
func RetrySoon(p *Poller) { p.firstWait = 20 * time.Millisecond }
