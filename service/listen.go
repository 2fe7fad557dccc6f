package service

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// listen opens every listener that is on. Off loopback it must be TLS, or plaintext said out loud.
func (s *Service) listen(secure bool) error {
	for _, l := range []struct {
		name, flag, addr string
		used             *string
	}{
		{"grpc", "--grpc", s.cfg.GRPC, &s.addresses.GRPC},
		{"http", "--http", s.cfg.HTTP, &s.addresses.HTTP},
		{"admin", "--admin", s.cfg.Admin, &s.addresses.Admin},
		{"smtp", "--smtp", s.cfg.SMTP, &s.addresses.SMTP},
		{"gate", "--gate", s.cfg.Gate.Listen, &s.addresses.Gate},
		{"submissions", "--gate-submissions", s.cfg.Gate.Submissions, &s.addresses.Submissions},
		{"milter", "--milter", s.cfg.Milter.Listen, &s.addresses.Milter},
		{"milter-local", "--milter-local", s.cfg.Milter.Local, &s.addresses.MilterLocal},
		{"socketmap", "--socketmap", s.cfg.Milter.Socketmap, &s.addresses.Socketmap},
	} {
		if l.addr == "" {
			if l.name == "grpc" || l.name == "http" {
				return fmt.Errorf("%s: it is empty; give host:port", l.flag)
			}
			continue
		}
		if l.name == "submissions" && !secure {
			return fmt.Errorf("%s needs --tls-cert and --tls-key: it begins with TLS", l.flag)
		}
		if path, ok := strings.CutPrefix(l.addr, unixPrefix); ok && (plainOnly(l.name) || l.name == "smtp") {
			n, err := listenUnix(path)
			if err != nil {
				return fmt.Errorf("%s: %w", l.flag, listenFault(err))
			}
			s.listeners[l.name] = n
			*l.used = l.addr
			continue
		}
		if plainOnly(l.name) && !s.cfg.InsecurePlaintext && !loopback(l.addr) {
			return fmt.Errorf("%s %s: the protocol knows no TLS and it is not on loopback: use unix:PATH, or --insecure-plaintext on a network that nobody else is on", l.flag, l.addr)
		}
		// Mail servers speak plaintext and STARTTLS; what they bring is a token, not a secret of ours.
		if l.name != "smtp" && !plainOnly(l.name) && !secure && !s.cfg.InsecurePlaintext && !loopback(l.addr) {
			return fmt.Errorf("%s %s: it is not on loopback, so it needs TLS: give --tls-cert and --tls-key (or --insecure-plaintext behind a proxy that does TLS)", l.flag, l.addr)
		}
		n, err := net.Listen("tcp", l.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", l.flag, listenFault(err))
		}
		s.listeners[l.name] = n
		*l.used = n.Addr().String()
	}
	return nil
}

// unixPrefix begins the address of a unix socket. Mail in speaks LMTP there.
const unixPrefix = "unix:"

// plainOnly tells the protocols that know no TLS.
func plainOnly(name string) bool {
	return name == "milter" || name == "milter-local" || name == "socketmap"
}

// listenUnix listens on a socket that its owner and group may use. One that a process left behind is taken away.
func listenUnix(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: another process listens there", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// listenFault adds to the error of a listener what there is to be done.
func listenFault(err error) error {
	remedy := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		remedy = "another process listens there: stop it, or give another port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		remedy = "this machine has no such address: give one that it has"
	case errors.Is(err, fs.ErrNotExist):
		remedy = "make the socket's folder, and let the service's user write into it"
	case errors.Is(err, fs.ErrPermission):
		remedy = "let the service's user write into the socket's folder; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
	default:
		return err
	}
	return fmt.Errorf("%w (%s)", err, remedy)
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func (c *Config) proxies() ([]netip.Prefix, error) {
	return prefixes("--trusted-proxy", c.TrustedProxies)
}

// prefixes reads the CIDRs of a flag.
func prefixes(flag string, texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			ip, err := netip.ParseAddr(s)
			if err != nil {
				return nil, fmt.Errorf("%s %q: it must be a CIDR such as 10.0.0.0/8, or an IP address", flag, s)
			}
			p = netip.PrefixFrom(ip, ip.BitLen())
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// redactURL shows a store's URL without its password.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "…"
	}
	return u.Redacted()
}
