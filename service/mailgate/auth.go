package mailgate

import (
	"net/netip"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"golang.org/x/time/rate"

	"optout/service/ledger"
)

var (
	errBadCredential = &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "the credential is not valid: the password is an API key of role mailer; the user name does not matter"}
	errTooManyTries  = &smtp.SMTPError{Code: 454, EnhancedCode: smtp.EnhancedCode{4, 7, 0}, Message: "too many failed tries from this address: wait a minute"}
	errNeedAuth      = &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "authenticate first: the password is an API key of role mailer"}
	errRevoked       = &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "the credential was revoked"}
	errTooFast       = &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "this credential names recipients too fast: try again in a moment"}
)

// AuthMechanisms implements [smtp.AuthSession].
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

// Auth implements [smtp.AuthSession].
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	check := func(secret string) error {
		// Keys are 256 random bits, so nobody guesses one: a right one is taken whatever others at the same address do.
		if s.key = s.b.o.Judge.Credential(secret); s.key != nil {
			return nil
		}
		if !s.b.tries.allowed(s.addr()) {
			return errTooManyTries
		}
		s.b.tries.failed(s.addr())
		return errBadCredential
	}
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, _, password string) error { return check(password) }), nil
	case sasl.Login:
		return &loginServer{check: check}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

// loginServer is the server's side of AUTH LOGIN: obsolete, and still the only one that many printers and old programs know.
type loginServer struct {
	check func(password string) error
	step  int
}

// Next implements [sasl.Server].
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	l.step++
	switch l.step {
	case 1:
		if response != nil { // the user name came with the command
			l.step++
			return []byte("Password:"), false, nil
		}
		return []byte("Username:"), false, nil
	case 2:
		return []byte("Password:"), false, nil
	case 3:
		return nil, true, l.check(string(response))
	}
	return nil, false, sasl.ErrUnexpectedClientResponse
}

// tries counts failed credentials by address: ten, and then ten a minute.
type tries struct {
	mu sync.Mutex
	by map[netip.Addr]*rate.Limiter
}

const (
	triesBurst = 10
	triesEvery = 6 * time.Second
	// maxTried bounds how many addresses are remembered; beyond it those who have behaved are forgotten.
	maxTried = 10000
)

func (t *tries) allowed(a netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.by[a]
	return l == nil || l.Tokens() >= 1
}

func (t *tries) failed(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.by[a]
	if l == nil {
		if len(t.by) >= maxTried {
			for k, x := range t.by {
				if x.Tokens() >= triesBurst {
					delete(t.by, k)
				}
			}
		}
		l = rate.NewLimiter(rate.Every(triesEvery), triesBurst)
		t.by[a] = l
	}
	l.Allow()
}

// rates bounds how fast each credential names recipients.
type rates struct {
	mu  sync.Mutex
	per int
	by  map[uint32]*rate.Limiter
}

func (r *rates) allow(k *ledger.APIKey) bool {
	r.mu.Lock()
	l := r.by[k.Number]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(r.per), 10*r.per)
		r.by[k.Number] = l
	}
	r.mu.Unlock()
	return l.Allow()
}
