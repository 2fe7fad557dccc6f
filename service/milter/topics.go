package milter

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// topicMap tells topics by who sends. The file is read anew when it has changed.
type topicMap struct {
	path string

	mu      sync.Mutex
	changed time.Time
	size    int64
	rules   *rules
}

// rules are the lines of the file.
type rules struct {
	sasl, sender map[string]string // in lower case
	client       []clientRule
}

type clientRule struct {
	net   netip.Prefix
	topic string
}

const maxMap = 1 << 20

// openTopics reads the file; an empty path is a map without rules.
func openTopics(path string) (*topicMap, error) {
	m := &topicMap{path: path, rules: &rules{}}
	if path == "" {
		return m, nil
	}
	_, err := m.current()
	return m, err
}

// current returns the rules, read anew if the file has changed.
func (m *topicMap) current() (*rules, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.path == "" {
		return m.rules, nil
	}
	f, err := os.Open(m.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.ModTime().Equal(m.changed) && info.Size() == m.size {
		return m.rules, nil
	}
	r, err := readRules(io.LimitReader(f, maxMap))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.path, err)
	}
	m.rules, m.changed, m.size = r, info.ModTime(), info.Size()
	return r, nil
}

// readRules reads lines of KIND:VALUE TOPIC, with comments from #.
func readRules(in io.Reader) (*rules, error) {
	r := &rules{sasl: map[string]string{}, sender: map[string]string{}}
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		f := strings.Fields(text)
		if len(f) == 0 {
			continue
		}
		kind, value, ok := strings.Cut(f[0], ":")
		if !ok || value == "" || len(f) != 2 {
			return nil, fmt.Errorf("line %d: give sasl:USER, sender:ADDRESS, sender:@DOMAIN or client:CIDR, then the topic", n)
		}
		switch kind {
		case "sasl":
			r.sasl[strings.ToLower(value)] = f[1]
		case "sender":
			r.sender[strings.ToLower(value)] = f[1]
		case "client":
			p, err := netip.ParsePrefix(value)
			if err != nil {
				a, err := netip.ParseAddr(value)
				if err != nil {
					return nil, fmt.Errorf("line %d: client: give a network such as 10.0.0.0/8, or an address", n)
				}
				p = netip.PrefixFrom(a, a.BitLen())
			}
			r.client = append(r.client, clientRule{p.Masked(), f[1]})
		default:
			return nil, fmt.Errorf("line %d: there is no kind %q: use sasl, sender or client", n, kind)
		}
	}
	return r, lines.Err()
}

// find tells the topic: by the user who authenticated, else by the envelope's sender, else by its domain, else by the client's
// address, the first network that holds it; "" when none of them is named.
func (m *topicMap) find(user, sender, client string) (string, error) {
	r, err := m.current()
	if err != nil {
		return "", err
	}
	if t := r.sasl[strings.ToLower(user)]; t != "" && user != "" {
		return t, nil
	}
	sender = strings.ToLower(sender)
	if t := r.sender[sender]; t != "" && sender != "" {
		return t, nil
	}
	if i := strings.LastIndexByte(sender, '@'); i >= 0 {
		if t := r.sender[sender[i:]]; t != "" {
			return t, nil
		}
	}
	if a, err := netip.ParseAddr(strings.TrimPrefix(client, "IPv6:")); err == nil {
		for _, c := range r.client {
			if c.net.Contains(a.Unmap()) {
				return c.topic, nil
			}
		}
	}
	return "", nil
}
