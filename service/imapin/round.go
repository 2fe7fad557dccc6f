package imapin

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Limits of one round.
const (
	// window is how many messages one search looks at, so that its answer has a limit however large the folder is.
	window = 2000
	// batch is how many messages are looked at together before they are taken one by one.
	batch = 100
	// streak is after how many failures in a row a round ends: then it is not the messages.
	streak = 10
	// maxPending is of how many messages that are left something is remembered.
	maxPending = 100_000
)

// search is where the search for what is to be taken stands. The whole folder is searched first, and from time to time; else only
// what is new.
type search struct {
	// next is the sequence number at which the search of the whole folder goes on; 0 when it is over.
	next uint32
	// expunged is session.expunged when it began: when messages leave, the others' sequence numbers change, and it begins anew.
	expunged uint64
	// from is the lowest UID that counts as new.
	from imap.UID
	// again is when the whole folder is searched again.
	again time.Time
}

// pending is a message that was seen and is not done.
type pending struct {
	// due is when it is looked at again; never when zero.
	due time.Time
	// failures is how often it failed.
	failures int
	// mine: this poller has claimed it. taken: it was taken, only its mark is missing.
	mine, taken bool
	// claimed is the MODSEQ under which somebody else's claim was seen.
	claimed uint64
}

// seen is what a search of messages tells of one.
type seen struct {
	uid    imap.UID
	flags  []imap.Flag
	size   int64
	modSeq uint64
}

func (m *seen) has(f imap.Flag) bool { return hasFlag(m.flags, f) }

// hasFlag: case does not matter in flags.
func hasFlag(list []imap.Flag, f imap.Flag) bool {
	return slices.ContainsFunc(list, func(x imap.Flag) bool { return strings.EqualFold(string(x), string(f)) })
}

// round takes what there is to take. more tells that there is more at once.
func (s *session) round(ctx context.Context) (more bool, err error) {
	p := s.p
	select {
	case <-s.wake: // from here on it is about what this round may miss
	default:
	}
	now := p.o.Now()
	var uids []imap.UID
	for uid, x := range p.pending {
		if !x.due.IsZero() && !x.due.After(now) && len(uids) < window {
			uids = append(uids, uid)
		}
	}
	found, more, err := s.find(now)
	if err != nil {
		return false, err
	}
	uids = append(uids, found...)
	slices.Sort(uids)
	failures := 0
	for chunk := range slices.Chunk(uids, batch) {
		if ctx.Err() != nil || failures >= streak {
			s.postpone(chunk)
			continue
		}
		messages, err := s.look(chunk)
		if err != nil {
			return false, err
		}
		for i := range messages {
			if ctx.Err() != nil || failures >= streak {
				s.postpone([]imap.UID{messages[i].uid})
				continue
			}
			ok, err := s.handle(ctx, &messages[i])
			if err != nil {
				return false, err
			}
			if ok {
				failures = 0
			} else {
				failures++
			}
		}
	}
	return more && failures < streak, nil
}

// postpone leaves messages for a later round.
func (s *session) postpone(uids []imap.UID) {
	due := s.p.o.Now().Add(s.p.pace.retry)
	for _, uid := range uids {
		s.p.remember(uid).due = due
	}
}

// remember returns what is known of a message, for changing. Past maxPending nothing new is kept: such a message is looked at
// again when the whole folder is.
func (p *Poller) remember(uid imap.UID) *pending {
	x := p.pending[uid]
	if x == nil {
		x = &pending{due: p.o.Now()} // so that it is looked at again if the connection ends now
		if len(p.pending) < maxPending {
			p.pending[uid] = x
		}
	}
	return x
}

// find searches for messages that are not done and not pending. more tells that the search is not over.
func (s *session) find(now time.Time) (found []imap.UID, more bool, err error) {
	f := &s.search
	if f.next == 0 && !now.Before(f.again) {
		f.next, f.again = 1, now.Add(s.p.pace.whole)
	}
	for f.next != 0 {
		if n := s.expunged.Load(); n != f.expunged {
			f.next, f.expunged = 1, n
		}
		folder := s.client.Mailbox()
		if folder == nil {
			return nil, false, errLost // the library forgets the folder when the server ends
		}
		last := folder.NumMessages
		if f.next > last {
			f.next = 0
			break
		}
		part := imap.SeqSet{}
		part.AddRange(f.next, min(f.next+window-1, last))
		found, err = s.undone(&imap.SearchCriteria{SeqNum: []imap.SeqSet{part}}, 0)
		if err != nil {
			return nil, false, err
		}
		f.next += window
		if len(found) > 0 {
			return found, true, nil
		}
	}
	fresh := imap.UIDSet{imap.UIDRange{Start: f.from}}
	if found, err = s.undone(&imap.SearchCriteria{UID: []imap.UIDSet{fresh}}, f.from); err != nil {
		return nil, false, err
	}
	if len(found) > 0 {
		f.from = found[len(found)-1] + 1
	}
	return found, len(found) >= window, nil
}

// undone searches among some messages for those that are not done and not pending; at most a window of them, with UIDs of at least
// from, in order.
func (s *session) undone(c *imap.SearchCriteria, from imap.UID) ([]imap.UID, error) {
	if s.keywords {
		c.NotFlag = []imap.Flag{doneKeyword}
	}
	var uids []imap.UID
	err := s.command(func() error {
		data, err := s.client.UIDSearch(c, nil).Wait()
		if err != nil {
			return err
		}
		set, _ := data.All.(imap.UIDSet)
		steps := 0
		for _, r := range set { // not Nums: a range may stand for thousands of millions
			for uid := uint64(max(r.Start, from)); uid <= uint64(r.Stop) && len(uids) < window && steps < window+maxPending; uid++ {
				steps++
				if s.p.pending[imap.UID(uid)] == nil {
					uids = append(uids, imap.UID(uid))
				}
			}
		}
		return nil
	})
	return uids, err
}

// look asks for what must be known of messages before they are taken. What has left the folder is forgotten.
func (s *session) look(uids []imap.UID) ([]seen, error) {
	var there []seen
	err := s.command(func() error {
		list, err := s.client.Fetch(imap.UIDSetNum(uids...), &imap.FetchOptions{UID: true, Flags: true, RFC822Size: true, ModSeq: s.claims}).Collect()
		for _, m := range list {
			there = append(there, seen{uid: m.UID, flags: m.Flags, size: m.RFC822Size, modSeq: m.ModSeq})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, uid := range uids {
		if !slices.ContainsFunc(there, func(m seen) bool { return m.uid == uid }) {
			delete(s.p.pending, uid)
		}
	}
	return there, nil
}
