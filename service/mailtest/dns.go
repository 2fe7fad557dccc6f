package mailtest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a name server on loopback that knows what a test tells it, over UDP and TCP. Every other name does not exist.
type DNS struct {
	// Addr is its host:port.
	Addr string

	mu      sync.Mutex
	txt     map[string][]string
	a       map[string]net.IP
	mx      map[string]string
	failing map[string]dnsmessage.RCode
	silent  bool
}

// NewDNS starts a name server that ends with the test.
func NewDNS(t testing.TB) *DNS {
	t.Helper()
	d := &DNS{txt: map[string][]string{}, a: map[string]net.IP{}, mx: map[string]string{}, failing: map[string]dnsmessage.RCode{}}
	var l net.Listener
	var p net.PacketConn
	for range 20 { // one port for both
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if p, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			break
		}
		l.Close()
	}
	if p == nil {
		t.Fatal("no port is free for both UDP and TCP")
	}
	d.Addr = l.Addr().String()
	var all sync.WaitGroup
	all.Go(func() { d.serveUDP(p) })
	all.Go(func() { d.serveTCP(l, &all) })
	t.Cleanup(func() {
		l.Close()
		p.Close()
		all.Wait()
	})
	return d
}

// TXT adds a TXT record.
func (d *DNS) TXT(name, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.txt[name] = append(d.txt[name], text)
}

// A sets an address, and MX the only mail server of a domain.
func (d *DNS) A(name, ip string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.a[name] = net.ParseIP(ip).To4()
}

// MX sets the only mail server of a domain.
func (d *DNS) MX(name, host string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mx[name] = host
}

// Fail makes the server answer SERVFAIL for a name; Forget takes all that is known of it away.
func (d *DNS) Fail(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing[name] = dnsmessage.RCodeServerFailure
}

// Forget takes away what is known of a name.
func (d *DNS) Forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.txt, name)
	delete(d.a, name)
	delete(d.mx, name)
	delete(d.failing, name)
}

// Silence makes the server answer nothing any more.
func (d *DNS) Silence() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silent = true
}

// Resolver asks this server and no other.
func (d *DNS) Resolver() *net.Resolver {
	var dialer net.Dialer
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, d.Addr)
	}}
}

func (d *DNS) serveUDP(p net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := p.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := d.answer(buf[:n], 1232); answer != nil {
			p.WriteTo(answer, from)
		}
	}
}

func (d *DNS) serveTCP(l net.Listener, all *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			for {
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				question := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, question); err != nil {
					return
				}
				answer := d.answer(question, 65535)
				if answer == nil {
					return
				}
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
		})
	}
}

// answer answers a question in at most limit octets; nil: not at all.
func (d *DNS) answer(question []byte, limit int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	var m dnsmessage.Message
	if d.silent || m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	r := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true, RCode: d.failing[name]}, Questions: m.Questions}
	add := func(body dnsmessage.ResourceBody) {
		r.Answers = append(r.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: body})
	}
	_, known := d.txt[name]
	if _, ok := d.a[name]; ok {
		known = true
	}
	if host, ok := d.mx[name]; ok {
		if known = true; q.Type == dnsmessage.TypeMX {
			add(&dnsmessage.MXResource{Pref: 10, MX: dnsmessage.MustNewName(host + ".")})
		}
	}
	switch q.Type {
	case dnsmessage.TypeTXT:
		for _, text := range d.txt[name] {
			var parts []string
			for ; len(text) > 255; text = text[255:] {
				parts = append(parts, text[:255])
			}
			add(&dnsmessage.TXTResource{TXT: append(parts, text)})
		}
	case dnsmessage.TypeA:
		if ip := d.a[name]; ip != nil {
			add(&dnsmessage.AResource{A: [4]byte(ip)})
		}
	}
	if !known && r.RCode == dnsmessage.RCodeSuccess {
		r.RCode = dnsmessage.RCodeNameError
	}
	answer, err := r.Pack()
	if err == nil && len(answer) > limit {
		r.Answers, r.Truncated = nil, true
		answer, err = r.Pack()
	}
	if err != nil {
		panic(errors.Join(errors.New("a record of the test cannot be packed"), err))
	}
	return answer
}
