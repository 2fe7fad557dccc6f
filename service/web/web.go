// Package web is what recipients and mailbox providers see: the page behind an unsubscribe link, and one-click (RFC 8058).
//
// Looking never acts: GET and HEAD change nothing, and there is no script. POST acts, needs no cookie, no session and no
// particular body, and is never redirected. A 200 leaves only after the opt-out is durable and in force. It turns requests into
// the core's Press and Undo, and decides nothing else.
package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"

	"optout/service/ledger"
	"optout/service/link"
)

// Options are what the pages need.
type Options struct {
	Ledger *ledger.Ledger
	// Ring is the current ring of link keys.
	Ring func() *link.Ring
	// TrustedProxies are those whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	Now            func() time.Time
	Log            *slog.Logger
	// Observe takes the time of each request, for metrics; may be nil.
	Observe func(route string, status int, d time.Duration)
}

//go:embed page.html style.css texts
var files embed.FS

// handler answers everything on the public listener.
type handler struct {
	Options
	page  *template.Template
	style template.CSS
	csp   string
	texts *texts
}

// New makes the handler of the public listener.
func New(o Options) http.Handler {
	css, err := files.ReadFile("style.css")
	if err != nil {
		panic(err) // embedded: a fault of the build
	}
	h := &handler{Options: o, page: template.Must(template.ParseFS(files, "page.html")), style: template.CSS(css), texts: loadTexts()}
	// html/template writes the style as it is; the browser runs no other.
	sum := sha256.Sum256(css)
	h.csp = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
	return h
}

// Limits of a request.
const (
	maxBody    = 16 << 10
	maxHeaders = 16 << 10
	// writeTimeout is how long an opt-out may wait for its commit. It goes on when the client has hung up: the press was made.
	writeTimeout = 20 * time.Second
	retryAfter   = "5"
)

// Server is the hardened HTTP server of a listener: time and size limits on everything that it reads.
func Server(h http.Handler, tlsConfig *tls.Config, log *slog.Logger) *http.Server {
	return &http.Server{Handler: closeAfterChunks(h), TLSConfig: tlsConfig, ReadHeaderTimeout: 2 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 40 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: maxHeaders, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
}

// closeAfterChunks ends the connection after any request that had Transfer-Encoding, so that a proxy and we can never take
// different octets for the next request. Methods that are none are refused.
func closeAfterChunks(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// route tells what a path asks for. Doubled and trailing slashes, dots and upper case do not matter: whoever has a link in a
// form that some program has mended must reach it without a redirect.
func route(r *http.Request) (kind, token string) {
	p := strings.ToLower(path.Clean("/" + r.URL.Path))
	parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
	// A public URL may have a path of its own in front.
	if n := len(parts); n >= 2 && (parts[n-2] == "u" || parts[n-2] == "undo") {
		return parts[n-2], parts[n-1]
	}
	if p == "/robots.txt" {
		return "robots", ""
	}
	return "", ""
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// ServeHTTP answers every path of the listener.
func (h *handler) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w := &statusWriter{rw, http.StatusOK}
	kind, token := route(r)
	if h.Observe != nil {
		defer func() { h.Observe(kind, w.status, time.Since(start)) }()
	}
	head := w.Header()
	head.Set("Cache-Control", "no-store")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("X-Robots-Tag", "noindex, nofollow")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Content-Security-Policy", h.csp)
	if r.TLS != nil {
		head.Set("Strict-Transport-Security", "max-age=31536000")
	}
	switch kind {
	case "u":
		h.unsubscribe(w, r, token)
	case "undo":
		h.undo(w, r, token)
	case "robots":
		text(w, http.StatusOK, "User-agent: *\nDisallow: /\n")
	default:
		notFound(w)
	}
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprint(w, s)
}

// notFound is the one answer to every path and token that is not ours.
func notFound(w http.ResponseWriter) { text(w, http.StatusNotFound, "There is nothing here.\n") }

func methodNotAllowed(w http.ResponseWriter, allow string) {
	w.Header().Set("Allow", allow)
	text(w, http.StatusMethodNotAllowed, "This address answers "+allow+".\n")
}

// unsubscribe is /u/{token}.
func (h *handler) unsubscribe(w http.ResponseWriter, r *http.Request, token string) {
	t, err := h.Ring().Open(token, link.Unsubscribe)
	reg := h.Ledger.Registry()
	sender, kind, topic, known := reg.Scope(t.Scope)
	if err != nil || !known {
		notFound(w)
		return
	}
	v := h.view(r, sender, kind, topic)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		v.Action = "" // posts to where it stands
		h.show(w, r, http.StatusOK, "ask", v)
	case http.MethodPost:
		h.press(w, r, t, v)
	default:
		methodNotAllowed(w, "GET, HEAD, POST")
	}
}

// press is the POST: one-click by a mailbox provider, or the button on the page.
func (h *handler) press(w http.ResponseWriter, r *http.Request, t link.Token, v *view) {
	form, fromPage := bodyForm(w, r)
	by := ledger.By{Channel: ledger.ByOneClick, Mailing: t.Mailing, Evidence: map[string]string{"body_form": form, "ip": h.clientIP(r),
		"user_agent": clean(r.UserAgent()), "content_type": clean(r.Header.Get("Content-Type"))}}
	if fromPage {
		by.Channel = ledger.ByPage
	}
	generation, ok := h.Ledger.Registry().LinkGeneration(t.KeyID)
	if !ok {
		notFound(w)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), writeTimeout)
	defer cancel()
	o, err := h.Ledger.Press(ctx, by, t.Scope, generation, t.Key)
	switch {
	case err != nil:
		h.later(w, r, v, fromPage, err)
	case !fromPage:
		text(w, http.StatusOK, "You are unsubscribed.\n")
	default:
		if o.Undoable {
			v.Action = "/undo/" + h.Ring().Seal(link.Token{Purpose: link.Undo, Scope: t.Scope, Mailing: uint32(h.Now().Unix() / 60), Key: ledger.PackRef(o.Entry, t.Key)})
			v.CanUndo = true
			v.Action = undoPath(r, v.Action)
		}
		h.show(w, r, http.StatusOK, "done", v)
	}
}

// undoPath keeps what stands before /u/ in the path of the request: a proxy may serve us under a path.
func undoPath(r *http.Request, action string) string {
	i := strings.LastIndex(strings.ToLower(r.URL.Path), "/u/")
	return path.Clean("/"+r.URL.Path[:max(i, 0)]) + strings.TrimPrefix(action, "/")
}

// later answers that the press could not be made durable now. It is never a success.
func (h *handler) later(w http.ResponseWriter, r *http.Request, v *view, page bool, err error) {
	if !errors.Is(err, ledger.ErrStorageFull) && !errors.Is(err, ledger.ErrClosed) {
		h.Log.Error("a press could not be recorded", "error", err)
	}
	w.Header().Set("Retry-After", retryAfter)
	if page {
		h.show(w, r, http.StatusServiceUnavailable, "later", v)
		return
	}
	text(w, http.StatusServiceUnavailable, "Please try again in a moment.\n")
}

// undo is /undo/{token}: it takes back the press of a moment ago.
func (h *handler) undo(w http.ResponseWriter, r *http.Request, token string) {
	t, err := h.Ring().Open(token, link.Undo)
	sender, kind, topic, known := h.Ledger.Registry().Scope(t.Scope)
	if err != nil || !known {
		notFound(w)
		return
	}
	if r.Method != http.MethodPost {
		methodNotAllowed(w, "POST")
		return
	}
	v := h.view(r, sender, kind, topic)
	_, _ = bodyForm(w, r)
	position, prefix := ledger.UnpackRef(t.Key)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), writeTimeout)
	defer cancel()
	by := ledger.By{Channel: ledger.ByPage, Evidence: map[string]string{"ip": h.clientIP(r), "user_agent": clean(r.UserAgent())}}
	_, err = h.Ledger.Undo(ctx, by, position, prefix)
	switch {
	case errors.Is(err, ledger.ErrUndoStale):
		h.show(w, r, http.StatusGone, "stale", v)
	case err != nil:
		h.later(w, r, v, true, err)
	default:
		line, err := h.Ledger.Line(ctx, position)
		if err != nil {
			h.later(w, r, v, true, err)
			return
		}
		if entry, _ := h.Ledger.InForce(t.Scope, line.Key); entry != 0 {
			h.show(w, r, http.StatusOK, "still", v)
			return
		}
		h.show(w, r, http.StatusOK, "undone", v)
	}
}

// show writes a page.
func (h *handler) show(w http.ResponseWriter, r *http.Request, status int, state string, v *view) {
	v.State, v.Style = state, h.style
	var b bytes.Buffer
	if err := h.page.Execute(&b, v); err != nil {
		h.Log.Error("a page could not be written", "error", err)
		text(w, http.StatusInternalServerError, "Something went wrong here.\n")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", v.Lang)
	w.Header().Set("Vary", "Accept-Language")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(b.Bytes())
	}
}

// clientIP is the peer's address, or what a trusted proxy says it is: the right-most address of X-Forwarded-For that is not a
// trusted proxy's.
func (h *handler) clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= 0 && h.trusted(ip); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		ip = next
	}
	return ip.Unmap().String()
}

func (h *handler) trusted(ip netip.Addr) bool {
	for _, p := range h.TrustedProxies {
		if p.Contains(ip.Unmap()) {
			return true
		}
	}
	return false
}

// clean makes a header fit for the record.
func clean(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "")
	}
	return s
}
