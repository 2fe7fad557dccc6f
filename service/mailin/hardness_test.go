package mailin_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"optout/service/mailin"
)

// What the server offers, and what it does not.
func TestExtensions(t *testing.T) {
	o := newOffice(t, func(x *mailin.Options) { x.TLS = certificate(t) })
	l := dial(t, "tcp", o.addr, "220")
	l.write("EHLO x\r\n")
	said := l.expect("250")
	for _, want := range []string{"SIZE 31457280", "STARTTLS", "PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "LIMITS RCPTMAX=100"} {
		if !strings.Contains(said, want+"\r\n") {
			t.Errorf("EHLO: %q, want %s", said, want)
		}
	}
	for _, no := range []string{"SMTPUTF8", "BINARYMIME", "AUTH", "REQUIRETLS", "DSN"} {
		if strings.Contains(said, no) {
			t.Errorf("EHLO: %q offers %s", said, no)
		}
	}
	l.say("552 MAIL FROM:<a@b.example> SIZE=31457281", "504 MAIL FROM:<a@b.example> SMTPUTF8", "553 MAIL FROM:<\xc3\xa4@b.example>",
		"250 MAIL FROM:<> SIZE=1000 BODY=8BITMIME", "553 RCPT TO:<b\xc3\xb6x@example.com>", "451 RCPT TO:<busy@example.com>", "550 RCPT TO:<box@elsewhere.example>", "250 RCPT TO:<box@example.com>",
		"354 DATA", "250 x\r\n.")
}

// RFC 5321 section 4.5.3.1.10: the recipients taken so far are kept, the next ones are for later.
func TestRecipientLimit(t *testing.T) {
	o := newOffice(t, nil)
	l := dial(t, "tcp", o.addr, "220").say("250 EHLO x", "250 MAIL FROM:<>").say(seq(100, "250 RCPT TO:<b%d@example.com>")...)
	l.say("452 RCPT TO:<more@example.com>", "354 DATA", "250 x\r\n.")
	if o.got() != 1 {
		t.Error("the message was not taken")
	}
}

// A message has one end, CRLF dot CRLF, and no octets that another server could take for an end (RFC 5321 section 2.3.8). Whatever
// is smuggled behind a false end is part of the message, and the message is refused; nothing of it is taken for a command.
func TestSmuggling(t *testing.T) {
	for name, end := range map[string]string{
		"LF dot LF": "\n.\n", "LF dot CRLF": "\n.\r\n", "CRLF dot LF": "\r\n.\n", "CR dot CR": "\r.\r", "CR dot CRLF": "\r.\r\n",
		"CR CRLF dot": "\r\r\n.\r\n", "NUL before dot": "\r\n\x00.\r\n", "NUL in dot": "\r\n.\x00\r\n", "CRLF NUL": "\r\n.\r\x00\n",
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, nil)
			l := o.begun(t).say("354 DATA")
			l.write("Subject: x\r\n\r\nhello" + end + "MAIL FROM:<evil@client.example>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nSubject: y\r\n\r\ny\r\n.\r\n")
			l.expect("550 5.6.0")
			l.say("250 NOOP", "221 QUIT").ends() // one answer to all of it
			if o.got() != 0 {
				t.Error("the message was taken")
			}
			o.works(t)
		})
	}
}

// Of a line that begins with a dot and a bare CR the library loses the CR, so that the message cannot be refused for it; but it
// goes on to its one end, and nothing in it is taken for a command.
func TestDotAndBareCR(t *testing.T) {
	o := newOffice(t, nil)
	l := o.begun(t).say("354 DATA")
	l.write("Subject: x\r\n\r\nhello\r\n.\rMAIL FROM:<evil@client.example>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\ny\r\n.\r\n")
	l.expect("")
	l.say("250 NOOP", "221 QUIT").ends()
	if o.got() > 1 {
		t.Error("a message was smuggled in")
	}
}

// What comes in one piece with STARTTLS came from nobody knows whom: it is dropped (RFC 3207 section 4.2, CVE-2011-0411).
func TestCommandsBeforeTLS(t *testing.T) {
	o := newOffice(t, func(x *mailin.Options) { x.TLS = certificate(t) })
	l := dial(t, "tcp", o.addr, "220").say("250 EHLO evil", "250 MAIL FROM:<evil@client.example>")
	l.write("STARTTLS\r\nRCPT TO:<evil@example.com>\r\n")
	l.expect("220")
	c := tls.Client(l.conn, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	inner := &line{t: t, conn: c, r: bufio.NewReader(c)}
	// The first answer is to the first command within TLS, and nothing of the time before is left.
	inner.say("502 RCPT TO:<box@example.com>", "502 DATA", "250 EHLO good", "502 RCPT TO:<box@example.com>", "250 MAIL FROM:<a@client.example>", "250 RCPT TO:<box@example.com>", "354 DATA", "250 x\r\n.", "221 QUIT")
	if o.got() != 1 {
		t.Errorf("%d messages taken", o.got())
	}
	// A handshake that is none ends nothing but itself.
	l = dial(t, "tcp", o.addr, "220").say("250 EHLO x", "220 STARTTLS")
	l.write("MAIL FROM:<>\r\n")
	l.conn.Close()
	o.works(t)
}

// CHUNKING (RFC 3030) is another way to bring the same messages, with the same rules.
func TestChunks(t *testing.T) {
	o := newOffice(t, nil)
	l := o.begun(t)
	l.write("BDAT 12\r\nSubject: x\r\n")
	l.expect("250")
	l.write("BDAT 7 LAST\r\n\r\n.\r\nx\r")
	l.expect("550 5.6.0")
	l.say("250 MAIL FROM:<>", "250 RCPT TO:<box@example.com>")
	const message = "Subject: x\r\n\r\n.\r\nQUIT\r\n"
	l.write(fmt.Sprintf("BDAT %d LAST\r\n%s", len(message), message))
	l.expect("250")
	if o.got() != 1 || string(o.taken[0].Raw) != message {
		t.Errorf("taken: %d", o.got())
	}
	l.say("250 MAIL FROM:<>", "502 BDAT 0 LAST", "250 RCPT TO:<box@example.com>", "501 BDAT -1", "501 BDAT 99999999999", "501 BDAT 1 2 3", "250 RSET", "502 DATA")
	l.say("250 MAIL FROM:<>", "250 RCPT TO:<box@example.com>", "250 BDAT 0", "502 RCPT TO:<box@example.com>", "502 DATA", "250 RSET", "250 NOOP", "221 QUIT")
	if o.got() != 1 {
		t.Error("half a message was taken")
	}
	o.works(t)
}

// Headers and hops are bounded, lines are not short-changed: some mail programs write long ones, and their users want to opt out.
func TestMessageBounds(t *testing.T) {
	o := newOffice(t, nil)
	received := func(n int) string {
		return strings.Repeat("ReCeived: from a by b; Mon, 23 Nov 2026 10:00:00 +0000\r\n", n)
	}
	for _, c := range []struct{ name, want, message string }{
		{"50 hops", "250", received(50) + "\r\nx\r\n"},
		{"51 hops", "554 5.4.6", received(51) + "\r\nx\r\n"},
		{"hops in the body", "250", received(50) + "\r\n" + received(50)},
		{"a header of 256 KiB", "250", strings.Repeat("X-Bomb: "+strings.Repeat("x", 1014)+"\r\n", 255) + "\r\nx\r\n"},
		{"a header of more", "552 5.3.4", strings.Repeat("X: y\r\n", 50000) + "\r\nx\r\n"},
		{"no end of the header", "552 5.3.4", strings.Repeat("x\r\n", 100000)},
		{"a field folded 100 000 times", "552 5.3.4", "Subject:" + strings.Repeat("\r\n x", 100000) + "\r\n\r\n"},
		{"a line of 60 000 octets", "250", "Subject: x\r\n\r\n" + strings.Repeat("y", 60000) + "\r\n"},
		{"nothing", "250", ""},
		{"50 MB", "552 5.3.4", "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("a", 998)+"\r\n", 50_000)},
	} {
		before := o.got()
		l := o.begun(t).say("354 DATA")
		l.write(c.message + ".\r\n")
		l.expect(c.want)
		l.say("250 NOOP", "221 QUIT").ends()
		if taken := o.got() > before; taken != (c.want == "250") {
			t.Errorf("%s: taken %v", c.name, taken)
		}
	}
	l := o.begun(t).say("354 DATA")
	l.write("Subject: x\r\n\r\n" + strings.Repeat("y", 70000) + "\r\n.\r\n")
	l.expect("554 5.6.0")
	o.works(t)
}

// The intake gets the beginning of a message, and the length and digest of all of it.
func TestKept(t *testing.T) {
	o := newOffice(t, nil)
	message := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("a", 998)+"\r\n", 3000)
	o.begun(t).say("354 DATA", "250 "+message+".")
	m := o.taken[0]
	if len(m.Raw) != mailin.Kept || string(m.Raw) != message[:mailin.Kept] || m.Size != int64(len(message)) || m.Digest != sha256.Sum256([]byte(message)) {
		t.Errorf("kept %d of %d octets, digest %x", len(m.Raw), m.Size, m.Digest)
	}
}

// Who guesses addresses, or sends rubbish, is told to go; and what is over a limit is for later, never refused for good.
func TestFaults(t *testing.T) {
	o := newOffice(t, nil)
	l := dial(t, "tcp", o.addr, "220").say("250 EHLO x", "250 MAIL FROM:<>").say(seq(19, "550 RCPT TO:<no%d@example.com>")...)
	l.write("RCPT TO:<no20@example.com>\r\nRCPT TO:<box@example.com>\r\nDATA\r\n")
	l.expect("421 4.7.0")
	for !strings.HasPrefix(l.expect(""), "502") { // the rest of what was sent ahead: nothing is taken any more
	}
	l.ends()
	l = dial(t, "tcp", o.addr, "220").say("500 BLAH blah", "500 BLAH blah", "500 BLAH blah", "500 BLAH blah")
	l.expect("500")
	l.ends()
	// Commands without end, and no message in them.
	l = dial(t, "tcp", o.addr, "220")
	go func() {
		for range 1 << 16 {
			if _, err := l.conn.Write([]byte(strings.Repeat("RCPT TO:<x@example.com>\r\n", 100))); err != nil {
				return
			}
		}
	}()
	for n := 0; !strings.HasPrefix(l.expect(""), "421"); n++ {
		if n > 100_000 {
			t.Fatal("the session goes on for ever")
		}
	}
	l.ends()
	o.works(t)
}

// A network has its share of the connections, and all together have theirs; an own mail server on loopback has no share.
func TestConnectionLimits(t *testing.T) {
	o := newOffice(t, func(x *mailin.Options) { x.Limits.Connections = 10 })
	o.come("192.0.2.1:25")
	first := dial(t, "tcp", o.addr, "220")
	o.come("192.0.2.200:25") // the same network
	dial(t, "tcp", o.addr, "220")
	dial(t, "tcp", o.addr, "421 4.7.0").ends()
	o.come("198.51.100.1:25")
	dial(t, "tcp", o.addr, "220")
	o.come("[2001:db8::1]:25")
	dial(t, "tcp", o.addr, "220")
	dial(t, "tcp", o.addr, "220")
	o.come("[2001:db8:0:ffff::2]:25")
	dial(t, "tcp", o.addr, "421 4.7.0").ends()
	o.come("127.0.0.1:25")
	for range 5 {
		dial(t, "tcp", o.addr, "220")
	}
	dial(t, "tcp", o.addr, "421 4.3.2").ends()
	first.say("221 QUIT").ends()
	o.come("192.0.2.7:25")
	for range 100 { // the place is free again, in a moment
		if l := call(t, "tcp", o.addr); strings.HasPrefix(l.expect(""), "220") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the place never became free")
}

// One network has its share of the memory for large messages; small ones need none of it.
func TestLargeMessages(t *testing.T) {
	o := newOffice(t, nil)
	o.wait = make(chan struct{})
	message := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("a", 998)+"\r\n", 70) + "."
	o.come("192.0.2.1:25")
	var held []*line
	for range 12 {
		l := o.begun(t).say("354 DATA")
		l.write(message + "\r\n")
		held = append(held, l)
	}
	within(t, "twelve large messages", func() bool { return o.waiting.Load() == 12 })
	o.begun(t).say("354 DATA", "451 "+message)
	o.works(t)
	o.come("198.51.100.1:25")
	other := o.begun(t).say("354 DATA")
	other.write(message + "\r\n")
	within(t, "a large message from elsewhere", func() bool { return o.waiting.Load() == 13 })
	close(o.wait)
	for _, l := range append(held, other) {
		l.expect("250")
	}
	o.come("192.0.2.77:25")
	o.begun(t).say("354 DATA", "250 "+message)
}

// A network that names too many recipients at once is asked to come again, and its mail is taken then.
func TestRate(t *testing.T) {
	now := time.Now()
	o := newOffice(t, func(x *mailin.Options) {
		x.Limits.Rate = 2
		x.Now = func() time.Time { return now }
	})
	o.come("192.0.2.1:25")
	dial(t, "tcp", o.addr, "220").say("250 EHLO x", "250 MAIL FROM:<>").say(seq(20, "250 RCPT TO:<b%d@example.com>")...).say("451 RCPT TO:<b@example.com>", "354 DATA", "250 x\r\n.")
	l := dial(t, "tcp", o.addr, "220").say("250 EHLO x", "250 MAIL FROM:<>", "451 RCPT TO:<b@example.com>")
	o.come("198.51.100.1:25")
	o.works(t)
	now = now.Add(time.Second)
	l.say("250 RCPT TO:<b@example.com>", "250 RCPT TO:<c@example.com>", "451 RCPT TO:<d@example.com>")
	o.come("127.0.0.1:25")
	dial(t, "tcp", o.addr, "220").say("250 EHLO x", "250 MAIL FROM:<>").say(seq(100, "250 RCPT TO:<b%d@example.com>")...)
}

// Nobody holds connections by being slow: not between octets, and not by an octet now and then. What was answered by then holds.
func TestSlowClients(t *testing.T) {
	t.Parallel() // it waits for nearly all of its time
	o := newOffice(t, func(x *mailin.Options) {
		x.Limits = mailin.Limits{Connections: 20, Idle: 9 * time.Second, Work: 6 * time.Second}
	})
	silent := dial(t, "tcp", o.addr, "220")
	drip := o.begun(t).say("354 DATA")
	go func() {
		for range 1000 {
			if _, err := drip.conn.Write([]byte("x\r\n")); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	silent.expect("421 4.4.2")
	silent.ends()
	drip.expect("421 4.4.2")
	// While most connections are in use, patience is short: for the first eleven the server waits as above, for the next not.
	var held []*line
	for range 11 {
		held = append(held, dial(t, "tcp", o.addr, "220"))
	}
	dial(t, "tcp", o.addr, "220").expect("421 4.4.2")
	held[0].say("250 NOOP") // it came before, and is waited for still
	o.works(t)
	for _, l := range held {
		l.expect("421")
	}
	if o.got() != 1 {
		t.Errorf("%d messages taken", o.got())
	}
}

// Over LMTP each recipient has an answer of its own behind the dot (RFC 2033 section 4.2), and over SMTP one answer asks for
// what all of them need.
func TestAnswers(t *testing.T) {
	o := newOffice(t, func(x *mailin.Options) { x.LMTP = true })
	l := dial(t, "tcp", o.addr, "220").say("500 EHLO x", "500 HELO x", "250 LHLO x", "250 MAIL FROM:<>", "250 RCPT TO:<a@example.com>", "250 RCPT TO:<later@example.com>", "550 RCPT TO:<no@example.com>",
		"250 RCPT TO:<a@example.com>", "354 DATA", "250 Subject: x\r\n\r\nx\r\n.")
	l.expect("451 4.3.0 <later@example.com>")
	l.expect("250 2.0.0 <a@example.com>")
	l.say("250 NOOP", "250 MAIL FROM:<>", "250 RCPT TO:<a@example.com>", "250 RCPT TO:<b@example.com>", "354 DATA", "550 x\ny\r\n.")
	l.expect("550 5.6.0 <b@example.com>")
	l.say("250 MAIL FROM:<>", "550 RCPT TO:<no@example.com>", "502 DATA", "221 QUIT").ends()

	o = newOffice(t, nil)
	l = dial(t, "tcp", o.addr, "220").say("250 EHLO x")
	for to, want := range map[string]string{"a b": "250", "a later": "451", "later a": "451", "mute": "451"} {
		l.say("250 MAIL FROM:<>")
		for _, b := range strings.Fields(to) {
			l.say("250 RCPT TO:<" + b + "@example.com>")
		}
		l.say("354 DATA", want+" x\r\n.")
	}
}

// come sets where the next clients seem to come from.
func (o *office) come(from string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.from = netip.MustParseAddrPort(from)
}

func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"mx.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, x, x, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
