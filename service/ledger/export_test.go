package ledger

// FillQueue makes the review queue as long as it may be.
func (l *Ledger) FillQueue() {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	w := &Waiting{}
	for i := range uint64(MaxWaiting) {
		l.queue.waiting[^i] = w
	}
}
