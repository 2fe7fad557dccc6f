package service

import (
	"context"
	"fmt"

	"optout/service/imapin"
	"optout/service/intake"
	"optout/service/ledger"
)

// newMailboxes makes what reads mail out of mailboxes.
func (s *Service) newMailboxes() error {
	for _, m := range s.cfg.Inbound.IMAP {
		box, err := imapin.Parse(m)
		if err != nil {
			return fmt.Errorf("--imap: %w", err)
		}
		sender := ledger.DefaultSender
		if box.Sender != "" {
			sender = box.Sender
		}
		if _, err := s.mailboxOf(sender); err != nil {
			return fmt.Errorf("--imap: %w", err)
		}
		p, err := imapin.New(imapin.Options{Mailbox: m, Now: s.cfg.Now, Log: s.log, TLS: s.cfg.Inbound.IMAPTLS, Observe: s.meters.mailbox, Take: func(ctx context.Context, raw []byte) error {
			to, err := s.mailboxOf(sender) // as it is now
			if err != nil {
				return err
			}
			for _, r := range s.intake.Deliver(ctx, intake.Local(), nil, to, intake.NewMessage(raw)) {
				if r.Err != nil {
					return r.Err
				}
			}
			return nil
		}})
		if err != nil {
			return fmt.Errorf("--imap: %w", err)
		}
		s.mailboxes = append(s.mailboxes, p)
	}
	return nil
}

// mailboxOf is the address for which a mailbox's messages are taken that name none of ours: the contact address, at which mail without
// words asks for nothing, before unsubscribe@.
func (s *Service) mailboxOf(sender string) (string, error) {
	x := s.ledger.Registry().Sender(sender)
	switch {
	case x == nil:
		return "", fmt.Errorf("there is no sender %q: create it first", sender)
	case x.ContactAddress != "":
		return x.ContactAddress, nil
	case x.MailDomain != "":
		return "unsubscribe@" + x.MailDomain, nil
	case sender == ledger.DefaultSender && s.cfg.MailDomain != "":
		return "unsubscribe@" + s.cfg.MailDomain, nil
	}
	return "", fmt.Errorf("sender %q has neither a mail domain nor a contact address, so it is not known whose mail the mailbox holds: give --mail-domain; or start without --imap, and set optout sender update --contact-address", sender)
}
