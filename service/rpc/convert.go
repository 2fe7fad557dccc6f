package rpc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/link"
)

// moment reads a timestamp; none is the zero time.
func moment(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalid(field, "it is no valid time")
	}
	return t.AsTime(), nil
}

// stamp writes a time; the zero time is none.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func stampMillis(ms int64) *timestamppb.Timestamp { return stamp(ledger.Time(ms)) }

func (h *handlers) position(n uint64) *optoutv1.Position {
	return &optoutv1.Position{LedgerId: h.Ledger.ID(), Number: n}
}

func atLeast(p *optoutv1.Position) ledger.Position {
	return ledger.Position{LedgerID: p.GetLedgerId(), Number: p.GetNumber()}
}

func scopeIn(s *optoutv1.Scope) ledger.Scope {
	return ledger.Scope{Kind: ledger.ScopeKind(s.GetKind()), Topic: s.GetTopic()}
}

// scopeOut names a scope number; nil for none.
func scopeOut(reg *ledger.Registry, n uint32) *optoutv1.Scope {
	_, kind, topic, ok := reg.Scope(n)
	if !ok {
		return nil
	}
	s := &optoutv1.Scope{Kind: optoutv1.ScopeKind(kind)}
	if topic != nil {
		s.Topic = topic.Name
	}
	return s
}

func denialsOut(reg *ledger.Registry, denials []ledger.Denial) []*optoutv1.Denial {
	if len(denials) == 0 {
		return nil
	}
	out := make([]*optoutv1.Denial, len(denials))
	for i, d := range denials {
		out[i] = &optoutv1.Denial{Reason: optoutv1.DenialReason(d.Reason), Scope: scopeOut(reg, d.Scope), Since: stampMillis(d.Since), Entry: d.Entry, Joined: d.Joined}
	}
	return out
}

func verdictOut(v *ledger.Verdict) optoutv1.Verdict {
	if v.Send {
		return optoutv1.Verdict_VERDICT_SEND
	}
	return optoutv1.Verdict_VERDICT_DO_NOT_SEND
}

func topicVerdicts(reg *ledger.Registry, verdicts []*ledger.Verdict) []*optoutv1.TopicVerdict {
	out := make([]*optoutv1.TopicVerdict, len(verdicts))
	for i, v := range verdicts {
		out[i] = &optoutv1.TopicVerdict{Topic: v.Topic.Name, Verdict: verdictOut(v), Denials: denialsOut(reg, v.Denials)}
	}
	return out
}

// actor names who wrote an entry.
func actor(reg *ledger.Registry, e *ledger.Entry) string {
	switch k := reg.APIKey(e.Actor); {
	case k != nil:
		return fmt.Sprintf("API key %d (%s)", k.Number, k.Label)
	case e.Channel == ledger.BySystem:
		return "service"
	}
	return "recipient"
}

// sight is how much of people's data a role may see.
type sight int

const (
	seesNothing sight = iota
	seesStory         // address and notes, but not where the person was: no IP address, no user agent
	seesAll
)

// evidenceFor is the one place that says which role sees what of people's data.
func evidenceFor(r ledger.Role) sight {
	switch r {
	case ledger.RolePrivacy, ledger.RoleAuditor, ledger.RoleAdmin:
		return seesAll
	case ledger.RoleSupport, ledger.RoleOperator:
		return seesStory
	}
	return seesNothing
}

// evidenceOut shows as much of an entry's evidence as the role may see.
func evidenceOut(evidence map[string]string, see sight) map[string]string {
	switch see {
	case seesAll:
		return evidence
	case seesStory:
		shown := maps.Clone(evidence)
		delete(shown, "ip")
		delete(shown, "user_agent")
		return shown
	}
	return nil
}

func entryOut(reg *ledger.Registry, l *ledger.Line, see sight) *optoutv1.Entry {
	e := &optoutv1.Entry{Position: l.Position, Kind: optoutv1.EntryKind(l.Kind), Channel: optoutv1.Channel(l.Channel), At: stampMillis(l.At),
		OccurredAt: stampMillis(l.Occurred), Scope: scopeOut(reg, l.Scope), Mailing: l.Mailing, Actor: actor(reg, &l.Entry), Prev: l.Prev, Ref: l.Ref,
		Until: stampMillis(l.Until), Detail: maps.Clone(l.Detail), Evidence: evidenceOut(l.Evidence, see), LeafHash: l.Leaf[:]}
	if s, _, _, ok := reg.Scope(l.Sender); ok {
		e.Sender = s.Name
	}
	if !l.Key.IsZero() {
		e.AddressKey = l.Key.String()
	}
	if l.Reason != 0 {
		if e.Detail == nil {
			e.Detail = map[string]string{}
		}
		e.Detail["reason"] = l.Reason.String()
	}
	return e
}

// base is where a sender's links point.
func (h *handlers) base(s *ledger.Sender) link.Base {
	b := link.Base{PublicURL: h.PublicURL, MailDomain: h.MailDomain}
	if s.PublicURL != "" {
		b.PublicURL = s.PublicURL
	}
	if s.MailDomain != "" {
		b.MailDomain = s.MailDomain
	}
	return b
}

func linkOut(l link.Link) *optoutv1.UnsubscribeLink {
	out := &optoutv1.UnsubscribeLink{Url: l.URL, Mailto: l.Mailto, DkimSign: l.DKIMSign, Warning: l.Warning}
	for _, x := range l.Headers {
		out.Headers = append(out.Headers, &optoutv1.Header{Name: x.Name, Value: x.Value})
	}
	return out
}

// linkScope resolves the scope of a link and checks that the caller may name its topic.
func (h *handlers) linkScope(s *ledger.Sender, scope *optoutv1.Scope) (uint32, error) {
	kind, name := scope.GetKind(), scope.GetTopic()
	switch {
	case kind == optoutv1.ScopeKind_SCOPE_KIND_TOPIC || kind == optoutv1.ScopeKind_SCOPE_KIND_UNSPECIFIED && name != "":
		t := s.Topic(name)
		if t == nil {
			return 0, &ledger.Error{Kind: ledger.ErrUnknownTopic, Field: "scope.topic", Problem: "the sender has no such topic", Remedy: "see \"optout topic list\""}
		}
		if t.Class == ledger.Required {
			return 0, invalid("scope.topic", "a required topic is stopped by no link")
		}
		return t.Number, nil
	case name != "":
		return 0, invalid("scope.topic", "a topic goes only with SCOPE_KIND_TOPIC")
	case kind == optoutv1.ScopeKind_SCOPE_KIND_UNSPECIFIED || kind == optoutv1.ScopeKind_SCOPE_KIND_ALL:
		return s.All(), nil
	case kind == optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL:
		return s.Commercial(), nil
	}
	return 0, invalid("scope.kind", "unknown scope")
}

// Page tokens: the position to go on from and the bound of the listing, tied to the filters by a digest.

// pageIn reads page size and token. filter is the request without them.
func pageIn(size int32, token string, filter proto.Message) (ledger.Page, error) {
	p := ledger.Page{Size: int(size)}
	switch {
	case size < 0 || size > ledger.MaxPage:
		return p, invalid("page_size", "it must be 1 to %d", ledger.MaxPage)
	case size == 0:
		p.Size = 100
	}
	if token == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	digest := filterDigest(filter)
	if err != nil || len(b) != 16+len(digest) || !slices.Equal(b[16:], digest) {
		return p, &ledger.Error{Kind: ledger.ErrInvalidPageToken, Field: "page_token", Problem: "it is not a token of this listing",
			Remedy: "give the token of the previous page, with the same filters"}
	}
	p.Next, p.Bound = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	return p, nil
}

func pageOut(p ledger.Page, filter proto.Message) string {
	if p.Next == 0 {
		return ""
	}
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, p.Next), p.Bound)
	return base64.RawURLEncoding.EncodeToString(append(b, filterDigest(filter)...))
}

func filterDigest(filter proto.Message) []byte {
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(filter)
	sum := sha256.Sum256(append([]byte(filter.ProtoReflect().Descriptor().FullName()), b...))
	return sum[:8]
}

func keyHex(k [16]byte) string { return hex.EncodeToString(k[:]) }

// tokenOf takes the token out of a URL or mailto.
func tokenOf(s string) string {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "mailto:"), "?")
	s, _, _ = strings.Cut(s, "@")
	s = strings.TrimRight(s, "/")
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	return strings.TrimPrefix(s, link.MailPrefix)
}
