package outgoing

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"slices"
	"strings"

	"optout/service/secretfile"

	"github.com/emersion/go-msgauth/dkim"
)

// Signer signs messages with DKIM (RFC 6376). It is safe for concurrent use. A Signer without keys signs nothing.
type Signer struct {
	keys []dkimKey
	// omit are fields, in lower case, that a later server rewrites, so that they are not signed.
	omit []string
}

type dkimKey struct {
	domain, selector string
	key              crypto.Signer
}

// NewSigner reads keys. Each is DOMAIN:SELECTOR:FILE, the file a PEM private key, PKCS #8 or PKCS #1: RSA of at least 2048 bits
// (RFC 8301) or Ed25519 (RFC 8463). Several keys of one domain sign each message once each. omit are fields not to sign.
func NewSigner(keys []string, omit ...string) (*Signer, error) {
	s := &Signer{}
	for _, o := range omit {
		s.omit = append(s.omit, strings.ToLower(o))
	}
	for _, spec := range keys {
		parts := strings.SplitN(spec, ":", 3)
		if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
			return nil, fmt.Errorf("DKIM key %q: give DOMAIN:SELECTOR:FILE, such as example.com:s1:/etc/optout/dkim.pem", spec)
		}
		key, err := readKey(parts[2])
		if err != nil {
			return nil, fmt.Errorf("DKIM key of %s, %s: %w", parts[0], parts[2], err)
		}
		s.keys = append(s.keys, dkimKey{strings.ToLower(parts[0]), parts[1], key})
	}
	return s, nil
}

func readKey(path string) (crypto.Signer, error) {
	text, err := secretfile.Read(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("it holds no PEM block")
	}
	var key any
	if block.Type == "RSA PRIVATE KEY" {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	} else {
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, errors.New("it holds no private key in PKCS #8 or PKCS #1")
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < 2048 {
			return nil, fmt.Errorf("the RSA key has %d bits: make one of 2048 (RFC 8301 section 3.2)", k.N.BitLen())
		}
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, errors.New("it is neither an RSA nor an Ed25519 key")
}

// Signs reports whether there are keys at all.
func (s *Signer) Signs() bool { return len(s.keys) > 0 }

// signed are the fields that a signature covers (RFC 6376 section 5.4.1), besides From and the list fields.
var signed = []string{"Subject", "Date", "Message-ID", "To", "Cc", "Reply-To", "In-Reply-To", "References", "MIME-Version", "Content-Type",
	"Content-Transfer-Encoding", "List-Id", "Feedback-ID"}

// oversigned are named in every signature once more than they are there, so that none can be added behind it (RFC 6376 section
// 5.4): From, and the two that RFC 8058 section 4 demands.
var oversigned = []string{"From", "List-Unsubscribe", "List-Unsubscribe-Post"}

// Sign returns the DKIM-Signature fields of a message, to be put in front of it: one of each key whose domain is that of From, or
// one above it. body is read once for each key. A refusal when there are keys, but none for that domain: without a signature of the
// sender's that covers the list fields there is no one-click (RFC 8058 section 4).
func (s *Signer) Sign(h *Header, body func() io.Reader) (string, error) {
	if !s.Signs() {
		return "", nil
	}
	domain, r := fromDomain(h)
	if r != nil {
		return "", r
	}
	var out strings.Builder
	for _, k := range s.keys {
		if domain != k.domain && !strings.HasSuffix(domain, "."+k.domain) {
			continue
		}
		sig, err := s.one(&k, h, body())
		if err != nil {
			return "", err
		}
		out.WriteString(sig)
	}
	if out.Len() == 0 {
		return "", Fault(550, [3]int{5, 7, 20}, "there is no DKIM key for the domain in From: add one with --gate-dkim, or send from a domain that has one")
	}
	return out.String(), nil
}

func (s *Signer) one(k *dkimKey, h *Header, body io.Reader) (string, error) {
	d, err := dkim.NewSigner(&dkim.SignOptions{Domain: k.domain, Selector: k.selector, Signer: k.key, HeaderKeys: s.names(h),
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed})
	if err != nil {
		return "", err
	}
	defer d.Close()
	if _, err := d.Write(h.AppendTo(nil)); err != nil {
		return "", err
	}
	if _, err := io.Copy(d, body); err != nil {
		return "", err
	}
	if err := d.Close(); err != nil {
		return "", err
	}
	return d.Signature(), nil
}

// names is the list of fields to sign: each as often as it is there, and the over-signed once more.
func (s *Signer) names(h *Header) []string {
	var all []string
	for i, list := range [][]string{oversigned, signed} {
		for _, name := range list {
			if slices.Contains(s.omit, strings.ToLower(name)) {
				continue
			}
			n := len(h.Values(name))
			if i == 0 {
				n++
			}
			for range n {
				all = append(all, name)
			}
		}
	}
	return all
}

// fromDomain is the domain of the one author (RFC 5322 section 3.6.2).
func fromDomain(h *Header) (string, *Refusal) {
	bad := Fault(550, [3]int{5, 6, 0}, "the message must have one From field with an address (RFC 5322 section 3.6.2)")
	from := h.Values("From")
	if len(from) != 1 {
		return "", bad
	}
	any := &mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }} // names do not matter here
	list, err := (&mail.AddressParser{WordDecoder: any}).ParseList(from[0])
	if err != nil || len(list) == 0 {
		return "", bad
	}
	a := list[0].Address
	return strings.ToLower(strings.TrimSuffix(a[strings.LastIndexByte(a, '@')+1:], ".")), nil
}
