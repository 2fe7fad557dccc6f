package ledger

import (
	"context"
)

// Complain records that a recipient reported mail as spam; whoever calls has opened the token in that mail, and believes the
// reporter. It covers COMMERCIAL mail, and the topic where the token names one. Errors: ErrNotFound for a scope that this ledger
// does not have, and those of a write.
func (l *Ledger) Complain(ctx context.Context, by By, about Tokened) (Outcome, error) {
	s, kind, _, ok := l.Registry().Scope(about.Scope)
	if !ok {
		return Outcome{}, ErrNotFound
	}
	if by.Channel != ByWebhook {
		by.Channel = ByFeedback
	}
	if err := l.checkBy(&by); err != nil {
		return Outcome{}, err
	}
	scope := about.Scope
	if kind != ScopeTopic {
		scope = s.Commercial()
	}
	req, err := l.beginRequest(ctx, s.Number, by.RequestID, "complaint", about.Key, scope)
	if err != nil {
		return Outcome{}, err
	}
	row, err := l.newPersonal(by.Evidence)
	if err != nil {
		return Outcome{}, err
	}
	keys := soleKey(about.Generation, about.Key)
	return l.write(ctx, req, func(t *tx) (uint64, bool, error) {
		e := Entry{Kind: Complained, Channel: by.Channel, Generation: about.Generation, Sender: s.Number, Scope: scope, Mailing: by.Mailing, Actor: by.Key,
			Occurred: millis(by.Occurred), Key: about.Key}
		if at := standingFact(t, &keys, &e); at != 0 {
			return at, false, nil
		}
		if req != nil {
			e.Request = req.id
		}
		at, err := t.add(&e, row)
		return at, true, err
	}, false)
}
