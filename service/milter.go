package service

import (
	"errors"
	"fmt"

	"optout/service/milter"
)

// MilterConfig is what the mail filter and the socketmap are told from outside.
type MilterConfig struct {
	// Listen, Local and Socketmap are addresses, host:port or unix:PATH: for SMTP clients, for local programs, for transport_maps.
	// Empty ones are off.
	Listen, Local, Socketmap string
	// Key is the number of the API key by whose rules mail is judged.
	Key uint32
	// Topics is a file that maps who sends to topics.
	Topics string
	// OnError is tempfail, reject or accept.
	OnError string
}

// newMilter builds the mail filter when it is on.
func (s *Service) newMilter() error {
	c := &s.cfg.Milter
	if c.Listen == "" && c.Local == "" && c.Socketmap == "" {
		return nil
	}
	if c.Key == 0 {
		return errors.New("--milter, --milter-local and --socketmap need --milter-key NUMBER: an API key of role mailer, by whose topics mail is judged (\"optout key create --role mailer --default-topic TOPIC\")")
	}
	on := milter.OnError(c.OnError)
	switch on {
	case "":
		on = milter.Tempfail
	case milter.Tempfail, milter.Reject:
	case milter.Accept:
		s.log.Warn("--milter-on-error accept: mail goes out unchecked whenever the ledger cannot be asked")
	default:
		return fmt.Errorf("--milter-on-error %q: use tempfail, reject or accept", c.OnError)
	}
	var err error
	s.filter, err = milter.New(milter.Options{Judge: s.judge(), Key: c.Key, Topics: c.Topics, OnError: on, Log: s.log, Observe: s.meters.milter})
	if err != nil {
		return fmt.Errorf("--milter-topics: %w", err)
	}
	return nil
}
