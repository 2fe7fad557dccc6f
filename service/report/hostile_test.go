package report

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mutationsEnv sets how many mutated messages TestMutations reads; 2,000 without.
const mutationsEnv = "OPTOUT_MUTATIONS"

// mutate makes another message of b: octets changed, pieces cut out, doubled or moved, lines repeated many times, pieces of another
// message put in.
func mutate(r *rand.Rand, b, other []byte) []byte {
	out := bytes.Clone(b)
	for range 1 + r.IntN(6) {
		if len(out) == 0 {
			out = bytes.Clone(other)
		}
		i := r.IntN(len(out))
		n := min(len(out)-i, 1+r.IntN(1+r.IntN(400)))
		piece := bytes.Clone(out[i : i+n])
		switch r.IntN(8) {
		case 0:
			out[i] = byte(r.UintN(256))
		case 1:
			out = append(out[:i], out[i+n:]...)
		case 2:
			out = bytes.Join([][]byte{out[:i], piece, piece, out[i:]}, nil)
		case 3:
			j := r.IntN(len(out))
			out = bytes.Join([][]byte{out[:j], piece, out[j:]}, nil)
		case 4:
			out = bytes.Join([][]byte{out[:i], bytes.Repeat(piece, 1+r.IntN(200)), out[i:]}, nil)
		case 5:
			j := r.IntN(len(other))
			out = bytes.Join([][]byte{out[:i], other[j:min(len(other), j+r.IntN(2000))], out[i:]}, nil)
		case 6:
			out = bytes.ReplaceAll(out, []byte("\n"), []byte([]string{"\r\n", "\r", "\n\n", "\n ", "\x00\n"}[r.IntN(5)]))
		case 7:
			out = out[:i]
		}
		out = out[:min(len(out), 4<<20)]
	}
	return out
}

// check fails the test when a report breaks its own bounds.
func check(t *testing.T, r *Report) {
	t.Helper()
	if len(r.Recipients) > maxRecipients || len(r.Tokens) > maxTokens || (r.Kind == Complaint) != (r.Feedback != nil) || len(r.Recipients) > 0 && r.Kind != Bounce {
		t.Fatalf("%+v", r)
	}
	for _, x := range r.Recipients {
		if len(x.Diagnostic) > 500 || strings.ContainsAny(x.Diagnostic+x.Final+x.Original, "\r\n") || x.Status != "" && !statusForm.MatchString(x.Status) || x.Class == Hard && x.Action != "failed" {
			t.Fatalf("%+v", x)
		}
	}
}

// Mutated messages neither crash nor hang the reader, nor make it take memory without bound.
func TestMutations(t *testing.T) {
	count := 2000
	if s := os.Getenv(mutationsEnv); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", mutationsEnv, err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	_, raw, _ := fixtures(t)
	random := rand.New(rand.NewPCG(seed, 1))
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	began, slowest, peak, kinds := time.Now(), time.Duration(0), uint64(0), [4]int{}
	for i := range count {
		b := mutate(random, raw[random.IntN(len(raw))], raw[random.IntN(len(raw))])
		at := time.Now()
		r := Parse(b)
		slowest = max(slowest, time.Since(at))
		check(t, r)
		kinds[r.Kind]++
		if i%64 == 0 {
			metrics.Read(heap)
			peak = max(peak, heap[0].Value.Uint64())
		}
	}
	t.Logf("seed %d: %d messages in %v, slowest %v, peak heap %d MiB; other, bounce, complaint, automatic: %v", seed, count, time.Since(began).Round(time.Millisecond), slowest, peak>>20, kinds)
	if peak > 256<<20 {
		t.Errorf("the heap grew to %d MiB", peak>>20)
	}
}

// What is made to cost much costs little: allocations are bounded by the part of a message that is looked at, however large it
// is and whatever it is made of.
func TestCost(t *testing.T) {
	const report = "From: MAILER-DAEMON@mx.example.com\nReturn-Path: <>\nSubject: failure notice\n"
	deep := "Content-Type: text/plain\n\nx\n"
	for i := range 1000 {
		deep = mixed(fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d", i), fmt.Sprintf("b%d", i), deep)
	}
	for name, text := range map[string]string{
		"30 MB":             report + "\nHi. This is the qmail-send program\n" + strings.Repeat("<a@example.net>:\n550 no such user\n\n", 1<<20),
		"one line":          report + "\nHi. This is the qmail-send program " + strings.Repeat("a@example.net ", 2<<20),
		"addresses":         report + "\nHi. This is the qmail-send program\n" + strings.Repeat("@a.b@c.d", 1<<20),
		"header bomb":       strings.Repeat("X-A: "+strings.Repeat("b", 60)+"\n", 1<<18) + "\nx",
		"folded header":     "Content-Type: multipart/report" + strings.Repeat(";\n a=b", 1<<18) + "\n\nx",
		"1,000 deep":        deep,
		"parts":             "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", 1<<18),
		"recipients":        dsnOf("From: x@y", strings.Repeat("Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.0.0\n\n", 1<<14), ours),
		"fields":            dsnOf("From: x@y", strings.Repeat("Status: 5.0.0\n", 1<<16), ours),
		"a folded field":    dsnOf("From: x@y", "Final-Recipient: rfc822; a@b.example\nDiagnostic-Code: smtp;"+strings.Repeat("\n x", 80000)+"\n", ours),
		"tokens":            "From: staff@hotmail.com\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n\n" + strings.Repeat("/u/u-b-", 1<<17) + "\n--b--\n",
		"tags":              report + "Content-Type: text/html\n\nHi. This is the qmail-send program" + strings.Repeat("<a", 1<<18),
		"comments, nesting": "Content-Type: " + strings.Repeat("(", 1<<18) + "\nFrom: " + strings.Repeat("<(", 1<<18) + "\n\nx",
		"nested JSON":       mixed("Content-Type: multipart/report; report-type=feedback-report; boundary=b", "b", "Content-Type: message/feedback-report\n\nFeedback-Type: xarf\n", "Content-Type: application/json\n\n"+strings.Repeat("[", 200000)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		r := Parse([]byte(text))
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		check(t, r)
		allocated := (after.TotalAlloc - before.TotalAlloc - uint64(len(text))) >> 20
		t.Logf("%s: %d KiB, %v, %d MiB allocated", name, len(text)>>10, took, allocated)
		if int64(allocated) > 64 {
			t.Errorf("%s: %d MiB allocated", name, allocated)
		}
	}
}

// Whatever comes, parsing ends, within its bounds, and says the same again.
func FuzzParse(f *testing.F) {
	_, raw, _ := fixtures(f)
	for _, b := range raw {
		f.Add(b)
	}
	f.Add([]byte("Content-Type: multipart/mixed; boundary=\n\n--\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Parse(b)
		check(t, r)
		if again := Parse(b); again.Kind != r.Kind || len(again.Recipients) != len(r.Recipients) {
			t.Fatal("another answer")
		}
	})
}
