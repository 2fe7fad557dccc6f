package imapin

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// Keywords that a message gets.
const (
	doneKeyword  imap.Flag = "$OptoutDone"
	takenKeyword imap.Flag = "$OptoutTaken"
)

// doneFolder is where messages go that are done, in a mailbox that takes no keywords.
const doneFolder = "optout-done"

// session is one connection with the folder open.
type session struct {
	p      *Poller
	client *imapclient.Client
	wire   *wire
	tap    *tap
	// unwatch keeps the connection from ending with ctx.
	unwatch func() bool
	// until is when it ends, with the token that it began with; zero means never.
	until time.Time
	// wake holds something when the server has told of a change, and expunged counts the messages that left the folder.
	wake     chan struct{}
	expunged atomic.Uint64

	// idles, keywords and claims: the server tells of new mail by itself; messages get keywords; pollers can claim
	// messages; there is MOVE.
	idles, keywords, claims, moves bool
	// done is the full name of doneFolder.
	done string

	// search is where the search for what is to be taken stands.
	search search
}

// session connects and watches until ctx ends, the token runs out (then there is no error) or the connection fails. worked tells that it
// came to see what is in the folder.
func (p *Poller) session(ctx context.Context) (worked bool, err error) {
	s := &session{p: p, wake: make(chan struct{}, 1)}
	ended := make(chan struct{})
	defer close(ended)
	if err := s.connect(ctx, ended); err != nil {
		s.close()
		return false, err
	}
	defer s.close()
	if err := s.open(); err != nil {
		return false, err
	}
	for ctx.Err() == nil && (s.until.IsZero() || p.o.Now().Before(s.until)) {
		more, err := s.round(ctx)
		if err != nil {
			return worked, err
		}
		if !worked {
			p.log.Info("the mailbox is watched", "idle", s.idles, "claims", s.claims, "done_by", s.doneBy())
		}
		worked = true
		if !more {
			if err := s.rest(ctx); err != nil {
				return worked, err
			}
		}
	}
	s.command(func() error { return s.client.Logout().Wait() })
	return worked, nil
}

// close ends the connection, if there is one.
func (s *session) close() {
	if s.unwatch != nil {
		s.unwatch()
	}
	if s.client != nil {
		s.client.Close()
	}
	if s.wire != nil {
		s.wire.Close()
	}
}

// open opens the folder and learns what can be done in it.
func (s *session) open() error {
	p := s.p
	return s.command(func() error {
		caps := s.client.Caps()
		s.idles, s.moves = caps.Has(imap.CapIdle), caps.Has(imap.CapMove)
		selected, err := s.client.Select(p.mailbox.Folder, &imap.SelectOptions{CondStore: caps.Has(imap.CapCondStore)}).Wait()
		// Other codes, such as UNAVAILABLE and INUSE (RFC 5530), speak of what passes by itself.
		if e := refusal(err); e != nil && slices.Contains([]imap.ResponseCode{"", imap.ResponseCodeNonExistent, imap.ResponseCodeTryCreate, imap.ResponseCodeNoPerm}, e.Code) {
			return fmt.Errorf("%w (%s)", errNoFolder, told(err))
		}
		if err != nil {
			return err
		}
		// The library tells of the end of a command before it knows itself what follows from it. By the end of the next one it does.
		if err := s.client.Noop().Wait(); err != nil {
			return err
		}
		if selected.UIDValidity != p.validity {
			// The server has numbered the messages anew: what is known of the old numbers is worth nothing (RFC 9051 section 2.3.1.1).
			p.validity, p.pending = selected.UIDValidity, map[imap.UID]*pending{}
		}
		s.search = search{next: 1, from: max(selected.UIDNext, 1), again: p.o.Now().Add(p.pace.whole)}
		permanent := selected.PermanentFlags
		s.keywords = hasFlag(permanent, imap.FlagWildcard) || hasFlag(permanent, doneKeyword) && hasFlag(permanent, takenKeyword)
		s.claims = s.keywords && selected.HighestModSeq > 0
		if s.keywords {
			return nil
		}
		if !s.moves && !caps.Has(imap.CapUIDPlus) {
			return fault("the folder takes no keywords, and the server can neither MOVE nor expunge single messages (UIDPLUS): mail cannot be marked as done; watch another folder")
		}
		s.done = doneFolder
		if caps.Has(imap.CapNamespace) {
			if spaces, err := s.client.Namespace().Wait(); err == nil && len(spaces.Personal) > 0 {
				s.done = spaces.Personal[0].Prefix + doneFolder
			}
		}
		// Where it exists already the server refuses to create it; where it cannot be made, moving will tell.
		if err := s.client.Create(s.done, nil).Wait(); err != nil && refusal(err) == nil {
			return err
		}
		return nil
	})
}

func (s *session) doneBy() string {
	if s.keywords {
		return "keyword"
	}
	return "moving"
}

// nudge notes that the server has told of a change.
func (s *session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// rest waits until there may be something to do.
func (s *session) rest(ctx context.Context) error {
	p := s.p
	now := p.o.Now()
	pause := min(p.pace.idle, s.search.again.Sub(now))
	if !s.idles {
		pause = min(pause, p.o.Poll)
	}
	if !s.until.IsZero() {
		pause = min(pause, s.until.Sub(now))
	}
	for _, x := range p.pending {
		if !x.due.IsZero() {
			pause = min(pause, x.due.Sub(now))
		}
	}
	if pause <= 0 {
		return nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	var idle *imapclient.IdleCommand
	if s.idles {
		if err := s.command(func() (err error) { idle, err = s.client.Idle(); return }); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-s.wake:
	case <-s.client.Closed():
	}
	if idle == nil {
		return s.command(func() error { return s.client.Noop().Wait() })
	}
	return s.command(func() error {
		if err := idle.Close(); err != nil {
			return err
		}
		return idle.Wait()
	})
}
