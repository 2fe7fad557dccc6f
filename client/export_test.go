package client

import "time"

// WithPauses replaces SendBulk's clock: pause is told each pause, which is over at once.
func WithPauses(pause func(time.Duration)) BulkOption {
	return func(b *bulk) {
		b.random = func() float64 { return 1 }
		b.later = func(d time.Duration, f func()) func() bool {
			pause(d)
			go f()
			return func() bool { return false }
		}
	}
}
