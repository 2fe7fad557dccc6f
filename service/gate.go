package service

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"optout/service/mailgate"
	"optout/service/outgoing"
	"optout/service/secretfile"
)

// GateConfig is what the SMTP gate is told from outside. Each field is a flag that begins with --gate.
type GateConfig struct {
	// Listen is the address of the gate with STARTTLS, and Submissions the one with implicit TLS (RFC 8314); empty ones are off.
	Listen, Submissions string
	// Upstream is host:port of the mail server behind; UpstreamTLS is starttls, implicit or off; UpstreamCA a PEM file of the
	// authorities of its certificate.
	Upstream, UpstreamTLS, UpstreamCA string
	// UpstreamUser and UpstreamPasswordFile authenticate the gate to it.
	UpstreamUser, UpstreamPasswordFile string
	// Profile is the kind of server that it is.
	Profile string
	// DKIM are the keys that sign, each DOMAIN:SELECTOR:FILE.
	DKIM []string
	// VERP gives each copy a return path of its own.
	VERP bool
	// MaxBytes, MaxConnections and Rate are limits; 0 means the default.
	MaxBytes             int64
	MaxConnections, Rate int
}

// GateProfile is a kind of server that may stand behind the gate.
type GateProfile struct {
	Name string `json:"name"`
	// GateSigns: the gate signs with its DKIM keys; otherwise the provider does.
	GateSigns bool `json:"gate_signs"`
	// KeepsEnvelope: return paths of the gate's own (VERP) reach the recipient's server.
	KeepsEnvelope bool `json:"keeps_envelope"`
	// MustBeOff says which of the provider's features must be off.
	MustBeOff string `json:"must_be_off"`
}

// GateProfiles lists the kinds of servers that may stand behind the gate.
func GateProfiles() []GateProfile {
	var all []GateProfile
	for _, name := range mailgate.ProfileNames() {
		if p, err := mailgate.ProfileOf(name); err == nil {
			all = append(all, GateProfile{p.Name, p.Signs, p.KeepsEnvelope, p.MustBeOff})
		}
	}
	return all
}

// judge makes what the gate and the milter share.
func (s *Service) judge() *outgoing.Judge {
	return outgoing.NewJudge(outgoing.Options{Ledger: s.ledger, Ring: s.ring.Load, PublicURL: s.cfg.PublicURL, MailDomain: s.cfg.MailDomain,
		Receipt: s.receipt, Now: s.cfg.Now, Log: s.log})
}

// newGate builds the gate when it is on.
func (s *Service) newGate(tlsServer *tls.Config) error {
	c := &s.cfg.Gate
	if c.Listen == "" && c.Submissions == "" {
		return nil
	}
	if c.Upstream == "" {
		return errors.New("--gate needs --gate-upstream HOST:PORT, the mail server that takes what the gate lets through")
	}
	profile, err := mailgate.ProfileOf(c.Profile)
	if err != nil {
		return err
	}
	if c.VERP && !profile.KeepsEnvelope {
		return fmt.Errorf("--gate-verp: an upstream of profile %s writes the return path itself: leave it out", profile.Name)
	}
	if c.VERP && len(s.mailDomains()) == 0 {
		return errors.New("--gate-verp needs --mail-domain, to which bounces come back")
	}
	if !profile.Signs && len(c.DKIM) > 0 {
		return fmt.Errorf("--gate-dkim: an upstream of profile %s signs itself, and changes what a key of yours would have signed: leave it out", profile.Name)
	}
	signer, err := outgoing.NewSigner(c.DKIM, profile.Omit...)
	if err != nil {
		return fmt.Errorf("--gate-dkim: %w", err)
	}
	if profile.Signs && !signer.Signs() {
		s.log.Warn("the gate signs nothing: the upstream's DKIM signature must cover List-Unsubscribe and List-Unsubscribe-Post (RFC 8058 section 4)", "remedy", "give --gate-dkim, or see to it there")
	}
	up := mailgate.Upstream{Address: c.Upstream, TLS: c.UpstreamTLS, User: c.UpstreamUser}
	if c.UpstreamPasswordFile != "" {
		if up.Password, err = secretfile.Read(c.UpstreamPasswordFile); err != nil {
			return fmt.Errorf("--gate-upstream-password-file: %w", err)
		}
	}
	if (up.User == "") != (up.Password == "") {
		return errors.New("--gate-upstream-user and --gate-upstream-password-file go together")
	}
	if c.UpstreamCA != "" {
		pem, err := os.ReadFile(c.UpstreamCA)
		if err != nil {
			return fmt.Errorf("--gate-upstream-ca: %w", err)
		}
		up.Config = &tls.Config{RootCAs: x509.NewCertPool()}
		if !up.Config.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("--gate-upstream-ca: %s holds no PEM certificate", c.UpstreamCA)
		}
	}
	s.gate, err = mailgate.New(mailgate.Options{Judge: s.judge(), Signer: signer, Upstream: up, Profile: profile, VERP: c.VERP, Hostname: hostname(&s.cfg),
		TLS: tlsServer, PlaintextAuth: tlsServer == nil, Folder: filepath.Join(s.cfg.Data, "gate"),
		Limits: mailgate.Limits{MessageBytes: c.MaxBytes, Connections: c.MaxConnections, Rate: c.Rate}, Now: s.cfg.Now, Log: s.log, Observe: s.meters.gate})
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}
