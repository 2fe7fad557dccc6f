package cli

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"optout/cmd/optout/internal/sentmail"
	optoutv1 "optout/proto/optout/v1"
	"optout/service/receipt"
)

// auditJudge judges messages.
type auditJudge interface {
	// judge returns a finding for every message, in order.
	judge(ctx context.Context, messages []sentmail.Message) ([]auditFinding, error)
	// position is the ledger's head that the last findings reflect; nil for a judge that asks no ledger.
	position() *optoutv1.Position
}

// auditFinding is what was found about one message.
type auditFinding struct {
	kind      optoutv1.AuditFinding
	checked   bool
	topic     string
	checkedAt time.Time
	refused   []refusedThen
	unread    int // addresses that could not be read
}

// refusedThen is an address for which a no stood.
type refusedThen struct {
	address string
	denials []*optoutv1.Denial
}

// onlineJudge asks the service.
type onlineJudge struct {
	*call
	flags *auditFlags
	head  *optoutv1.Position
}

func (j *onlineJudge) position() *optoutv1.Position { return j.head }

func (j *onlineJudge) judge(_ context.Context, messages []sentmail.Message) ([]auditFinding, error) {
	findings := make([]auditFinding, len(messages))
	var open []question // still to be asked
	for i := range messages {
		open = append(open, question{i, j.recipients(&messages[i])})
	}
	for len(open) > 0 {
		var again []question
		for part := range slices.Chunk(open, auditChunk) {
			results, err := j.ask(messages, part)
			if err != nil {
				return nil, err
			}
			for n, r := range results {
				q := part[n]
				found := j.finding(r, q.sets[0])
				if findings[q.message].kind == 0 || found.checked {
					findings[q.message] = j.only(found, &messages[q.message], j.recipients(&messages[q.message])[0])
				}
				if r.Finding == optoutv1.AuditFinding_AUDIT_FINDING_OTHER_ADDRESS && len(q.sets) > 1 {
					again = append(again, question{q.message, q.sets[1:]})
				}
			}
		}
		open = again
	}
	return findings, nil
}

// question is a message, and the sets of recipients for which its receipt may be: the next is asked about where the receipt is
// not for the one before.
type question struct {
	message int
	sets    [][]string
}

// recipients are those to whom a message went and whom the audit is about, and then, of a log, those who may have been in the same
// check: internal ones, and those who did not get it.
func (j *onlineJudge) recipients(m *sentmail.Message) [][]string {
	if m.Shown {
		return [][]string{m.To}
	}
	external := slices.DeleteFunc(slices.Clone(m.To), j.flags.isInternal)
	sets := [][]string{external}
	if len(external) < len(m.To) {
		sets = append(sets, m.To)
	}
	if n := len(m.To) + len(m.Joined); len(m.Joined) > 0 && n <= sentmail.MaxRecipients {
		sets = append(sets, slices.Concat(m.To, m.Joined))
	}
	return sets
}

func (j *onlineJudge) ask(messages []sentmail.Message, questions []question) ([]*optoutv1.AuditResult, error) {
	r := &optoutv1.AuditMailRequest{Sender: j.sender, MaxAge: durationpb.New(j.flags.maxAge)}
	for _, q := range questions {
		m := &messages[q.message]
		item := &optoutv1.AuditItem{Topic: j.flags.topic, Receipt: strings.ToValidUTF8(m.Receipt, "?"), Shown: m.Shown}
		for _, a := range q.sets[0] {
			item.Addresses = append(item.Addresses, strings.ToValidUTF8(a, "?")) // the API could not even carry it
		}
		if !m.Left.IsZero() {
			item.LeftAt = timestamppb.New(m.Left)
		}
		r.Items = append(r.Items, item)
	}
	resp, err := j.ledger.AuditMail(j.ctx, r)
	if err != nil {
		return nil, err
	}
	if len(resp.Results) != len(questions) {
		return nil, fmt.Errorf("the service judged %d of %d messages", len(resp.Results), len(questions))
	}
	j.head = resp.Position
	return resp.Results, nil
}

func (j *onlineJudge) finding(r *optoutv1.AuditResult, addresses []string) auditFinding {
	f := auditFinding{kind: r.Finding, checked: r.Checked, topic: r.Topic, unread: len(r.Unread)}
	if r.CheckedAt != nil {
		f.checkedAt = r.CheckedAt.AsTime()
	}
	for _, x := range r.Refused {
		if int(x.Index) < len(addresses) {
			f.refused = append(f.refused, refusedThen{addresses[x.Index], x.Denials})
		}
	}
	return f
}

// only leaves of a finding what is about these recipients: others of the same check did not get the mail, or not then.
func (j *onlineJudge) only(f auditFinding, m *sentmail.Message, about []string) auditFinding {
	if f.kind != optoutv1.AuditFinding_AUDIT_FINDING_AFTER_OPT_OUT {
		return f
	}
	f.refused = slices.DeleteFunc(f.refused, func(r refusedThen) bool { return !slices.Contains(about, r.address) })
	if len(f.refused) == 0 { // so it has a receipt, which is for these and others
		f.kind = age(m.Left, f.checkedAt, j.flags.maxAge)
	}
	return f
}

// age is the finding about a message that was checked in a minute and left at a time, which may not be known.
func age(left, checked time.Time, limit time.Duration) optoutv1.AuditFinding {
	if left.Sub(checked) > limit {
		return optoutv1.AuditFinding_AUDIT_FINDING_STALE
	}
	return optoutv1.AuditFinding_AUDIT_FINDING_OK
}

// offlineJudge verifies signatures and asks nobody.
type offlineJudge struct {
	flags    *auditFlags
	receipts *receipt.Verifier
}

func newOfflineJudge(f *auditFlags) (*offlineJudge, error) {
	bad := func(problem string) error {
		return wrongUsage("--offline", problem, "it is the file that \"optout key receipt\" prints")
	}
	if f.topic != "" {
		return nil, wrongUsage("--topic", "it does not go with --offline, which judges by no topic", "leave it out")
	}
	file, err := os.Open(f.offline)
	if err != nil {
		return nil, bad(err.Error())
	}
	defer file.Close()
	keys := map[byte]ed25519.PublicKey{}
	for s := bufio.NewScanner(io.LimitReader(file, 1<<20)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, key, err := receipt.ParsePublicText(line)
		if err != nil {
			return nil, bad(err.Error())
		}
		keys[id] = key
	}
	if len(keys) == 0 {
		return nil, bad("it holds no key")
	}
	v, err := receipt.NewVerifier(keys)
	return &offlineJudge{f, v}, err
}

func (j *offlineJudge) position() *optoutv1.Position { return nil }

func (j *offlineJudge) judge(_ context.Context, messages []sentmail.Message) ([]auditFinding, error) {
	findings := make([]auditFinding, len(messages))
	for i, m := range messages {
		f := &findings[i]
		c, err := j.receipts.Verify(m.Receipt)
		switch {
		case m.Receipt == "":
			f.kind = optoutv1.AuditFinding_AUDIT_FINDING_UNCHECKED
		case errors.Is(err, receipt.ErrMalformed), errors.Is(err, receipt.ErrUnknownKey), errors.Is(err, receipt.ErrForged):
			f.kind = optoutv1.AuditFinding_AUDIT_FINDING_FORGED
		case err != nil:
			return nil, err
		default:
			f.checked, f.checkedAt = true, time.Unix(int64(c.Minute)*60, 0)
			f.kind = age(m.Left, f.checkedAt, j.flags.maxAge)
		}
	}
	return findings, nil
}
