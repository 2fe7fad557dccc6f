package client

import (
	"bytes"
	"fmt"
	netmail "net/mail"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
	"golang.org/x/net/publicsuffix"
)

// Limits of verifying, which costs a look-up for each signature, and time for each line of the header.
const (
	maxSignatures  = 5
	maxHeaderLines = 5000
)

// dkim looks at the signatures (RFC 6376). One that is as it must be is enough, but none may have what must not be.
func (l *linter) dkim() {
	var signatures []map[string]string
	for _, f := range l.fields {
		if !f.is("DKIM-Signature") {
			continue
		}
		if len(signatures) == maxParts {
			break
		}
		tags, ok := dkimTags(f.value())
		if !ok {
			l.found("dkim-syntax", "a DKIM-Signature lacks a tag that it must have, or has one twice")
		}
		signatures = append(signatures, tags)
	}
	if len(signatures) == 0 {
		if !l.opts.UnsignedYet {
			l.report("dkim-missing", "there is no DKIM-Signature", l.lesser())
		}
		return
	}
	covered, aligned := false, false
	var missing []string
	for _, tags := range signatures {
		if tags["l"] != "" {
			l.found("dkim-length", "a DKIM-Signature covers only a part of the body")
		}
		if strings.EqualFold(tags["a"], "rsa-sha1") {
			l.found("dkim-sha1", "a DKIM-Signature is of rsa-sha1")
		}
		names := strings.Split(tags["h"], ":")
		missing = l.uncovered(names)
		covered = covered || len(missing) == 0
		aligned = aligned || l.aligned(tags["d"])
	}
	if !covered {
		l.found("dkim-headers", "h= does not name "+strings.Join(missing, ", "))
	}
	if !aligned {
		l.found("dkim-alignment", "no DKIM-Signature is for the domain of From")
	}
	if l.opts.LookupTXT != nil {
		l.verify()
	}
}

// dkimTags reads the tags of a signature, without white space, and reports whether all are there that must be.
func dkimTags(v string) (map[string]string, bool) {
	tags, ok := map[string]string{}, true
	for tag := range strings.SplitSeq(strings.Join(strings.Fields(v), ""), ";") {
		name, value, found := strings.Cut(tag, "=")
		if _, twice := tags[name]; twice || !found && tag != "" {
			ok = false
		}
		if tag != "" {
			tags[name] = value
		}
	}
	for _, name := range []string{"a", "b", "bh", "d", "h", "s"} {
		ok = ok && tags[name] != ""
	}
	return tags, ok && tags["v"] == "1"
}

// uncovered are the fields that a signature over these names should cover and does not (RFC 8058 section 4).
func (l *linter) uncovered(names []string) (missing []string) {
	for _, want := range append([]string{"From"}, DKIMHeaders()...) {
		if l.count(want) > 0 && !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(strings.TrimSpace(n), want) }) {
			missing = append(missing, want)
		}
	}
	return missing
}

// aligned tells whether a domain is of the same organisation as From's (RFC 7489 section 3.1.1, relaxed).
func (l *linter) aligned(domain string) bool {
	from, err := netmail.ParseAddressList(value(l.fields, "From"))
	if err != nil || len(from) == 0 {
		return true // that From cannot be read is another rule
	}
	_, host, _ := strings.Cut(from[0].Address[strings.LastIndexByte(from[0].Address, '@'):], "@")
	return organisation(host) == organisation(domain)
}

func organisation(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if o, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return o
	}
	return domain
}

// verify verifies the signatures by the keys in DNS.
func (l *linter) verify() {
	if lines := bytes.Count(l.raw[:len(l.raw)-len(l.body)], []byte("\n")); lines > maxHeaderLines {
		l.found("dkim-invalid", fmt.Sprintf("the signatures were not verified, for the header has %d lines", lines))
		return
	}
	checked, err := dkim.VerifyWithOptions(bytes.NewReader(l.raw), &dkim.VerifyOptions{LookupTXT: l.opts.LookupTXT, MaxVerifications: maxSignatures})
	why := "no signature could be read"
	for _, v := range checked {
		switch {
		case v.Err == nil && len(l.uncovered(v.HeaderKeys)) == 0:
			return
		case v.Err == nil:
			why = "a signature holds, but does not cover what it must"
		case dkim.IsTempFail(v.Err):
			why = "the key could not be looked up: try again"
		case dkim.IsPermFail(v.Err):
			why = "there is no key that fits, or the signature is not as it must be"
		default:
			why = "the signature does not fit the message"
		}
	}
	if err != nil && len(checked) == 0 {
		why = "the signatures could not be read"
	}
	l.found("dkim-invalid", fmt.Sprintf("of %d signatures, none holds: %s", l.count("DKIM-Signature"), why))
}
