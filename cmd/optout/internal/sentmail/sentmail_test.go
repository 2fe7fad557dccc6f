package sentmail

import (
	"bytes"
	"compress/gzip"
	"container/list"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var options = Options{Format: Auto, Now: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC), Zone: time.UTC}

// show writes a message as one line.
func show(m Message) string {
	left := "-"
	if !m.Left.IsZero() {
		left = m.Left.UTC().Format("01-02 15:04:05")
	}
	s := fmt.Sprintf("%s %s %s %s", m.Where, m.ID, strings.Join(m.To, ","), left)
	if m.Shown {
		s += " shown"
	}
	if len(m.Joined) > 0 {
		s += " joined " + strings.Join(m.Joined, ",")
	}
	if m.Receipt != "" {
		s += " receipt " + m.Receipt
	}
	return s
}

func read(t *testing.T, path string, o Options) (all []string) {
	t.Helper()
	for m, err := range Path(path, o) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, show(m))
	}
	return all
}

func demand(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The log is as Postfix writes it: greylisting, a content filter, an alias, a bounce, lines of others.
func TestPostfix(t *testing.T) {
	receipt := " receipt AQMAAAABAAAAKgAAAR9x-wTLAcLbnPDx8vP09fb3-Pn6-_z9_v_ut3ExqPy-VLRBH3Gb6I6FMgukLF0_GIP3My3NgqBg_H11Cf3BmfxoDElaMfYDJiv7sAFTOpIyLEUt3GmqhMG"
	want := []string{
		"A1B2C3D4E5 <two@example.com> cy@example.org 03-01 10:05:02",
		"4F2A1C0D2E <one@example.com> ann@example.net 03-01 10:00:02 joined bob@example.org" + receipt,
		"4F2A1C0D2E <one@example.com> bob@example.org 03-01 10:20:02 joined ann@example.net" + receipt,
		"3Qt5J45Y1Nz2x <three@example.com> eve@example.net 03-01 09:30:07 joined dan@example.net",
	}
	demand(t, read(t, "testdata/mail.log", options), want...)

	plain, err := os.ReadFile("testdata/mail.log")
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(plain)
	z.Close()
	path := filepath.Join(t.TempDir(), "mail.log.1.gz")
	if err := os.WriteFile(path, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	demand(t, read(t, path, options), want...)
}

// The first lines of a log may be of anybody.
func TestFormats(t *testing.T) {
	for text, want := range map[string]Format{
		"-- Logs begin at Sun 2026-03-01 --\n2026-03-01T10:00:00+0000 mx1 kernel: up\n": Postfix,
		"Mar  1 10:00:00 mx1 kernel: up\n":                                              Postfix,
		"2026-03-01T10:00:00.1+01:00 mx1 systemd[1]: up\n":                              Postfix,
		"\nFrom a Sun Mar  1 10:00:00 2026\n":                                           Mbox,
		"Subject: x\n":                                                                  EML,
		"X-Y-Z : x\n":                                                                   EML,
		"Dear all,\nhello":                                                              Auto,
		"-- \n-- \n":                                                                    Auto,
		"":                                                                              Auto,
	} {
		if got := detect([]byte(text)); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

// A time without a year is the newest that is not in the future.
func TestYears(t *testing.T) {
	for _, c := range []struct {
		now        time.Time
		line, want string
	}{
		{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), "Mar  1 10:00:00", "2026-03-01T10:00:00Z"},
		{time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC), "Dec 31 23:59:59", "2025-12-31T23:59:59Z"},
		{time.Date(2025, 12, 31, 23, 0, 0, 0, time.UTC), "Jan  1 00:30:00", "2026-01-01T00:30:00Z"}, // a clock that is ahead
		{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), "Mar  5 10:00:00", "2025-03-05T10:00:00Z"},
		{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), "Feb 29 10:00:00", "2024-02-29T10:00:00Z"},
		{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), "Feb 30 10:00:00", ""},
		{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), "2021-02-03T04:05:06.789+0200", "2021-02-03T02:05:06Z"},
		{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), "2021-02-03T04:05:06.789", "2021-02-03T04:05:06Z"},
	} {
		p := &postfixLog{o: Options{Now: c.now, Zone: time.UTC}}
		got := ""
		if at, ok := p.time(c.line); ok {
			got = at.UTC().Format(time.RFC3339)
		}
		if got != c.want {
			t.Errorf("%s read on %s is %q, want %q", c.line, c.now, got, c.want)
		}
	}
}

func TestMbox(t *testing.T) {
	one := "sent.mbox:1 <one@example.com> ann@example.net,Bob@Example.org,dan@example.net 03-01 10:00:05 shown receipt first second"
	two := "sent.mbox:21  cy@example.org 03-01 09:10:00 shown"
	demand(t, read(t, "testdata/sent.mbox", options), one, two, "sent.mbox:28  archive@example.com 03-01 10:20:00 shown")
	o := options
	o.Internal = func(a string) bool { return strings.HasSuffix(a, "@example.com") }
	demand(t, read(t, "testdata/sent.mbox", o), one, two, "sent.mbox:28  eve@example.net 03-01 10:20:00 shown")
}

func TestMaildirAndMessage(t *testing.T) {
	o := options
	octets := 0
	o.Progress = func(n int) { octets += n }
	first := "1772359200.M1P1.mx1:2,S <m1@example.com> ann@example.net 03-01 10:00:00 shown"
	demand(t, read(t, "testdata/maildir", o), first, "1772359201.M2P2.mx1  bob@example.org - shown")
	if octets == 0 {
		t.Error("no progress was told")
	}
	demand(t, read(t, "testdata/maildir/cur/1772359200.M1P1.mx1:2,S", o), first)
}

func TestUnreadable(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		format Format
		want   error
	}{
		"empty":              {"", Auto, nil},
		"blank":              {"\r\n\n", Auto, nil},
		"something else":     {"a,b\n1,2\n", Auto, ErrNothing},
		"no mbox":            {"To: a@example.com\n\n", Mbox, ErrNothing},
		"no log":             {"To: a@example.com\n\n", Postfix, ErrNothing},
		"a log of others":    {"Mar  1 10:00:00 mx1 sshd: hello\n", Postfix, ErrNothing},
		"a log without mail": {"Mar  1 10:00:00 mx1 postfix/smtpd[1201]: connect from a[10.0.0.5]\n", Auto, nil},
		"no message":         {"\x00\x01", EML, ErrNothing},
		"cut gzip":           {"\x1f\x8b\x08", Auto, nil},
	} {
		var got error
		for m, err := range Read(strings.NewReader(c.text), name, Options{Format: c.format, Now: options.Now, Zone: time.UTC}) {
			if got = err; err == nil {
				t.Errorf("%s: %v", name, m)
			}
		}
		if name == "cut gzip" {
			if got == nil {
				t.Error("a cut gzip stream is taken")
			}
		} else if !errors.Is(got, c.want) || got != nil && c.want == nil {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for path, format := range map[string]Format{"testdata": Auto, "testdata/mail.log": Maildir, "testdata/maildir": Mbox, "nosuch": Auto} {
		o := options
		o.Format = format
		for m, err := range Path(path, o) {
			if err == nil {
				t.Errorf("%s as %s: %v", path, format, m)
			}
		}
	}
}

// endless is a reader of the same line again and again, of which so much is given.
type endless struct {
	line string
	left int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, fmt.Errorf("it was read to the end")
	}
	n := 0
	for n+len(e.line) <= len(p) {
		n += copy(p[n:], e.line)
	}
	if n == 0 {
		n = copy(p, e.line)
	}
	e.left -= n
	return n, nil
}

// Whatever comes, memory stays bounded: a header without end, a line without end, a log in which nothing is ever done.
func TestMemoryIsBounded(t *testing.T) {
	held := func(line string, format Format) (most int) {
		l := &endless{line, 8 << 20}
		for m, err := range Read(l, "x", Options{Format: format, Now: options.Now, Zone: time.UTC}) {
			if err != nil {
				break
			}
			most = max(most, len(m.Receipt)+len(m.ID)+len(strings.Join(m.To, "")))
		}
		return most
	}
	for name, c := range map[string]struct {
		line   string
		format Format
	}{
		"header":       {"To: someone@example.com\n", EML},
		"field":        {" and more\n", EML},
		"line":         {"x", EML},
		"mbox header":  {"From a@b Sun Mar  1 10:00:00 2026\nTo: x@example.com\n", Mbox},
		"log of one":   {"Mar  1 10:00:00 mx1 postfix/smtp[1]: 4F2A1C0D2E: to=<a@example.com>, relay=x, dsn=2.0.0, status=sent (ok)\n", Postfix},
		"cleanup line": {"Mar  1 10:00:00 mx1 postfix/cleanup[1]: 4F2A1C0D2E: message-id=<a@example.com>\n", Postfix},
	} {
		if got := held(c.line, c.format); got > maxHeader {
			t.Errorf("%s: a message of %d octets", name, got)
		}
	}
	p := &postfixLog{o: options, all: map[string]*transit{}, order: list.New(), done: map[string]bool{}}
	for i := range maxUnderWay + 1000 {
		p.line("Mar  1 10:00:00", "cleanup", fmt.Sprintf("%010X", i), "message-id=<x@example.com>")
	}
	if len(p.all) > maxUnderWay || p.order.Len() != len(p.all) || len(p.done) > maxDone || len(p.ended) > maxDone {
		t.Errorf("%d messages under way, %d remembered", len(p.all), len(p.done))
	}
}

// What is taken from any octets are messages with recipients that can be told apart, and reading ends.
func FuzzRead(f *testing.F) {
	for _, path := range []string{"testdata/mail.log", "testdata/sent.mbox", "testdata/maildir/cur/1772359200.M1P1.mx1:2,S"} {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(0))
		f.Add(b, byte(2))
		f.Add(b, byte(4))
	}
	f.Add([]byte("From a Sun Mar  1 10:00:00 2026\n\n\nFrom a Sun Mar  1 10:00:00 2026\nTo: a@b\n c@d\n"), byte(1))
	f.Add([]byte("Mar  1 10:00:00 m p/cleanup[1]: 4F2A1C0D2E: info: header X-Optout-Receipt:"), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, format byte) {
		o := options
		o.Format = Formats()[int(format)%len(Formats())]
		for m, err := range Read(bytes.NewReader(b), "x", o) {
			if err != nil {
				return
			}
			if len(m.To) > MaxRecipients || len(m.To)+len(m.Joined) > 2*MaxRecipients || !m.Shown && len(m.To) == 0 || m.Where == "" {
				t.Fatalf("%+v", m)
			}
			seen := map[string]bool{}
			for _, a := range slices.Concat(m.To, m.Joined) {
				if seen[a] {
					t.Fatalf("%q is there twice: %+v", a, m)
				}
				seen[a] = true
			}
		}
	})
}
