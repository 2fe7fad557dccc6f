package imapin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"time"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
)

// session is one connection with the mailbox selected.
type session struct {
	p *Poller
	c *client.Client
	// told is sent to when the server tells that something has changed.
	told chan struct{}
	// keywords: the mailbox keeps keywords; otherwise what is done is moved.
	keywords bool
}

// session reads the mailbox over one connection, until that or ctx ends. worked tells whether it could be read at all.
func (p *Poller) session(ctx context.Context) (worked bool, err error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // whatever waits ends
	defer stop()
	s := &session{p: p, told: make(chan struct{}, 1)}
	if err := s.open(conn); err != nil {
		return false, err
	}
	defer s.c.Terminate()
	for ctx.Err() == nil {
		again, err := s.round(ctx)
		if err != nil {
			return worked, err
		}
		worked = true
		if again == 0 {
			continue
		}
		if err := s.wait(ctx, again); err != nil {
			return worked, err
		}
	}
	return worked, ctx.Err()
}

// open greets the server, authenticates, and selects the mailbox.
func (s *session) open(conn net.Conn) (err error) {
	p := s.p
	config := &tls.Config{}
	if p.o.TLS != nil {
		config = p.o.TLS.Clone()
	}
	config.ServerName, config.MinVersion = p.host, tls.VersionTLS12
	conn.SetDeadline(time.Now().Add(commandTimeout)) // of the greeting; each command sets its own
	if p.implicit {
		conn = tls.Client(conn, config)
	}
	if s.c, err = client.New(conn); err != nil {
		return err
	}
	s.c.Timeout, s.c.ErrorLog = commandTimeout, slog.NewLogLogger(p.o.Log.Handler(), slog.LevelDebug)
	updates := make(chan client.Update, 64)
	s.c.Updates = updates
	go func() {
		for {
			select {
			case u := <-updates:
				if _, ok := u.(*client.MailboxUpdate); ok {
					select {
					case s.told <- struct{}{}:
					default:
					}
				}
			case <-s.c.LoggedOut():
				return
			}
		}
	}()
	if !p.implicit {
		can, err := s.c.SupportStartTLS()
		if err != nil {
			return err
		}
		if can {
			err = s.c.StartTLS(config)
		} else if !p.loopback {
			err = errors.New("the server offers no STARTTLS: a password is not sent in clear; use imaps://")
		}
		if err != nil {
			return err
		}
	}
	password, err := p.password()
	if err != nil {
		return err
	}
	if err := s.c.Login(p.user, password); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	box, err := s.c.Select(p.folder, false)
	if err != nil {
		return fmt.Errorf("select the folder: %w", err)
	}
	if box.UidValidity != p.uidValidity {
		p.uidValidity = box.UidValidity
		clear(p.later) // its UIDs stand for other messages now
	}
	s.keywords = slices.Contains(box.PermanentFlags, `\*`) || slices.Contains(box.PermanentFlags, done)
	if s.keywords {
		return nil
	}
	can, err := s.c.Support("MOVE")
	if err == nil && !can {
		err = errors.New("the mailbox keeps no keywords and the server cannot move messages (RFC 6851), so what is done cannot be told from what is not")
	}
	if err == nil {
		_ = s.c.Create(doneInstead) // most often it is there already; if it cannot be made, moving will say so
	}
	return err
}

// round takes the messages that are not done. again is when to look anew at the latest; 0 for at once.
func (s *session) round(ctx context.Context) (again time.Duration, err error) {
	criteria := imap.NewSearchCriteria()
	if s.keywords { // what somebody has marked as deleted meanwhile was asked for all the same
		criteria.WithoutFlags = []string{done, large}
	}
	uids, err := s.c.UidSearch(criteria)
	if err != nil {
		return 0, err
	}
	for uid := range s.p.later {
		if !slices.Contains(uids, uid) {
			delete(s.p.later, uid) // another poller has taken it, or somebody has moved it
		}
	}
	now := s.p.o.Now()
	again = lookAgain
	due := slices.DeleteFunc(uids, func(uid uint32) bool {
		r, failed := s.p.later[uid]
		if failed && r.at.After(now) {
			again = min(again, r.at.Sub(now))
			return true
		}
		return false
	})
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	if len(due) > perRound {
		due, again = due[:perRound], 0
	}
	for _, uid := range due {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		taken, err := s.one(ctx, uid)
		if err != nil {
			return 0, err
		}
		if !taken {
			wait := min(max(2*s.p.later[uid].wait, s.p.firstWait), longestWait)
			s.p.later[uid] = retry{wait, s.p.o.Now().Add(wait)}
			again = min(again, wait)
		}
	}
	return again, nil
}

// one takes one message and marks it. taken is false when it is to be tried again; an error ends the session.
func (s *session) one(ctx context.Context, uid uint32) (taken bool, err error) {
	size, flags, err := s.look(uid)
	switch {
	case err != nil:
		return false, err
	case size == 0 || slices.ContainsFunc(flags, func(f string) bool { return imap.CanonicalFlag(f) == imap.CanonicalFlag(done) }):
		return true, nil // gone, or done by another poller since
	case size > maxMessage:
		s.p.o.Log.Warn("a message is too large to be read; it is left", "mailbox", s.p.name, "uid", uid, "octets", size)
		if !s.keywords {
			s.p.later[uid] = retry{at: s.p.o.Now().AddDate(100, 0, 0)} // until the next start
			return true, nil
		}
		return true, s.store(uid, large, imap.FlaggedFlag)
	}
	raw, err := s.fetch(uid)
	if err != nil || raw == nil {
		return err == nil, err
	}
	if err := s.take(ctx, raw); err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		s.p.o.Log.Warn("a message could not be taken; it is tried again", "mailbox", s.p.name, "uid", uid, "error", err)
		return false, nil
	}
	if s.keywords {
		err = s.store(uid, done)
	} else {
		err = s.c.UidMove(one(uid), doneInstead)
	}
	if err != nil && s.c.State() == imap.SelectedState {
		// The server refuses, and the connection is well. To end it here would take the message anew at each connection, and keep others waiting.
		s.p.o.Log.Warn("a message was taken but could not be marked as done; it will be taken again", "mailbox", s.p.name, "uid", uid, "error", err)
		return false, nil
	}
	if err == nil {
		delete(s.p.later, uid)
	}
	return err == nil, err
}

// take hands a message on. A fault in who takes it must not keep the others waiting.
func (s *session) take(ctx context.Context, raw []byte) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s.p.o.Log.Error("a fault of the service in taking a message", "fault", fault, "stack", string(debug.Stack()))
			err = errors.New("a fault of the service")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	return s.p.o.Take(ctx, raw)
}

func one(uid uint32) *imap.SeqSet {
	set := &imap.SeqSet{}
	set.AddNum(uid)
	return set
}

// look asks for a message's size and flags; size 0 when it is gone.
func (s *session) look(uid uint32) (size uint32, flags []string, err error) {
	err = s.each(uid, func(m *imap.Message) error {
		size, flags = max(m.Size, size), m.Flags
		return nil
	}, imap.FetchRFC822Size, imap.FetchFlags)
	return size, flags, err
}

// each asks for items of a message and calls f for every answer about it: servers may also tell of others, or repeat themselves.
func (s *session) each(uid uint32, f func(*imap.Message) error, items ...imap.FetchItem) error {
	messages, ended := make(chan *imap.Message), make(chan error, 1)
	go func() { ended <- s.c.UidFetch(one(uid), append(items, imap.FetchUid), messages) }()
	var fault error
	for m := range messages {
		if m.Uid == uid && fault == nil {
			fault = f(m)
		}
	}
	return errors.Join(<-ended, fault)
}

// fetch reads a message without marking it as seen; nil when it is gone.
func (s *session) fetch(uid uint32) (raw []byte, err error) {
	section := &imap.BodySectionName{Peek: true, Partial: []int{0, maxMessage}}
	s.c.Timeout = 5 * commandTimeout // it may be large
	defer func() { s.c.Timeout = commandTimeout }()
	err = s.each(uid, func(m *imap.Message) (err error) {
		if body := m.GetBody(section); body != nil && raw == nil {
			raw, err = io.ReadAll(io.LimitReader(body, maxMessage))
		}
		return err
	}, section.FetchItem())
	return raw, err
}

// store adds flags to a message.
func (s *session) store(uid uint32, flags ...any) error {
	return s.c.UidStore(one(uid), imap.FormatFlagsOp(imap.AddFlags, true), flags, nil)
}

// wait waits until the server tells of something, at most for d.
func (s *session) wait(ctx context.Context, d time.Duration) error {
	stop, ended := make(chan struct{}), make(chan error, 1)
	s.c.Timeout = idleFor + commandTimeout
	go func() {
		ended <- s.c.Idle(stop, &client.IdleOptions{LogoutTimeout: idleFor, PollInterval: s.p.o.Poll})
	}()
	var err error
	select {
	case <-s.told:
		close(stop)
		err = <-ended
	case <-time.After(d):
		close(stop)
		err = <-ended
	case <-ctx.Done():
		close(stop)
		<-ended // the connection is closed
		err = ctx.Err()
	case err = <-ended:
		if err == nil {
			err = errors.New("the server ended")
		}
	}
	s.c.Timeout = commandTimeout
	return err
}
