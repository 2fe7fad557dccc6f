package cli

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/grpc"

	optoutv1 "optout/proto/optout/v1"
)

func TestVerifyTellsTheResult(t *testing.T) {
	end := func(last *optoutv1.VerifyResponse) *fake {
		return &fake{verify: func(s grpc.ServerStreamingServer[optoutv1.VerifyResponse]) error {
			for i := range 3 {
				s.Send(&optoutv1.VerifyResponse{Verified: uint64(i * 10), Total: 30})
			}
			if last != nil {
				return s.Send(last)
			}
			return nil
		}}
	}
	head := &optoutv1.Position{LedgerId: "0123456789abcdef", Number: 30}
	good := &optoutv1.VerifyResponse{Verified: 30, Total: 30, Done: true, Position: head}
	bad := &optoutv1.VerifyResponse{Verified: 6, Total: 30, Done: true, FirstBad: 7, Fault: "entry 7 is not what was written", Position: head}
	for _, c := range []struct {
		name             string
		last             *optoutv1.VerifyResponse
		args             []string
		code             int
		stdout, inStderr string
	}{
		{"good", good, nil, exitOK, "all is well: ledger 0123456789abcdef, 30 entries verified\n", ""},
		{"bad", bad, nil, exitNo, "the ledger does not verify. The first bad entry is 7: entry 7 is not what was written\n", ""},
		{"good, JSON", good, []string{"--json"}, exitOK, `{"ok":true,"verified":30,"total":30,"done":true,"first_bad":0,"position":{"ledger_id":"0123456789abcdef","number":30}}` + "\n", ""},
		{"bad, JSON", bad, []string{"--json"}, exitNo, `{"ok":false,"verified":6,"total":30,"done":true,"first_bad":7,"fault":"entry 7 is not what was written","position":{"ledger_id":"0123456789abcdef","number":30}}` + "\n", ""},
		{"cut off", nil, nil, exitError, "", "verify again"},
	} {
		code, stdout, stderr := runWith(t, end(c.last).serve(t), "", append([]string{"verify"}, c.args...)...)
		if code != c.code || stdout != c.stdout || !strings.Contains(stderr, c.inStderr) || c.inStderr == "" && stderr != "" {
			t.Errorf("%s: exit %d, %q, %q", c.name, code, stdout, stderr)
		}
	}

	// On a terminal there is a bar, on standard error, and not with --json.
	for _, asJSON := range []bool{false, true} {
		args := []string{"verify"}
		if asJSON {
			args = append(args, "--json")
		}
		var out, errs bytes.Buffer
		code := Run(t.Context(), Process{Args: args, Env: end(good).serve(t), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Terminal: true})
		if code != exitOK || strings.Contains(errs.String(), "verifying") == asJSON || strings.Contains(out.String(), "verifying") {
			t.Errorf("on a terminal, JSON %v: exit %d, stdout %q, stderr %q", asJSON, code, out.String(), errs.String())
		}
	}
}
