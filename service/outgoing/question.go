package outgoing

import (
	"net/mail"
	"strconv"
	"strings"
	"time"

	"optout/service/ledger"
)

// The fields by which a message says what it is. They are taken off before it leaves.
const (
	fieldTopic   = "X-Optout-Topic"
	fieldMailing = "X-Optout-Mailing"
	fieldAnswer  = "X-Optout-In-Answer-To"
	fieldReceipt = "X-Optout-Receipt"
	fieldPrefix  = "X-Optout-"
)

var badTopic = [3]int{5, 7, 1}

// Ask reads what a message asks out of its header. fallback is the topic of a message that names none; empty means the key's
// default topic. The key may name a topic of another sender that it is bound to as SENDER/TOPIC.
func (j *Judge) Ask(key *ledger.APIKey, h *Header, fallback string) (*Question, *Refusal) {
	for _, name := range []string{fieldTopic, fieldMailing, fieldAnswer} {
		if len(h.Values(name)) > 1 {
			return nil, Fault(550, [3]int{5, 6, 0}, "the message has more than one %s: keep one", name)
		}
	}
	q := &Question{Key: key}
	name := h.Value(fieldTopic)
	if name == "" {
		name = fallback
	}
	if name == "" {
		name = key.DefaultTopic
	}
	if name == "" {
		return nil, errNoTopic
	}
	if r := j.topic(q, name); r != nil {
		return nil, r
	}
	if v := h.Value(fieldMailing); v != "" {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return nil, Fault(550, [3]int{5, 6, 0}, "%s is not a mailing number: give one from 0 to 4294967295", fieldMailing)
		}
		q.Mailing = uint32(n)
	}
	if v := h.Value(fieldAnswer); v != "" {
		act, ok := j.act(v)
		if !ok {
			return nil, Fault(550, [3]int{5, 6, 0}, "%s does not say what the person did and when: give it as \"asked for a new password; 2026-01-31T12:00:00Z\"", fieldAnswer)
		}
		q.Act = act
	}
	return q, nil
}

// topic resolves a topic's name. A key that is bound learns nothing of other senders, not even whether they exist.
func (j *Judge) topic(q *Question, name string) *Refusal {
	reg := j.o.Ledger.Registry()
	all := senders(reg, q.Key)
	if owner, rest, ok := strings.Cut(name, "/"); ok {
		s := reg.Sender(owner)
		if s == nil || !q.Key.MayUseSender(s.Name) {
			return Fault(550, badTopic, "%s: the credential may not name this sender", fieldTopic)
		}
		all, name = []*ledger.Sender{s}, rest
	}
	for _, s := range all {
		t := s.Topic(name)
		if t == nil {
			continue
		}
		if !q.Key.MayUseTopic(t) {
			return Fault(550, badTopic, "%s: the credential may not name the topic %s: name one of its own, or create a credential that lists this one", fieldTopic, t.Name)
		}
		q.Sender, q.Topic = s, t
		return nil
	}
	return Fault(550, badTopic, "%s: there is no such topic: see \"optout topic list\"", fieldTopic)
}

// act reads what a person did and when: "WHAT; TIME", the time as RFC 3339 or RFC 5322 have it.
func (j *Judge) act(v string) (ledger.Act, bool) {
	i := strings.LastIndexByte(v, ';')
	if i < 0 {
		return ledger.Act{}, false
	}
	what, when := strings.TrimSpace(v[:i]), strings.TrimSpace(v[i+1:])
	at, err := time.Parse(time.RFC3339, when)
	if err != nil {
		at, err = mail.ParseDate(when)
	}
	return ledger.Act{What: what, At: at}, err == nil && what != ""
}
