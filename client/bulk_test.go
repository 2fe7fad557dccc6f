package client_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/wneessen/go-mail"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

// addressed yields one message for each address, and counts in taken how many it has yielded.
func addressed(t *testing.T, taken *int, addresses ...string) iter.Seq2[*mail.Msg, error] {
	return func(yield func(*mail.Msg, error) bool) {
		for _, a := range addresses {
			*taken++
			if !yield(message(t, []string{a}, nil, nil), nil) {
				return
			}
		}
	}
}

func numbered(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("p%04d@example.com", i))
	}
	return all
}

// outcomesOf collects results, each of which must come once.
func outcomesOf(t *testing.T, got map[string]client.Result) client.BulkOption {
	return client.WithResults(func(r client.Result) {
		if _, twice := got[r.Recipient]; twice {
			t.Errorf("%s has two results", r.Recipient)
		}
		got[r.Recipient] = r
	})
}

func noPause(time.Duration) {}

// Everybody who may be written to gets one message, over no more connections than asked for; the counts add up.
func TestBulkSendsToEverybodyOnce(t *testing.T) {
	s := newSetup(t)
	all := numbered(600)
	for i := 0; i < len(all); i += 50 {
		s.optOut(t, all[i])
	}
	got, taken := map[string]client.Result{}, 0
	var last client.Progress
	calls := 0
	p, err := s.mailer.SendBulk(t.Context(), "news", addressed(t, &taken, all...), client.WithBatch(100), client.WithConcurrency(6), outcomesOf(t, got),
		client.WithProgress(func(p client.Progress) {
			if p.Messages < last.Messages || p.Sent < last.Sent {
				t.Errorf("the counts went back from %v to %v", last, p)
			}
			last = p
			calls++
		}))
	want := client.Progress{Messages: 600, Recipients: 600, Sent: 588, Refused: 12}
	if err != nil || p != want || last != want || calls == 0 {
		t.Fatalf("%+v, %v; the last of %d reports was %+v", p, err, calls, last)
	}
	for i, a := range all {
		sent := 1
		if i%50 == 0 {
			sent = 0
		}
		if len(s.sink.to(a)) != sent || got[a].Message != i || (got[a].Outcome == client.Sent) != (sent == 1) {
			t.Errorf("%s: %d messages, %v", a, len(s.sink.to(a)), got[a])
		}
	}
	if s.sink.dialled > 6 || s.sink.dialled < 2 {
		t.Errorf("dialled %d times for 6 connections", s.sink.dialled)
	}
}

// Whatever a mail server does, nobody gets a message twice, and nobody is lost: who did not get it has a result that says so.
func TestBulkOnAMisbehavingServer(t *testing.T) {
	k := newSink(t)
	var mu sync.Mutex
	times := map[string]int{}
	// nth tells what is wrong with a recipient, by number, and how often they were tried there.
	nth := func(to string) (fault, n int) {
		mu.Lock()
		defer mu.Unlock()
		times[to]++
		fmt.Sscanf(to, "p%d@", &fault)
		return fault % 10, times[to]
	}
	k.onRcpt = func(to string, c *smtp.Conn) error {
		switch fault, n := nth(to); {
		case fault == 1 && n <= 2:
			return &smtp.SMTPError{Code: 451, Message: "greylisted"}
		case fault == 2:
			return &smtp.SMTPError{Code: 550, Message: "no such user"}
		case fault == 3:
			return &smtp.SMTPError{Code: 452, Message: "mailbox full, for ever"}
		case fault == 4 && n == 1:
			return &smtp.SMTPError{Code: 421, Message: "closing"}
		case fault == 5 && n == 1:
			c.Conn().Close() // lost before the dot
			return errors.New("closed")
		}
		return nil
	}
	k.reject = func(to string) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.HasSuffix(to, "6@example.com") && times[to] == 1:
			return &smtp.SMTPError{Code: 451, Message: "come back later"}
		case strings.HasSuffix(to, "7@example.com"):
			return &smtp.SMTPError{Code: 554, Message: "spam"}
		}
		return nil
	}
	k.onData = func(to string, c *smtp.Conn) error {
		switch {
		case strings.HasSuffix(to, "8@example.com"):
			c.Conn().Close() // lost after the dot
		case strings.HasSuffix(to, "9@example.com"):
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	}
	all := numbered(200)
	got, taken := map[string]client.Result{}, 0
	p, err := fast(t, k).SendBulk(t.Context(), "news", addressed(t, &taken, all...), client.WithBatch(20), client.WithRetries(2), outcomesOf(t, got), client.WithPauses(noPause))
	if want := (client.Progress{Messages: 200, Recipients: 200, Sent: 120, Failed: 60, Unknown: 20}); err != nil || p != want {
		t.Fatalf("%+v, %v", p, err)
	}
	for i, a := range all {
		want := map[int]client.Outcome{2: client.Failed, 3: client.Failed, 7: client.Failed, 8: client.Unknown}[i%10]
		tried := map[int]int{1: 3, 3: 3, 4: 2, 5: 2, 6: 2}[i%10]
		arrived := 1
		if want == client.NotAsked {
			want = client.Sent
		}
		if want == client.Failed {
			arrived = 0
		}
		if got[a].Outcome != want || len(k.to(a)) != arrived || times[a] != max(tried, 1) {
			t.Errorf("%s: %v (%v), %d arrived, tried %d times; want %v, %d, %d", a, got[a].Outcome, got[a].Err, len(k.to(a)), times[a], want, arrived, max(tried, 1))
		}
	}
}

// The pauses between tries double, up to a minute.
func TestBulkPauses(t *testing.T) {
	k := newSink(t)
	k.onRcpt = func(string, *smtp.Conn) error { return &smtp.SMTPError{Code: 450, Message: "later"} }
	var pauses []time.Duration
	taken := 0
	p, err := fast(t, k).SendBulk(t.Context(), "news", addressed(t, &taken, "a@example.com"), client.WithRetries(8), client.WithPauses(func(d time.Duration) { pauses = append(pauses, d) }))
	if want := "[1s 2s 4s 8s 16s 32s 1m0s 1m0s]"; err != nil || p.Failed != 1 || fmt.Sprint(pauses) != want {
		t.Errorf("%+v, %v; paused %v, want %s", p, err, pauses, want)
	}
}

// A no given after the check ahead, before the message leaves, is respected.
func TestBulkAsksAgainBeforeEachMessage(t *testing.T) {
	s := newSetup(t)
	all := numbered(50)
	var once sync.Once
	s.sink.before = func(string) { once.Do(func() { s.optOut(t, all[40]) }) }
	got, taken := map[string]client.Result{}, 0
	p, err := s.mailer.SendBulk(t.Context(), "news", addressed(t, &taken, all...), client.WithConcurrency(2), outcomesOf(t, got))
	if err != nil || p.Sent != 49 || p.Refused != 1 || got[all[40]].Outcome != client.Refused || len(s.sink.to(all[40])) != 0 {
		t.Errorf("%+v, %v; %v, %d arrived", p, err, got[all[40]], len(s.sink.to(all[40])))
	}
}

// Who is refused ahead is not asked about again, and the others do not see them in To or Cc.
func TestBulkLooksAhead(t *testing.T) {
	k, s := newSink(t), newScripted()
	s.batch = func(r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
		resp := &optoutv1.BatchCheckSendResponse{}
		for i, a := range r.Addresses {
			switch {
			case strings.HasPrefix(a, "b"):
				resp.Verdicts = append(resp.Verdicts, byte(optoutv1.Verdict_VERDICT_DO_NOT_SEND))
				resp.Refused = append(resp.Refused, &optoutv1.RefusedAddress{Index: uint32(i), Denials: []*optoutv1.Denial{{Reason: optoutv1.DenialReason_DENIAL_REASON_COMPLAINT}}})
			default:
				resp.Verdicts = append(resp.Verdicts, byte(optoutv1.Verdict_VERDICT_SEND))
			}
		}
		return resp, nil
	}
	var refused client.Result
	p, err := client.NewMailer(s.client(t), k.mail(t)).SendBulk(t.Context(), "news", func(yield func(*mail.Msg, error) bool) {
		_ = yield(three(t), nil) && yield(message(t, []string{"b2@example.com"}, nil, nil), nil)
	}, client.WithResults(func(r client.Result) {
		if r.Recipient == "b@example.com" {
			refused = r
		}
	}))
	if err != nil || p.Sent != 2 || p.Refused != 2 || s.called("CheckSend") != 2 || s.called("BatchCheckSend") != 1 || len(refused.Decision.Denials) != 1 {
		t.Errorf("%+v, %v; asked %d times; %v", p, err, s.called("CheckSend"), refused)
	}
	if head := header(k.to("a@example.com")[0]); strings.Contains(head, "b@example.com") || strings.Contains(head, "Cc:") {
		t.Errorf("the refused is shown:\n%s", head)
	}
}

// When optout cannot be asked any more, nothing leaves; and the caller who resumes as BulkError says reaches everybody, once.
func TestBulkResumes(t *testing.T) {
	for name, where := range map[string]string{"ahead": "BatchCheckSend", "right before": "CheckSend"} {
		t.Run(name, func(t *testing.T) {
			k, s := newSink(t), newScripted()
			var mu sync.Mutex
			asked, away := 0, false
			down := func(method string, after int) error {
				mu.Lock()
				defer mu.Unlock()
				if method == where {
					if asked++; asked == after {
						away = true
					}
				}
				if away {
					return errors.New("internal")
				}
				return nil
			}
			check, batch := s.check, s.batch
			s.check = func(r *optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
				if err := down("CheckSend", 35); err != nil {
					return nil, err
				}
				return check(r)
			}
			s.batch = func(r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
				if err := down("BatchCheckSend", 4); err != nil {
					return nil, err
				}
				return batch(r)
			}
			mailer, all := client.NewMailer(s.client(t), k.mail(t)), numbered(200)
			got, taken := map[string]client.Result{}, 0
			p, err := mailer.SendBulk(t.Context(), "news", addressed(t, &taken, all...), client.WithBatch(10), outcomesOf(t, got))
			var e *client.BulkError
			if !errors.Is(err, client.ErrCannotAsk) || !errors.As(err, &e) || e.Taken != taken || p.Messages != taken || taken == len(all) || p.Sent != k.total() || p.NotAsked == 0 {
				t.Fatalf("%+v, %v; %d taken, %d arrived", p, err, taken, k.total())
			}
			if p.Sent+p.NotAsked != p.Recipients {
				t.Errorf("%+v does not add up", p)
			}
			mu.Lock()
			away = false
			mu.Unlock()
			var left []string
			for _, a := range all[e.Resume:] {
				if got[a].Outcome == client.NotAsked {
					left = append(left, a)
				}
			}
			if _, err := mailer.SendBulk(t.Context(), "news", addressed(t, &taken, left...), client.WithBatch(10)); err != nil {
				t.Fatal(err)
			}
			for _, a := range all {
				if n := len(k.to(a)); n != 1 {
					t.Errorf("%s got %d messages", a, n)
				}
			}
		})
	}
}

// When ctx ends, no further message leaves, and the call returns though the server says nothing.
func TestBulkGivesUpWithItsContext(t *testing.T) {
	k := newSink(t)
	ctx, cancel := context.WithCancel(t.Context())
	silent := make(chan struct{})
	defer close(silent)
	k.onMail = func(n int, _ *smtp.Conn) error {
		if n > 20 {
			cancel()
			<-silent
		}
		return nil
	}
	got, taken := map[string]client.Result{}, 0
	p, err := fast(t, k).SendBulk(ctx, "news", addressed(t, &taken, numbered(500)...), client.WithBatch(10), outcomesOf(t, got))
	if !errors.Is(err, context.Canceled) || p.Sent != k.total() || p.Sent < 10 || p.Sent > 20 || p.Sent+p.NotAsked != p.Recipients || len(got) != p.Recipients || taken == 500 {
		t.Errorf("%+v, %v; %d arrived", p, err, k.total())
	}
}

// A caller who stops in the middle of a pause is not held.
func TestBulkGivesUpWhilePausing(t *testing.T) {
	k := newSink(t)
	ctx, cancel := context.WithCancel(t.Context())
	k.onRcpt = func(string, *smtp.Conn) error {
		cancel()
		return &smtp.SMTPError{Code: 450, Message: "later"}
	}
	taken := 0
	p, err := fast(t, k).SendBulk(ctx, "news", addressed(t, &taken, numbered(3)...), client.WithRetries(20))
	if !errors.Is(err, context.Canceled) || p.NotAsked != 3 || k.total() != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

// A server that takes fewer connections than wanted gets all messages over those it takes.
func TestBulkOnFewerConnections(t *testing.T) {
	k := newSink(t)
	k.onOpen = func(n int) error {
		if n > 2 {
			return &smtp.SMTPError{Code: 421, Message: "too many connections"}
		}
		return nil
	}
	taken := 0
	p, err := fast(t, k).SendBulk(t.Context(), "news", addressed(t, &taken, numbered(100)...), client.WithConcurrency(8), client.WithPauses(noPause))
	if err != nil || p.Sent != 100 || k.total() != 100 {
		t.Errorf("%+v, %v; %d arrived", p, err, k.total())
	}
}

// A mail server that is away ends the call after a bounded number of tries, before anybody is asked about.
func TestBulkMailServerAway(t *testing.T) {
	var mu sync.Mutex
	dialled := 0
	m, err := mail.NewClient("127.0.0.1", mail.WithTLSPolicy(mail.NoTLS), mail.WithDialContextFunc(func(context.Context, string, string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		dialled++
		return nil, errors.New("connection refused")
	}))
	if err != nil {
		t.Fatal(err)
	}
	s, taken := newScripted(), 0
	p, err := client.NewMailer(s.client(t), m).SendBulk(t.Context(), "news", addressed(t, &taken, numbered(100)...), client.WithConcurrency(2), client.WithRetries(2),
		client.WithBatch(10), client.WithPauses(noPause))
	var e *client.DeliveryError
	if !errors.As(err, &e) || e.Step != "connecting" || p.NotAsked != p.Recipients || dialled > 6 || s.called("CheckSend") != 0 {
		t.Errorf("%+v, %v; dialled %d times", p, err, dialled)
	}
}

// The sequence is read as the sending goes on, and what it yields before its error goes out.
func TestBulkReadsAsItGoes(t *testing.T) {
	k := newSink(t)
	taken, ended, most := 0, 0, 0
	broken := errors.New("the database went away")
	messages := func(yield func(*mail.Msg, error) bool) {
		for m := range addressed(t, &taken, numbered(300)...) {
			k.mu.Lock()
			most = max(most, taken-len(k.messages))
			k.mu.Unlock()
			if !yield(m, nil) {
				return
			}
		}
		yield(nil, broken)
	}
	p, err := fast(t, k).SendBulk(t.Context(), "news", messages, client.WithBatch(10), client.WithConcurrency(2), client.WithResults(func(client.Result) { ended++ }))
	if !errors.Is(err, broken) || p.Sent != 300 || ended != 300 || most > 20 {
		t.Errorf("%+v, %v; %d messages were held at once", p, err, most)
	}
}

// A message without recipients fails alone.
func TestBulkMessageWithoutRecipients(t *testing.T) {
	k := newSink(t)
	got := []client.Result{}
	p, err := fast(t, k).SendBulk(t.Context(), "news", func(yield func(*mail.Msg, error) bool) {
		_ = yield(nil, nil) && yield(mail.NewMsg(), nil) && yield(three(t), nil)
	}, client.WithResults(func(r client.Result) { got = append(got, r) }))
	if want := (client.Progress{Messages: 3, Recipients: 5, Sent: 3, Failed: 2}); err != nil || p != want || len(got) != 5 {
		t.Errorf("%+v, %v, %v", p, err, got)
	}
}

func TestBulkRefusesWrongOptions(t *testing.T) {
	k := newSink(t)
	for _, o := range []client.BulkOption{client.WithConcurrency(0), client.WithConcurrency(65), client.WithRetries(-1), client.WithRetries(21), client.WithBatch(0), client.WithBatch(1001)} {
		taken := 0
		if _, err := fast(t, k).SendBulk(t.Context(), "news", addressed(t, &taken, "a@example.com"), o); err == nil || taken != 0 {
			t.Errorf("%v, %d taken", err, taken)
		}
	}
}
