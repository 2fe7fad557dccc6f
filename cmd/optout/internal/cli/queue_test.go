package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

// feedback is a connection to the service's FeedbackService, for what no command does.
func (in *installation) feedback(t *testing.T) (optoutv1.FeedbackServiceClient, context.Context) {
	t.Helper()
	conn, err := grpc.NewClient(in.addr.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return optoutv1.NewFeedbackServiceClient(conn), metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+readKey(t, in.data))
}

// complaint is a report of abuse about mail to an address, which nobody signed and which holds no token of ours.
func complaint(id int, address string) string {
	return strings.ReplaceAll(fmt.Sprintf(`From: fbl@provider.example
To: fbl@unsub.example.com
Subject: complaint
Date: Sun, 01 Mar 2026 10:00:00 +0000
Message-ID: <complaint-%d@provider.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

This is a report of abuse.

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: provider/1.0
Version: 1
Original-Rcpt-To: %s

--b
Content-Type: message/rfc822

From: letters@example.com
Subject: our letter

Hello.

--b--
`, id, address), "\n", "\r\n")
}

const asksAboutOrder = "From: Eve <eve@example.net>\r\nTo: help@example.com\r\nSubject: our order\r\nDate: Sun, 01 Mar 2026 10:00:00 +0000\r\nMessage-ID: <question@example.net>\r\n\r\n" +
	"When will the blue teapot that we ordered be delivered?\r\n"

// queueInstallation is a service whose queue holds a question, a complaint in doubt and four bounces of a storm.
func queueInstallation(t *testing.T) *installation {
	t.Helper()
	in := install(t, filepath.Join(t.TempDir(), "data"), "--mail-domain", "unsub.example.com")
	in.do(t, exitOK, "topic", "create", "newsletter")
	in.do(t, exitOK, "sender", "update", "--contact-address", "help@example.com")
	f, ctx := in.feedback(t)
	for i := range 54 {
		_, err := f.RecordBounce(ctx, &optoutv1.RecordBounceRequest{Address: fmt.Sprintf("p%d@big.example", i), Type: optoutv1.BounceType_BOUNCE_TYPE_HARD, Status: "5.1.1", Diagnostic: "no such user"})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []string{asksAboutOrder, complaint(1, "dan@example.net")} {
		if code, out, errs := runWith(t, in.env, m, "submit", "-"); code != exitOK || !strings.Contains(out, "1  wait for review") {
			t.Fatalf("submit: exit %d, %q, %q", code, out, errs)
		}
	}
	return in
}

func (in *installation) queue(t *testing.T, args ...string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(in.do(t, exitOK, append([]string{"queue", "list", "--json"}, args...)...)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		all = append(all, m)
	}
	return all
}

// entry is the number of a message in the queue, as an argument.
func entry(m map[string]any) string { return fmt.Sprint(int(m["entry"].(float64))) }

func TestQueue(t *testing.T) {
	in := queueInstallation(t)
	list := in.do(t, exitOK, "queue", "list")
	demand(t, list, `(?m)^ +ENTRY +AGE +CLAIM +DOUBT +DECIDES +ADDRESS$`, `(?m)^ +\d+ +0m +bounce +storm +held +p5\d@big.example$`, `(?m)^ +\d+ +0m +complaint +reporter +waits for you +dan@example.net$`,
		`(?m)^ +\d+ +0m +message +unread +waits for you +`, `(?m)^6 in all: 4 held; 2 for you to decide\. `)
	demand(t, in.do(t, exitOK, "queue", "list", "--limit", "2"), `(?m)^the oldest 2: 2 held`)
	for n, args := range map[int][]string{6: {}, 4: {"--held"}, 5: {"--doubt", "storm,unread"}, 1: {"--doubt", "reporter"}, 3: {"--limit", "3"}} {
		if got := in.queue(t, args...); len(got) != n {
			t.Errorf("queue list %v: %d messages", args, len(got))
		}
	}
	if got := in.do(t, exitOK, "queue", "list", "--doubt", "forged"); got != "nothing waits\n" {
		t.Errorf("none: %q", got)
	}
	storm := in.queue(t, "--doubt", "storm")
	asked := in.queue(t, "--doubt", "unread")[0]
	complained := in.queue(t, "--doubt", "reporter")[0]
	if like := in.queue(t, "--like", entry(storm[0])); len(like) != 4 {
		t.Errorf("--like: %d", len(like))
	}

	demand(t, in.do(t, exitOK, "queue", "show", entry(storm[0]), entry(complained)), `^entry \d+: a mailbox is said not to exist\n`, `in doubt +storm: hard bounces of the domain have jumped`, `decides itself +no: too many came at once`,
		`diagnostic +no such user`, `concerns +p50@big.example`, `to suppress +makes the address undeliverable`, `\n\nentry \d+: somebody is said to have reported mail as spam \(COMMERCIAL\)`)
	in.do(t, exitError, "queue", "show", "1")
	if got := in.object(t, exitOK, "queue", "show", entry(asked)); got["claim"] != "MESSAGE" || got["waiting"] != true {
		t.Errorf("show --json: %v", got)
	}
	_, completed, _ := runWith(t, in.env, "", "__complete", "queue", "show", "")
	demand(t, completed, entry(asked)+"\tmessage, unread, waits for you")

	// Deciding.
	decide := func(code int, args ...string) string {
		t.Helper()
		return in.do(t, code, append([]string{"queue", "decide", "--justification", "read by hand"}, args...)...)
	}
	demand(t, decide(exitOK, "--suppress", entry(complained), entry(complained)), `^suppressed 1 of 1\n$`)
	demand(t, decide(exitOK, "--dismiss", entry(complained)), `^dismissed 0 of 1; the others were decided before\n$`)
	demand(t, in.do(t, exitNo, "check", "--topic", "newsletter", "dan@example.net"), `reported mail as spam`)
	demand(t, in.do(t, exitOK, "queue", "show", entry(complained)), `decided +yes; how, by whom and why: optout explain `)
	demand(t, decide(exitError, "--suppress", "1"), `has no message 1 in the queue`)
	demand(t, decide(exitError, "--dismiss", "--all"), `--yes: it is missing: 5 messages would be dismissed`)
	if got := decide(exitOK, "--dismiss", "--all", "--like", entry(storm[3]), "--yes"); got != "dismissed 4 of 4\n" {
		t.Errorf("a storm: %q", got)
	}
	demand(t, in.do(t, exitOK, "check", "--topic", "newsletter", "p53@big.example"), `^SEND`)
	code, out, errs := runWith(t, in.env, "\n"+entry(asked)+"\n", "queue", "decide", "--dismiss", "--justification", "answered", "-")
	if code != exitOK || out != "dismissed 1 of 1\n" {
		t.Errorf("from standard input: exit %d, %q, %q", code, out, errs)
	}
	if got := in.object(t, exitOK, "queue", "decide", "--suppress", "--justification", "x", "--all", "--yes"); got["decided"] != 0.0 {
		t.Errorf("nothing left: %v", got)
	}
}

func TestQueueUsage(t *testing.T) {
	for _, c := range []struct {
		args, stdin, want string
	}{
		{"list --doubt doubtful", "", "it must be one of: unproved, forged, unclear, unread, reporter, storm"},
		{"show", "", "ENTRY: it is missing"},
		{"decide 7 --justification x", "", "--suppress: it does not say what to decide"},
		{"decide 7 --suppress", "", "--justification: it is missing"},
		{"decide --suppress --justification x", "", "ENTRY: it is missing"},
		{"decide --suppress --dismiss --justification x 7", "", "--suppress: it does not go with --dismiss"},
		{"decide --suppress --justification x --all 7", "", "--all: it does not go with ENTRY"},
		{"decide --suppress --justification x --held", "", "choose among --all"},
		{"decide --suppress --justification x 7 -", "", "- stands for standard input and goes alone"},
	} {
		code, stdout, stderr := runWith(t, []string{"OPTOUT_KEY=x"}, c.stdin, append([]string{"queue"}, strings.Fields(c.args)...)...)
		if code != exitError || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("queue %s: exit %d, %q, %q, want %q", c.args, code, stdout, stderr, c.want)
		}
	}
	f := &fake{}
	code, _, stderr := runWith(t, f.serve(t), "7\nseven\n", "queue", "decide", "--suppress", "--justification", "x", "-")
	if code != exitError || !strings.Contains(stderr, "ENTRY: line 2 is not a number") {
		t.Errorf("what is no number: exit %d, %q", code, stderr)
	}
}

// Very many are decided in calls that the API takes, and what was done before an error is told.
func TestQueueDecidesInChunks(t *testing.T) {
	var sizes []int
	ids := map[string]bool{}
	f := &fake{decide: func(q *optoutv1.DecideQueueRequest) (*optoutv1.DecideQueueResponse, error) {
		sizes = append(sizes, len(q.Entries))
		ids[q.RequestId] = true
		if len(sizes) == 4 {
			return nil, context.DeadlineExceeded
		}
		return &optoutv1.DecideQueueResponse{Decided: uint32(len(q.Entries)), Position: &optoutv1.Position{Number: 7}}, nil
	}}
	env := f.serve(t)
	var in strings.Builder
	for i := range 2500 {
		fmt.Fprintln(&in, 2500-i)
	}
	args := []string{"queue", "decide", "--dismiss", "--justification", "x", "-"}
	if code, out, errs := runWith(t, env, in.String(), args...); code != exitOK || out != "dismissed 2500 of 2500\n" || fmt.Sprint(sizes) != "[1000 1000 500]" || len(ids) != 3 || ids[""] {
		t.Errorf("exit %d, %q, %q, chunks %v, %d ids", code, out, errs, sizes, len(ids))
	}
	sizes = []int{0, 0}
	if code, out, errs := runWith(t, env, in.String(), args...); code != exitError || out != "" || !strings.Contains(errs, "; 1000 were decided before: repeat the command") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

// On a terminal --all asks, and only a yes goes on.
func TestQueueDecideAsks(t *testing.T) {
	decided := 0
	f := &fake{decide: func(q *optoutv1.DecideQueueRequest) (*optoutv1.DecideQueueResponse, error) {
		decided += len(q.Entries)
		return &optoutv1.DecideQueueResponse{Decided: uint32(len(q.Entries))}, nil
	}, list: func(q *optoutv1.ListQueueRequest) (*optoutv1.ListQueueResponse, error) {
		if q.PageToken == "" {
			return &optoutv1.ListQueueResponse{NextPageToken: "2", Messages: []*optoutv1.QueuedMessage{{Entry: 5, AddressKey: "aa"}, {Entry: 6}}}, nil
		}
		return &optoutv1.ListQueueResponse{Messages: []*optoutv1.QueuedMessage{{Entry: 7, AddressKey: "bb"}}}, nil
	}}
	env := f.serve(t)
	for answer, want := range map[string]int{"y\n": 2, "Yes": 2, "n\n": 0, "\n": 0, "": 0, "yesterday\n": 0} {
		decided = 0
		var out, errs bytes.Buffer
		code := Run(t.Context(), Process{Args: []string{"queue", "decide", "--suppress", "--all", "--justification", "x"}, Env: env, Terminal: true, Stdin: strings.NewReader(answer), Stdout: &out, Stderr: &errs})
		if decided != want || (code == exitOK) != (want > 0) || !strings.Contains(errs.String(), "2 messages will be suppressed. Go on? [y/N]") {
			t.Errorf("%q: exit %d, %d decided, %q, %q", answer, code, decided, out.String(), errs.String())
		}
		if want > 0 && !strings.Contains(out.String(), "suppressed 2 of 2\nleft out: 1 that name no address") {
			t.Errorf("%q: %q", answer, out.String())
		}
	}
}

func TestWhenMessagesDecideThemselves(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	due := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	sum := queueSummary{}
	for _, c := range []struct {
		m    *optoutv1.QueuedMessage
		want string
	}{
		{&optoutv1.QueuedMessage{Waiting: true, Known: true, DueAt: due(23*time.Hour + 5*time.Minute)}, "in 23h05m"},
		{&optoutv1.QueuedMessage{Waiting: true, Known: true, DueAt: due(75 * time.Hour)}, "in 3d3h"},
		{&optoutv1.QueuedMessage{Waiting: true, Known: true, DueAt: due(90 * time.Second)}, "in 1m"},
		{&optoutv1.QueuedMessage{Waiting: true, Known: true, DueAt: due(-time.Hour)}, "any minute"},
		{&optoutv1.QueuedMessage{Waiting: true, DueAt: due(time.Hour)}, "once known"},
		{&optoutv1.QueuedMessage{Waiting: true, Held: true, Known: true, DueAt: due(time.Hour)}, "held"},
		{&optoutv1.QueuedMessage{Waiting: true, Known: true}, "waits for you"},
		{&optoutv1.QueuedMessage{DueAt: due(time.Hour)}, "is decided"},
	} {
		if got := decides(c.m, now); got != c.want {
			t.Errorf("%v: %q, want %q", c.m, got, c.want)
		}
		if c.m.Waiting {
			sum.add(c.m)
		}
	}
	var b strings.Builder
	sum.tell(&b, now, 0)
	if want := "\n7 in all: 4 decided by the clock, the first any minute; 1 decided once the ledger knows the address; 1 held; 1 for you to decide. Read one: optout queue show ENTRY\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}

// What a person wrote must not steer the terminal.
func TestQueuedWordsAreShownSafely(t *testing.T) {
	var b strings.Builder
	showQueued(&b, &optoutv1.QueuedMessage{Entry: 7, Evidence: map[string]string{"subject": "\x1b[2Jstop", "words": "one\r\n\x1b[1mtwo\u202e"}}, time.Now())
	if strings.ContainsAny(b.String(), "\x1b\r\u202e") || !strings.Contains(b.String(), "  | one\n  | \\u001b[1mtwo\\u202e\n") {
		t.Errorf("%q", b.String())
	}
}
