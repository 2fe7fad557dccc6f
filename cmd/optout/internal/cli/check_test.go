package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

// refuse answers DO_NOT_SEND to addresses that begin with "no", says that those without "@" are malformed, and SEND to the others.
func refuse(q *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
	r := &optoutv1.BatchCheckSendResponse{}
	for i, a := range q.Addresses {
		switch {
		case strings.HasPrefix(a, "no"):
			r.Verdicts = append(r.Verdicts, byte(optoutv1.Verdict_VERDICT_DO_NOT_SEND))
			r.Refused = append(r.Refused, &optoutv1.RefusedAddress{Index: uint32(i), Denials: []*optoutv1.Denial{{
				Reason: optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL, Scope: &optoutv1.Scope{Kind: optoutv1.ScopeKind_SCOPE_KIND_ALL},
				Since: timestamppb.New(time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)), Entry: 12, Joined: true}}})
		case !strings.Contains(a, "@"):
			r.Verdicts = append(r.Verdicts, byte(optoutv1.Verdict_VERDICT_DO_NOT_SEND))
			r.Malformed = append(r.Malformed, &optoutv1.MalformedAddress{Index: uint32(i), Message: "it has no @"})
		default:
			r.Verdicts = append(r.Verdicts, byte(optoutv1.Verdict_VERDICT_SEND))
		}
	}
	return r, nil
}

func TestCheckAnswers(t *testing.T) {
	f := &fake{check: refuse}
	env := f.serve(t)
	check := func(stdin string, args ...string) (int, string, string) {
		return runWith(t, env, stdin, append([]string{"check", "--topic", "news"}, args...)...)
	}

	code, stdout, stderr := check("", "ann@x.org", "bob@x.org")
	if code != exitOK || stdout != "SEND         ann@x.org\nSEND         bob@x.org\n" || stderr != "" {
		t.Errorf("all may be sent: exit %d, %q, %q", code, stdout, stderr)
	}
	code, stdout, _ = check("", "ann@x.org", "no@x.org", "nonsense", "ab")
	want := "SEND         ann@x.org\n" +
		"DO_NOT_SEND  no@x.org  opted out of ALL correspondence since 2026-03-01T10:00:00Z (entry 12), said at another address of the same person\n" +
		"DO_NOT_SEND  nonsense  opted out of ALL correspondence since 2026-03-01T10:00:00Z (entry 12), said at another address of the same person\n" +
		"DO_NOT_SEND  ab  it has no @\n"
	if code != exitNo || stdout != want {
		t.Errorf("one must not: exit %d, %q", code, stdout)
	}

	// The shape of the lines is part of the contract.
	code, stdout, _ = check("\xef\xbb\xbfann@x.org\r\n\n no@x.org \nab\n\xff@x.org\n\"q\"@x.org", "--json", "-")
	want = `{"address":"ann@x.org","verdict":"SEND"}
{"address":"no@x.org","verdict":"DO_NOT_SEND","reasons":[{"reason":"OPTED_OUT_ALL","scope":{"kind":"ALL"},"since":"2026-03-01T10:00:00Z","entry":12,"joined":true}]}
{"address":"ab","verdict":"DO_NOT_SEND","error":{"reason":"INVALID_ADDRESS","message":"it has no @"}}
{"address":"\ufffd@x.org","verdict":"DO_NOT_SEND","error":{"reason":"INVALID_ADDRESS","message":"it is not valid UTF-8"}}
{"address":"\"q\"@x.org","verdict":"SEND"}
`
	if code != exitNo || stdout != want {
		t.Errorf("JSON: exit %d\n%s\nwant\n%s", code, stdout, want)
	}
	if code, stdout, _ := check("", "-"); code != exitOK || stdout != "" {
		t.Errorf("nothing on standard input: exit %d, %q", code, stdout)
	}
	if code, _, stderr := check("a@x.org\n"+strings.Repeat("x", maxLine+1)+"\n", "-"); code != exitError || !strings.Contains(stderr, "line 2 is longer") {
		t.Errorf("a line that is too long: exit %d, %q", code, stderr)
	}
	for _, k := range f.keys {
		if k != "Bearer hunter2" {
			t.Errorf("a call carried the credential %q", k)
		}
	}
}

func TestCheckAsksWhatItWasTold(t *testing.T) {
	var got *optoutv1.BatchCheckSendRequest
	f := &fake{check: func(q *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
		got = q
		return refuse(q)
	}}
	runWith(t, append(f.serve(t), "OPTOUT_SENDER=acme", "OPTOUT_TOPIC=other"), "", "check", "--topic", "reset", "--in-answer-to", "reset asked", "--act-at", "2026-03-01T10:00:00Z", "a@x.org")
	if got.GetSender() != "acme" || got.GetTopic() != "reset" || got.GetInAnswerTo().GetAct() != "reset asked" || got.GetInAnswerTo().GetAt().GetSeconds() != 1772359200 {
		t.Errorf("asked %v", got)
	}
}

// An answer that is not understood is never SEND.
func TestCheckFailsClosed(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error)
		code   int
		want   string
	}{
		{"too few verdicts", func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
			return &optoutv1.BatchCheckSendResponse{Verdicts: []byte{1}}, nil
		}, exitError, "send to none of them"},
		{"a verdict of the future", func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
			return &optoutv1.BatchCheckSendResponse{Verdicts: []byte{1, 3}}, nil
		}, exitNo, ""},
		{"a verdict of zero", func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
			return &optoutv1.BatchCheckSendResponse{Verdicts: []byte{1, 0}}, nil
		}, exitNo, ""},
		{"SEND to what was malformed", func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
			return &optoutv1.BatchCheckSendResponse{Verdicts: []byte{1, 1}, Malformed: []*optoutv1.MalformedAddress{{Index: 1, Message: "bad"}}}, nil
		}, exitNo, ""},
		{"an error", func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
			return nil, status.Error(codes.Internal, "broken")
		}, exitError, "optout: broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := runWith(t, (&fake{check: c.answer}).serve(t), "", "check", "--topic", "news", "--json", "a@x.org", "b@x.org")
			if code != c.code || strings.Contains(stdout, `{"address":"b@x.org","verdict":"SEND"}`) {
				t.Errorf("exit %d, want %d; stdout %s", code, c.code, stdout)
			}
			_, _, stderr2 := runWith(t, (&fake{check: c.answer}).serve(t), "", "check", "--topic", "news", "a@x.org", "b@x.org")
			if !strings.Contains(stderr2, c.want) {
				t.Errorf("stderr %q, %q", stderr, stderr2)
			}
		})
	}
}

// Many lines are answered in order, in chunks; a line alone is answered before the next one comes.
func TestCheckStreams(t *testing.T) {
	calls, largest := 0, 0
	f := &fake{check: func(q *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
		calls, largest = calls+1, max(largest, len(q.Addresses))
		return refuse(q)
	}}
	env := f.serve(t)
	var in, want bytes.Buffer
	const n = 12345
	for i := range n {
		fmt.Fprintf(&in, "a%d@x.org\n", i)
		fmt.Fprintf(&want, "{\"address\":\"a%d@x.org\",\"verdict\":\"SEND\"}\n", i)
	}
	code, stdout, _ := runWith(t, env, in.String(), "check", "--topic", "news", "--json", "-")
	if code != exitOK || stdout != want.String() {
		t.Errorf("exit %d, %d octets, want %d in order", code, len(stdout), want.Len())
	}
	code, _, _ = runWith(t, env, "no@x.org\n"+in.String(), "check", "--topic", "news", "--json", "-")
	if code != exitNo {
		t.Errorf("one refused at the beginning of many: exit %d", code)
	}
	if largest > checkChunk || calls > n/checkChunk*6 {
		t.Errorf("%d calls of at most %d addresses", calls, largest)
	}

	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- Run(t.Context(), Process{Args: []string{"check", "--topic", "news", "--json", "-"}, Env: env, Stdin: inR, Stdout: outW, Stderr: io.Discard})
		outW.Close()
	}()
	answers := bufio.NewReader(outR)
	for i := range 3 {
		fmt.Fprintf(inW, "no%d@x.org\n", i)
		line, err := answers.ReadString('\n')
		var got struct{ Address, Verdict string }
		if err != nil || json.Unmarshal([]byte(line), &got) != nil || got.Address != fmt.Sprintf("no%d@x.org", i) || got.Verdict != "DO_NOT_SEND" {
			t.Fatalf("answer %q, %v", line, err)
		}
	}
	inW.Close()
	if code := <-done; code != exitNo {
		t.Errorf("exit %d after a refusal", code)
	}
}
