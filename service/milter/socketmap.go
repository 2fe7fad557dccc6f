package milter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"optout/service/outgoing"
)

// Limits of the socketmap (Postfix's socketmap_table(5)).
const (
	maxRequest = 4096
	maxConns   = 500
	// mapIdle is how long a connection may be silent; Postfix keeps them open.
	mapIdle = 30 * time.Minute
	// anyTopic is the name of the map that refuses only whom every topic of the key is denied.
	anyTopic = "any"
)

// ServeMap answers look-ups of Postfix's transport_maps on l until the server is closed. The map's name is a topic, or "any"; the
// key a recipient. Who may not be written to is routed to Postfix's error service; everybody else is not found, so that the usual
// transport goes on.
func (s *Server) ServeMap(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners = append(s.listeners, l)
	s.mu.Unlock()
	for {
		c, err := l.Accept()
		if err != nil {
			if s.isClosed() || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if !s.track(c) {
			c.Close()
			continue
		}
		s.running.Go(func() {
			defer s.untrack(c)
			s.lookups(c)
		})
	}
}

func (s *Server) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= maxConns {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) untrack(c net.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	c.Close()
}

func (s *Server) lookups(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		s.mu.Lock()
		if !s.closed {
			c.SetReadDeadline(time.Now().Add(mapIdle))
		}
		s.mu.Unlock()
		request, err := readNetstring(r)
		if err != nil {
			return
		}
		answer := s.lookup(request)
		c.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := fmt.Fprintf(c, "%d:%s,", len(answer), answer); err != nil {
			return
		}
	}
}

var errNetstring = errors.New("it is no netstring")

// readNetstring reads "LENGTH:OCTETS,".
func readNetstring(r *bufio.Reader) (string, error) {
	var digits []byte
	for {
		c, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == ':' {
			break
		}
		if c < '0' || c > '9' || len(digits) == 5 || len(digits) == 1 && digits[0] == '0' {
			return "", errNetstring
		}
		digits = append(digits, c)
	}
	n, err := strconv.Atoi(string(digits))
	if err != nil || n > maxRequest {
		return "", errNetstring
	}
	b := make([]byte, n+1)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	if b[n] != ',' {
		return "", errNetstring
	}
	return string(b[:n]), nil
}

// lookup answers one question. It writes nothing to the ledger: that mail goes out in spite of a no was recorded when it was let in.
func (s *Server) lookup(request string) string {
	name, addr, ok := strings.Cut(request, " ")
	if !ok || name == "" {
		return "PERM give a map's name and a key"
	}
	if at := strings.LastIndexByte(addr, '@'); at < 1 || at == len(addr)-1 {
		return "NOTFOUND " // a domain, or the wildcard
	}
	key := s.key()
	if key == nil {
		return "TEMP " + errKey.Text
	}
	topic := name
	if name == anyTopic {
		topic = ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	r := s.o.Judge.ForeseeOnly(ctx, key, topic, addr)
	switch {
	case r == nil:
		return "NOTFOUND "
	case r.Denied:
		s.observe("refused")
		return "OK error:" + dsn(r) + " " + r.Text
	case r.Temporary():
		return "TEMP " + r.Text
	case r.Code == 553:
		return "NOTFOUND " // no address as we know it; the mail server has its own rules
	}
	return "PERM " + r.Text
}

func dsn(r *outgoing.Refusal) string {
	return fmt.Sprintf("%d.%d.%d", r.Enhanced[0], r.Enhanced[1], r.Enhanced[2])
}
