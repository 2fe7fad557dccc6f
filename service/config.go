package service

import (
	"io"
	"log/slog"
	"net/http"
	"time"
)

// Config is everything a service is told from outside. Each field is a flag of "optout serve".
type Config struct {
	// Data is the folder of database, keys and first admin key; made 0700.
	Data string
	// Keys is the folder of address and link keys; empty means "keys" in Data.
	Keys string
	// Store is the URL of the store; empty means the SQLite file in Data.
	Store string

	// GRPC, HTTP, Admin and SMTP are the addresses to listen on, host:port; port 0 picks a free one. An empty one is off
	// (GRPC and HTTP must be on). SMTP may be unix:PATH, where LMTP (RFC 2033) is spoken.
	GRPC, HTTP, Admin, SMTP string

	// Inbound is what is done with mail that comes in.
	Inbound InboundConfig
	// Gate is the SMTP gate; off while its Upstream is empty.
	Gate GateConfig
	// Milter is the mail filter for Postfix and Sendmail; off while it has no addresses.
	Milter MilterConfig

	// Providers is the path of the file that describes email service providers; empty for none.
	Providers string
	// ProvidersClient reaches their APIs; nil means one of its own.
	ProvidersClient *http.Client

	// PublicURL is the base of every link; never taken from a request.
	PublicURL string
	// MailDomain is the domain of unsubscribe addresses; empty for none: then links have no mailto.
	MailDomain string

	// TLSCert and TLSKey are PEM files for every listener; a listener off loopback needs them. They are read again when they change.
	TLSCert, TLSKey string
	// TLSClientCA is a PEM file of the authorities whose client certificates gRPC and admin require (mutual TLS).
	TLSClientCA string
	// InsecurePlaintext allows plaintext off loopback, said out loud.
	InsecurePlaintext bool
	// TrustedProxies are the CIDRs whose X-Forwarded-For is believed.
	TrustedProxies []string

	// Log takes the log; nil means none.
	Log *slog.Logger
	// Now is the clock; nil means the wall clock.
	Now func() time.Time
	// Random is the source of secrets and salts; nil means crypto/rand.
	Random io.Reader
}

// Addresses are the addresses in use, host:port or unix:PATH; an empty one is off. It is the ready line of "optout serve".
type Addresses struct {
	GRPC  string `json:"grpc,omitempty"`
	HTTP  string `json:"http,omitempty"`
	Admin string `json:"admin,omitempty"`
	SMTP  string `json:"smtp,omitempty"`
	Gate  string `json:"gate,omitempty"`
	// Submissions is the gate's address with implicit TLS.
	Submissions string `json:"gate_submissions,omitempty"`
	Milter      string `json:"milter,omitempty"`
	MilterLocal string `json:"milter_local,omitempty"`
	Socketmap   string `json:"socketmap,omitempty"`
}
