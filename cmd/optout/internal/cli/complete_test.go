package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	optoutv1 "optout/proto/optout/v1"
)

func TestCompletion(t *testing.T) {
	f := &fake{topics: func(context.Context) (*optoutv1.ListTopicsResponse, error) {
		return &optoutv1.ListTopicsResponse{Topics: []*optoutv1.Topic{{Name: "newsletter", Description: "our letter"}, {Name: "receipts"}}}, nil
	}}
	env := f.serve(t)
	for _, args := range [][]string{{"check", "--topic", ""}, {"link", "--only-topic", ""}, {"topic", "update", ""}, {"check", "--sender", "acme", "--topic", ""}} {
		if _, stdout, _ := runWith(t, env, "", append([]string{"__complete"}, args...)...); !strings.HasPrefix(stdout, "newsletter\tour letter\nreceipts\n:4\n") {
			t.Errorf("%v: %q", args, stdout)
		}
	}
	if _, stdout, _ := runWith(t, env, "", "__complete", "topic", "create", "x", "--class", ""); !strings.HasPrefix(stdout, "commercial\ntransactional\nrequired\n:4\n") {
		t.Errorf("of fixed words: %q", stdout)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, stdout, _ := runWith(t, nil, "", "completion", shell); code != exitOK || !strings.Contains(stdout, "__complete") {
			t.Errorf("%s: exit %d, %d octets", shell, code, len(stdout))
		}
	}
}

// A shell must not hang on a service that does not answer, nor be shown errors.
func TestCompletionGivesUp(t *testing.T) {
	slow := &fake{topics: func(ctx context.Context) (*optoutv1.ListTopicsResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	for name, env := range map[string][]string{"slow": slow.serve(t), "gone": {"OPTOUT_KEY=x", "OPTOUT_SERVER=127.0.0.1:1"}, "no key": {"OPTOUT_DATA=" + t.TempDir()}} {
		begin := time.Now()
		_, stdout, _ := runWith(t, env, "", "__complete", "check", "--topic", "")
		if took := time.Since(begin); stdout != ":4\n" || took > 800*time.Millisecond {
			t.Errorf("%s: %q after %v", name, stdout, took)
		}
	}
}
