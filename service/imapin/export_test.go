package imapin

import "time"

// RetrySoon makes a poller try again at once.
func RetrySoon(p *Poller) {
	p.pace.retry, p.pace.reconnect, p.pace.refused = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
}

// ClaimsEnd sets for how long the claims of others are respected.
func ClaimsEnd(p *Poller, d time.Duration) { p.pace.claim = d }
