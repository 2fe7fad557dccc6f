package imapin

import (
	"context"
	"errors"
	"regexp"
	"runtime/debug"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Faults of single messages.
const (
	errNotMarked = fault("the server says that it has marked the message, but has not")
	errNoBody    = fault("the server does not hand the message over")
)

// handle does with one message what is to be done now. ok is false when it failed and is tried again; an error ends the session.
func (s *session) handle(ctx context.Context, m *seen) (ok bool, err error) {
	p := s.p
	x := p.remember(m.uid)
	switch {
	case s.keywords && m.has(doneKeyword):
		delete(p.pending, m.uid)
		return true, nil
	case m.size > MaxBytes:
		return true, s.leave(m, x)
	case s.claims && !x.mine && !x.taken:
		if got, err := s.claim(m, x); err != nil || !got {
			return true, err
		}
	}
	if !x.taken {
		if err = s.take(ctx, m.uid); err == nil {
			x.taken = true
			p.o.Observe(Taken)
		}
	}
	if x.taken {
		err = s.mark(m.uid)
	}
	if err == nil {
		delete(p.pending, m.uid)
		return true, nil
	}
	var failed *notTaken
	var own fault
	if refusal(err) == nil && !errors.As(err, &failed) && (!errors.As(err, &own) || own == errSlow || own == errFlood) {
		return false, err // the connection
	}
	x.failures++
	pause := backOff(p.pace.retry, p.pace.retryMost, x.failures)
	x.due = p.o.Now().Add(pause)
	if ctx.Err() == nil {
		p.o.Observe(Failed)
		p.log.Warn("a message could not be taken or marked", "uid", m.uid, "taken", x.taken, "error", told(err), "again_in", pause.Round(time.Second))
	}
	if x.mine && !x.taken {
		// Another poller may do better.
		x.mine = false
		if err := s.flag(m.uid, imap.StoreFlagsDel, takenKeyword); err != nil && refusal(err) == nil {
			return false, err
		}
	}
	return false, nil
}

// notTaken is an error of Take.
type notTaken struct{ error }

func (e *notTaken) Unwrap() error { return e.error }

// take fetches a message without marking it as read, and hands it over.
func (s *session) take(ctx context.Context, uid imap.UID) error {
	var raw []byte
	section := &imap.FetchItemBodySection{Peek: true}
	// What surrounds the octets, TLS included, takes a few in a hundred.
	err := s.within(s.p.pace.body, MaxBytes+MaxBytes/8+answerOctets, func() error {
		list, err := s.client.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
		for _, m := range list {
			raw = m.FindBodySection(section)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case len(raw) == 0:
		return errNoBody
	}
	ctx, cancel := context.WithTimeout(ctx, s.p.pace.take)
	defer cancel()
	if err := s.hand(ctx, raw); err != nil {
		return &notTaken{err}
	}
	return nil
}

// hand calls Take. A fault there must not keep the other messages waiting.
func (s *session) hand(ctx context.Context, raw []byte) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s.p.log.Error("a fault of the service in taking a message", "fault", fault, "stack", string(debug.Stack()))
			err = errors.New("a fault of the service")
		}
	}()
	return s.p.o.Take(ctx, raw)
}

// mark marks a message as done.
func (s *session) mark(uid imap.UID) error {
	if s.keywords {
		return s.flag(uid, imap.StoreFlagsAdd, doneKeyword)
	}
	one := imap.UIDSetNum(uid)
	if s.moves {
		return s.command(func() error {
			_, err := s.client.Move(one, s.done).Wait()
			return err
		})
	}
	// One after the other, unlike the library's Move, which sends all three at once: what was not copied must not be expunged.
	if err := s.command(func() error {
		_, err := s.client.Copy(one, s.done).Wait()
		return err
	}); err != nil {
		return err
	}
	if err := s.flag(uid, imap.StoreFlagsAdd, imap.FlagDeleted); err != nil {
		return err
	}
	return s.command(func() error { return s.client.UIDExpunge(one).Close() })
}

// flag adds or removes a flag, and believes the server only as far as it shows the flags that the message has then.
func (s *session) flag(uid imap.UID, op imap.StoreFlagsOp, f imap.Flag) error {
	return s.command(func() error {
		list, err := s.client.Store(imap.UIDSetNum(uid), &imap.StoreFlags{Op: op, Flags: []imap.Flag{f}}, nil).Collect()
		if err != nil {
			return err
		}
		for _, m := range list {
			if m.UID == uid && op == imap.StoreFlagsAdd && len(m.Flags) > 0 && !hasFlag(m.Flags, f) {
				return errNotMarked
			}
		}
		return nil
	})
}

// leave leaves a message that is too large; its flag says to people, and to the next start, that it was seen.
func (s *session) leave(m *seen, x *pending) error {
	x.due = time.Time{}
	if m.has(imap.FlagFlagged) {
		return nil
	}
	s.p.o.Observe(TooLarge)
	s.p.log.Warn("a message is too large to be taken and stays where it is, flagged: a person must read it", "uid", m.uid, "octets", m.size, "limit", MaxBytes)
	if err := s.flag(m.uid, imap.StoreFlagsAdd, imap.FlagFlagged); err != nil && refusal(err) == nil {
		return err
	}
	return nil
}

// claim claims a message for this poller. got is false when another has it, or has just touched it.
func (s *session) claim(m *seen, x *pending) (got bool, err error) {
	p := s.p
	if m.has(takenKeyword) {
		if x.claimed != m.modSeq {
			x.claimed, x.due = m.modSeq, p.o.Now().Add(p.pace.claim)
			return false, nil
		}
		if p.o.Now().Before(x.due) {
			return false, nil
		}
		// Its owner must be gone. Only one of those who see this succeeds; it claims the message anew at once, with what it sees then.
		x.claimed, x.due = 0, p.o.Now()
		_, err := s.storeUnchanged(m, imap.StoreFlagsDel)
		return false, err
	}
	x.claimed, x.due = 0, p.o.Now().Add(p.pace.retry)
	got, err = s.storeUnchanged(m, imap.StoreFlagsAdd)
	x.mine = got
	return got, err
}

// modified is the answer to a STORE that did not come about, for another has changed the message (RFC 7162 section 3.1.3).
var modified = regexp.MustCompile(`(?m)^\S+ (?:OK|NO) \[MODIFIED `)

// storeUnchanged adds or removes the claim on the condition that the message is as it was seen.
func (s *session) storeUnchanged(m *seen, op imap.StoreFlagsOp) (changed bool, err error) {
	answer, err := s.tap.during(func() error {
		return s.command(func() error {
			return s.client.Store(imap.UIDSetNum(m.uid), &imap.StoreFlags{Op: op, Silent: true, Flags: []imap.Flag{takenKeyword}},
				&imap.StoreOptions{UnchangedSince: m.modSeq}).Close()
		})
	})
	if refusal(err) != nil {
		return false, nil // it is looked at again
	}
	return err == nil && !modified.Match(answer), err
}
