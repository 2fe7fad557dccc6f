package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

// checkChunk is how many addresses go into one call; the API takes 10 000.
const checkChunk = 1000

type checkFlags struct {
	topic string
	act   string
	actAt timeFlag
}

func (p *program) checkCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check --topic TOPIC ADDRESS... | -",
		Short: "May this mail be sent?",
		Long: `Asks, for each address, whether mail of the topic may be sent right now. Ask when each message leaves, not when the list is
made: people say stop in between, and what counts is the moment of sending.

Exit code 0: it may be sent to all; 1: to at least one it must not; 2: no answer, and then nothing may be sent.

"-" reads addresses from standard input, one a line, and answers in the same order while it reads; blank lines are skipped. An
address that cannot be read is answered DO_NOT_SEND. With --json each address gets one object on one line:

  {"address":"ada@example.com","verdict":"SEND"}
  {"address":"bob@example.com","verdict":"DO_NOT_SEND","reasons":[{"reason":"OPTED_OUT_ALL","scope":{"kind":"ALL"},
   "since":"2026-03-01T10:00:00Z","entry":12,"joined":false}]}
  {"address":"bob@","verdict":"DO_NOT_SEND","error":{"reason":"INVALID_ADDRESS","message":"…"}}

A required topic with ground "answer" passes a person's no only when the check names what the person has just done
(--in-answer-to). Every such send in spite of a no is an entry of the ledger.`,
		Example: `  optout check --topic newsletter ada@example.com bob@example.org
  optout check --topic newsletter --json - < addresses.txt > verdicts.jsonl
  optout check --topic password-reset --in-answer-to "password reset requested" ada@example.com && send-the-mail`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && slices.Contains(args, "-") {
				return wrongUsage("ADDRESS", "- stands for standard input and goes alone", "give addresses, or - and nothing else")
			}
			return needArgs(1, -1, "ADDRESS", "give at least one address, or - to read them from standard input")(cmd, args)
		},
	}
	cmd.Flags().StringVar(&f.topic, "topic", "", "`TOPIC` of the mail (required; see \"optout topic list\")")
	cmd.Flags().StringVar(&f.act, "in-answer-to", "", "the `ACT` of the person that the mail answers, without personal data; only for required topics with ground \"answer\"")
	cmd.Flags().Var(&f.actAt, "act-at", "`TIME` of that act, at most 30 days ago (default: now)")
	requiredTopic(cmd)
	return p.online(cmd, func(c *call, args []string) error { return c.check(&f, args) })
}

func (c *call) check(f *checkFlags, args []string) error {
	if f.act == "" && f.actAt.given() {
		return wrongUsage("--act-at", "it goes only with --in-answer-to", "give both")
	}
	var next func() ([]string, error)
	if len(args) == 1 && args[0] == "-" {
		ctx, stop := context.WithCancel(c.ctx)
		defer stop()
		next = readLines(ctx, c.Stdin)
	} else {
		next = func() ([]string, error) {
			n := min(len(args), checkChunk)
			chunk := args[:n]
			args = args[n:]
			if n == 0 {
				return nil, io.EOF
			}
			return chunk, nil
		}
	}
	out := bufio.NewWriter(c.Stdout)
	refused := false
	for {
		chunk, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		no, err := c.checkChunk(f, chunk, out)
		if err != nil {
			return err
		}
		refused = refused || no
		if err := out.Flush(); err != nil {
			return err
		}
	}
	if refused {
		return errNo
	}
	return nil
}

// checkChunk asks about some addresses, prints the answers, and tells whether any was refused.
func (c *call) checkChunk(f *checkFlags, addresses []string, out io.Writer) (refused bool, err error) {
	q := &optoutv1.BatchCheckSendRequest{Sender: c.sender, Topic: f.topic, Addresses: addresses}
	denials, malformed := map[uint32][]*optoutv1.Denial{}, map[uint32]string{}
	for i, a := range addresses {
		if !utf8.ValidString(a) { // the API could not even carry it, and would refuse all the others with it
			if len(malformed) == 0 {
				q.Addresses = slices.Clone(addresses)
			}
			malformed[uint32(i)], q.Addresses[i] = "it is not valid UTF-8", ""
		}
	}
	if f.act != "" {
		q.InAnswerTo = &optoutv1.InAnswerTo{Act: f.act, At: f.actAt.stampOr(time.Now())}
	}
	r, err := c.suppression.BatchCheckSend(c.ctx, q)
	if err != nil {
		return false, err
	}
	if len(r.Verdicts) != len(addresses) {
		return false, fmt.Errorf("the service answered %d of %d addresses: send to none of them", len(r.Verdicts), len(addresses))
	}
	for _, d := range r.Refused {
		denials[d.Index] = d.Denials
	}
	for _, m := range r.Malformed {
		if malformed[m.Index] == "" {
			malformed[m.Index] = m.Message
		}
	}
	for i, a := range addresses {
		// Only SEND permits; whatever else stands there, known or not, forbids.
		send := optoutv1.Verdict(r.Verdicts[i]) == optoutv1.Verdict_VERDICT_SEND && malformed[uint32(i)] == ""
		refused = refused || !send
		if c.json {
			_, err = out.Write(verdictJSON(a, send, denials[uint32(i)], malformed[uint32(i)]))
		} else {
			_, err = fmt.Fprintln(out, printable(verdictLine(a, send, denials[uint32(i)], malformed[uint32(i)])))
		}
		if err != nil {
			return refused, err
		}
	}
	return refused, nil
}

// verdictJSON is the line of one address under --json. Its names are part of the contract.
func verdictJSON(address string, send bool, denials []*optoutv1.Denial, malformed string) []byte {
	b := appendJSON([]byte(`{"address":`), address)
	if send {
		return append(b, `,"verdict":"SEND"}`+"\n"...)
	}
	b = append(b, `,"verdict":"DO_NOT_SEND"`...)
	if malformed != "" {
		b = append(b, `,"error":{"reason":"INVALID_ADDRESS","message":`...)
		b = append(appendJSON(b, malformed), '}')
	} else {
		b = append(b, `,"reasons":[`...)
		for i, d := range denials {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, jsonOf(d)...)
		}
		b = append(b, ']')
	}
	return append(b, "}\n"...)
}

// verdictLine is the line of one address as people read it.
func verdictLine(address string, send bool, denials []*optoutv1.Denial, malformed string) string {
	switch {
	case send:
		return "SEND         " + address
	case malformed != "":
		return "DO_NOT_SEND  " + address + "  " + malformed
	}
	return "DO_NOT_SEND  " + address + "  " + becauseAll(denials)
}

// maxLine is how long a line of standard input may be; an address has at most 254 octets.
const maxLine = 4096

// readLines reads lines that are not blank, a chunk at a time. A chunk holds what has come so far, so that a caller who writes
// one line and waits is answered at once, and a file is read in large chunks; no more than two chunks are held.
func readLines(ctx context.Context, r io.Reader) func() ([]string, error) {
	lines := make(chan string, checkChunk)
	var failed error // set before lines is closed
	go func() {
		defer close(lines)
		s := bufio.NewScanner(r)
		s.Buffer(make([]byte, 0, maxLine), maxLine)
		n := 0
		for ; s.Scan(); n++ {
			line := strings.TrimSpace(strings.TrimPrefix(s.Text(), "\ufeff"))
			if line == "" {
				continue
			}
			select {
			case lines <- line:
			case <-ctx.Done():
				return
			}
		}
		if err := s.Err(); errors.Is(err, bufio.ErrTooLong) {
			failed = wrongUsage("standard input", fmt.Sprintf("line %d is longer than %d octets", n+1, maxLine), "give one address a line")
		} else if err != nil {
			failed = fmt.Errorf("standard input: %w", err)
		}
	}()
	return func() ([]string, error) {
		var chunk []string
		select {
		case line, ok := <-lines:
			if !ok {
				if failed != nil {
					return nil, failed
				}
				return nil, io.EOF
			}
			chunk = append(chunk, line)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		for len(chunk) < checkChunk {
			select {
			case line, ok := <-lines:
				if !ok {
					return chunk, nil // the next call tells the end
				}
				chunk = append(chunk, line)
			default:
				return chunk, nil
			}
		}
		return chunk, nil
	}
}

// timeFlag is a flag that takes a moment.
type timeFlag struct{ t time.Time }

// String is the moment given, or "".
func (f *timeFlag) String() string {
	if f.t.IsZero() {
		return ""
	}
	return f.t.Format(time.RFC3339)
}

// Set reads a moment; without a zone it is UTC.
func (f *timeFlag) Set(s string) error {
	t, err := parseTime(s)
	if err != nil {
		return err
	}
	f.t = t
	return nil
}

// Type is shown in help where the flag's text names none.
func (f *timeFlag) Type() string { return "time" }

func (f *timeFlag) given() bool { return !f.t.IsZero() }

// stamp is the moment for the API; nil when none was given.
func (f *timeFlag) stamp() *timestamppb.Timestamp {
	if f.t.IsZero() {
		return nil
	}
	return timestamppb.New(f.t)
}

func (f *timeFlag) stampOr(t time.Time) *timestamppb.Timestamp {
	if f.t.IsZero() {
		return timestamppb.New(t)
	}
	return f.stamp()
}
