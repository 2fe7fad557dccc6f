package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
)

// mailto is the signed unsubscribe address of an address.
func (in *installation) mailto(t *testing.T, address string) string {
	t.Helper()
	_, rest, ok := strings.Cut(in.do(t, exitOK, "link", "--topic", "newsletter", address), "mailto:")
	to, _, _ := strings.Cut(rest, ">")
	to, _, _ = strings.Cut(to, "?")
	if !ok || !strings.HasPrefix(to, "u-") {
		t.Fatalf("no mailto in %q", rest)
	}
	return to
}

// plainMail is a short message.
func plainMail(from, to, subject string) string {
	return fmt.Sprintf("From: %s\nTo: %s\nSubject: %s\nDate: Sun, 01 Mar 2026 10:00:00 +0000\nMessage-ID: <%s@%s>\n\n\n", from, to, subject, subject, from)
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// What a mailbox holds is judged as if it had come by SMTP; a second time it changes nothing.
func TestSubmit(t *testing.T) {
	in := install(t, filepath.Join(t.TempDir(), "data"), "--mail-domain", "unsub.example.com")
	in.do(t, exitOK, "topic", "create", "newsletter")
	dir := t.TempDir()
	ann, bob, cy := in.mailto(t, "ann@example.com"), in.mailto(t, "bob@example.com"), in.mailto(t, "cy@example.com")
	const begin = "From x Sun Mar  1 10:00:00 2026\n"
	mbox := write(t, filepath.Join(dir, "old.mbox"), begin+plainMail("someone@example.net", ann, "stop")+begin+complaint(1, "dan@example.net")+"\n")
	write(t, filepath.Join(dir, "box/new/1"), plainMail("bob@example.com", bob, "stop"))
	eml := write(t, filepath.Join(dir, "cy.eml"), plainMail("cy@example.com", cy, "stop"))
	in.do(t, exitOK, "check", "--topic", "newsletter", "ann@example.com", "bob@example.com", "cy@example.com")

	demand(t, in.do(t, exitOK, "submit", "--to", ann, mbox), `^messages taken: 2\n2 +opted out\n$`)
	demand(t, in.do(t, exitOK, "submit", filepath.Join(dir, "box")), `^messages taken: 1\n1 +opted out\n$`)
	if m := in.object(t, exitOK, "submit", "--to", cy, "--to", "nobody@unsub.example.com", eml); m["message"] != "cy.eml" || fmt.Sprint(m["results"]) != fmt.Sprintf("[map[entry:%v outcome:OPTED_OUT to:%s why:signed address] map[outcome:NOT_OURS to:nobody@unsub.example.com why:there is no such address]]",
		m["results"].([]any)[0].(map[string]any)["entry"], cy) {
		t.Errorf("submit --json: %v", m)
	}
	demand(t, in.do(t, exitNo, "check", "--topic", "newsletter", "ann@example.com", "bob@example.com", "cy@example.com"), `DO_NOT_SEND +ann@.*\nDO_NOT_SEND +bob@.*\nDO_NOT_SEND +cy@`)
	fbl := "fbl@unsub.example.com"
	demand(t, in.do(t, exitOK, "submit", "--to", fbl, mbox), `\n2 +wait for review`)
	before := in.object(t, exitOK, "checkpoint")
	in.do(t, exitOK, "submit", "--to", ann, mbox)
	in.do(t, exitOK, "submit", "--to", fbl, mbox)
	if after := in.object(t, exitOK, "checkpoint"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("a second time it writes: %v, before %v", after, before)
	}
	elsewhere := write(t, filepath.Join(dir, "elsewhere.eml"), plainMail("a@example.com", "b@example.net", "hello"))
	demand(t, in.do(t, exitOK, "submit", elsewhere), `^messages taken: 1\n1 +name no address of yours: say with --to`)
	demand(t, in.do(t, exitError, "submit", "--remote-ip", "here", eml), `--remote-ip: it is no IP address`)
	demand(t, in.do(t, exitError, "submit", filepath.Join(dir, "none.mbox")), `no such file`)
	demand(t, in.do(t, exitError, "submit", write(t, filepath.Join(dir, "notes.txt"), "not mail\n")), `it holds no mail`)
	demand(t, in.do(t, exitError, "submit", "--concurrency", "0", eml), `--concurrency: it must be 1 to 64`)
	demand(t, in.do(t, exitError, "submit", "--format", "postfix", eml), `use one of: auto, mbox, maildir, eml`)
	demand(t, in.do(t, exitError, "submit", "-", eml), `- stands for standard input and goes alone`)
	_, key, _ := runWith(t, in.env, "", "key", "create", "--role", "mailer")
	demand(t, in.do(t, exitError, "submit", "--key-file", write(t, filepath.Join(dir, "key"), key), eml), `role`)
}

// box is an mbox of so many messages, whose subjects are their numbers.
func box(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "From x Sun Mar  1 10:00:00 2026\n%s", plainMail("a@example.com", "b@example.com", fmt.Sprintf("number%d", i)))
	}
	return b.String()
}

// number reads what box wrote.
func number(q *optoutv1.SubmitReportRequest) (n int) {
	_, rest, _ := strings.Cut(string(q.Message), "Subject: ")
	fmt.Sscanf(rest, "number%d", &n)
	return n
}

// Several messages are under way at once, and yet told in order.
func TestSubmitKeepsOrder(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	f := &fake{submit: func(q *optoutv1.SubmitReportRequest) (*optoutv1.SubmitReportResponse, error) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(time.Duration(number(q)%5) * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		return &optoutv1.SubmitReportResponse{Results: []*optoutv1.SubmitResult{{Outcome: optoutv1.SubmitOutcome_SUBMIT_OUTCOME_BOUNCE, Entry: uint64(number(q) + 1)}}}, nil
	}}
	code, out, errs := runWith(t, f.serve(t), box(100), "submit", "--json", "--concurrency", "7", "-")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != exitOK || len(lines) != 100 || most < 2 || most > 7 {
		t.Fatalf("exit %d, %d lines, %d at once, %q", code, len(lines), most, errs)
	}
	for i, line := range lines {
		var m submitted
		if err := json.Unmarshal([]byte(line), &m); err != nil || m.Message != fmt.Sprintf("-:%d", 1+8*i) || m.Results[0].Entry != uint64(i+1) || m.Results[0].Outcome != "BOUNCE" {
			t.Fatalf("%d: %v, %s", i, err, line)
		}
	}
}

// The service gets a message as transport has it, and of a large one the beginning, marked.
func TestSubmitSends(t *testing.T) {
	var got *optoutv1.SubmitReportRequest
	f := &fake{submit: func(q *optoutv1.SubmitReportRequest) (*optoutv1.SubmitReportResponse, error) {
		got = q
		return &optoutv1.SubmitReportResponse{}, nil
	}}
	env := f.serve(t)
	for name, c := range map[string]struct {
		in, want string
		size     int
		cut      bool
	}{
		"LF":           {"A: 1\n\nx\n", "A: 1\r\n\r\nx\r\n", 11, false},
		"CRLF":         {"A: 1\r\n\r\nx\r\n", "A: 1\r\n\r\nx\r\n", 11, false},
		"a bare LF":    {"A: 1\r\n\r\nx\ny\r\n", "A: 1\r\n\r\nx\ny\r\n", 13, false},
		"at the limit": {"A: 1\r\n\r\n" + strings.Repeat("x", maxSubmit-8), "A: 1\r\n\r\nx", maxSubmit, false},
		"over it":      {"A: 1\r\n\r\n" + strings.Repeat("x", 2*maxSubmit), "A: 1\r\n\r\nx", maxSubmit, true},
		"over by CRLF": {"A: 1\n\n" + strings.Repeat("x\n", maxSubmit/2-10), "A: 1\r\n\r\nx\r\n", maxSubmit, true},
	} {
		code, out, errs := runWith(t, env, c.in, "submit", "--to", "fbl@example.com", "--from", "a@example.com", "--remote-ip", "192.0.2.7", "-")
		if code != exitOK || len(got.Message) != c.size || !strings.HasPrefix(string(got.Message), c.want) || got.Truncated != c.cut || strings.Contains(out, "only the beginning") != c.cut {
			t.Errorf("%s: exit %d, %q, %q, %d octets, cut %v", name, code, out, errs, len(got.Message), got.Truncated)
		}
		if got.MailFrom != "a@example.com" || got.RemoteIp != "192.0.2.7" || fmt.Sprint(got.Recipients) != "[fbl@example.com]" {
			t.Errorf("%s: %v %v %v", name, got.MailFrom, got.RemoteIp, got.Recipients)
		}
	}
}

// A message that cannot be taken does not keep the others out; a service that is gone ends the run.
func TestSubmitFails(t *testing.T) {
	refusal := func(code codes.Code, reason string) error {
		st, _ := status.New(code, "refused").WithDetails(&errdetails.ErrorInfo{Domain: "optout", Reason: reason})
		return st.Err()
	}
	for name, c := range map[string]struct {
		fails  func(i int) error
		exit   int
		taken  string // in the summary
		stderr string
		calls  int
	}{
		"bad messages": {func(i int) error {
			return map[bool]error{true: refusal(codes.InvalidArgument, "INVALID_FIELD")}[i%2 == 0]
		}, exitNo, "messages taken: 5\n5  ask for nothing\n5  could not be taken", "-:1: refused", 10},
		"a full queue": {func(i int) error { return map[bool]error{true: refusal(codes.ResourceExhausted, "QUEUE_FULL")}[i > 2] }, exitNo, "messages taken: 3", "-:25: refused", 10},
		"one fault":    {func(i int) error { return map[bool]error{true: status.Error(codes.Internal, "fault")}[i == 4] }, exitNo, "messages taken: 9", "-:33: fault", 10},
		"many faults":  {func(i int) error { return map[bool]error{true: status.Error(codes.Internal, "fault")}[i > 1] }, exitError, "", "fault; messages taken before: 2", 5},
		"a full disk": {func(i int) error {
			return map[bool]error{true: refusal(codes.ResourceExhausted, "STORAGE_FULL")}[i > 3]
		}, exitError, "", "refused; messages taken before: 4; run the command again", 5},
		"not allowed":    {func(int) error { return refusal(codes.PermissionDenied, "ROLE_REQUIRED") }, exitError, "", "optout: refused\n", 1},
		"out of service": {func(int) error { return refusal(codes.Unavailable, "STORAGE_UNAVAILABLE") }, exitError, "", "optout: ", 3},
	} {
		calls := map[int]bool{}
		f := &fake{submit: func(q *optoutv1.SubmitReportRequest) (*optoutv1.SubmitReportResponse, error) {
			calls[number(q)] = true
			return &optoutv1.SubmitReportResponse{Results: []*optoutv1.SubmitResult{{Outcome: optoutv1.SubmitOutcome_SUBMIT_OUTCOME_IGNORED}}}, c.fails(number(q))
		}}
		code, out, errs := runWith(t, f.serve(t), box(10), "submit", "--concurrency", "1", "--timeout", "200ms", "-")
		if code != c.exit || !strings.HasPrefix(out, c.taken) || c.taken == "" && out != "" || !strings.Contains(errs, c.stderr) || len(calls) != c.calls {
			t.Errorf("%s: exit %d, %q, %q, %d messages", name, code, out, errs, len(calls))
		}
	}
	f := &fake{submit: func(*optoutv1.SubmitReportRequest) (*optoutv1.SubmitReportResponse, error) {
		return nil, refusal(codes.Internal, "INTERNAL")
	}}
	code, out, errs := runWith(t, f.serve(t), box(1), "submit", "-")
	if code != exitError || !strings.Contains(errs, "optout: refused") {
		t.Errorf("the only message: exit %d, %q, %q", code, out, errs)
	}
}
