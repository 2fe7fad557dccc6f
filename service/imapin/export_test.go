package imapin

import (
	"fmt"
	"time"
)

// RetrySoon makes a poller try again at once.
func RetrySoon(p *Poller) {
	p.pace.retry, p.pace.reconnect, p.pace.refused = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
}

// ClaimsEnd sets for how long the claims of others are respected.
func ClaimsEnd(p *Poller, d time.Duration) { p.pace.claim = d }

// RewriteOAuthFile parses the text of an OAuth file, writes it, and parses what was written.
func RewriteOAuthFile(text []byte) (first, again string, err error) {
	c, err := parseClient(text)
	if err != nil {
		return "", "", err
	}
	written, err := c.text()
	if err != nil {
		return "", "", err
	}
	d, err := parseClient(written)
	if err != nil {
		return fmt.Sprintf("%q", c), err.Error(), nil
	}
	return fmt.Sprintf("%q", c), fmt.Sprintf("%q", d), nil
}
