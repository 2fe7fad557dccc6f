package imapin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sys/unix"
)

const (
	// errNoToken: the token server gives no token, and asking again soon will not help.
	errNoToken = fault("the token server refused")
	// errTokenRefused: the mail server does not take a token that was given a moment ago.
	errTokenRefused = fault("the server refused the token")
	// errTokenStale: it does not take one that was kept.
	errTokenStale = fault("the server no longer takes the token")
)

const (
	// maxAnswer is how many octets of a token server's answer are read.
	maxAnswer = 64 << 10
	// tokenTime is how long a token server may take.
	tokenTime = 30 * time.Second
	// spare is for how long before it expires a token is no longer used; a tenth of its life if that is shorter.
	spare = 2 * time.Minute
	// shortLife is for how long a token must be good for a session to end with it.
	shortLife = time.Minute
)

// token is an access token (RFC 6750).
type token struct {
	word string
	// until is the time from which it is not used; zero means never.
	until time.Time
	// brief tells that it lives so shortly that sessions do not end with it.
	brief bool
}

// tokens gets the tokens of one mailbox, and keeps each until shortly before it expires.
type tokens struct {
	file string
	http *http.Client
	now  func() time.Time
	log  *slog.Logger
	kept token
	// rotated is the refresh token that the provider has given in place of the file's, while it cannot be written into the file.
	rotated struct{ from, to string }
}

// newTokens returns the tokens by an OAuth file. secure verifies the token server; nil means the system's authorities.
func newTokens(file string, secure *tls.Config, now func() time.Time, log *slog.Logger) *tokens {
	var authorities *x509.CertPool
	if secure != nil {
		authorities = secure.RootCAs
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}
	t.DisableKeepAlives = true // a token is asked for once an hour
	t.MaxResponseHeaderBytes = maxAnswer
	return &tokens{file: file, now: now, log: log, http: &http.Client{Transport: bounded{t}, Timeout: tokenTime,
		// A redirect would take the secrets to somewhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// bounded reads no more of an answer than maxAnswer.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxAnswer), answer.Body}
	}
	return answer, err
}

// check reads the file, to find its faults early.
func (t *tokens) check() error {
	f, err := os.Open(t.file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = readClient(f)
	return err
}

// get returns a token. kept tells that it was not asked for just now.
func (t *tokens) get(ctx context.Context) (got token, kept bool, err error) {
	if t.kept.word != "" && (t.kept.until.IsZero() || t.now().Before(t.kept.until)) {
		return t.kept, true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*tokenTime)
	defer cancel()
	f, c, err := t.open(ctx)
	if err != nil {
		return token{}, false, err
	}
	defer f.Close()
	t.kept, err = t.ask(ctx, c)
	return t.kept, false, err
}

// forget has the next token asked for.
func (t *tokens) forget() { t.kept = token{} }

// open opens the file and reads it. Where it holds a refresh token it is locked until it is closed, so that of all pollers that share
// it, in other processes too, one at a time trades the token in: with a provider that rotates them, a second one would come with a
// token that is used up, and some providers take that for a theft.
func (t *tokens) open(ctx context.Context) (*os.File, client, error) {
	for {
		f, c, free, err := t.tryOpen()
		if err != nil || free {
			return f, c, err
		}
		select {
		case <-ctx.Done():
			return nil, client{}, fault(t.file + " is locked by another process")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tryOpen is open; free tells that nobody else has the lock.
func (t *tokens) tryOpen() (f *os.File, c client, free bool, err error) {
	if f, err = os.Open(t.file); err != nil {
		return nil, client{}, false, err
	}
	defer func() {
		if !free {
			f.Close()
		}
	}()
	// Where the file system knows no locks there is none, and nothing worse comes of it than without.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return f, client{}, false, nil
	}
	// Whoever had the lock may have put another file in the place of this one.
	there, err := os.Stat(t.file)
	if err != nil {
		return f, client{}, false, err
	}
	opened, err := f.Stat()
	if err != nil || !os.SameFile(there, opened) {
		return f, client{}, false, err
	}
	if c, err = readClient(f); err != nil {
		return f, client{}, false, err
	}
	if c.RefreshToken == "" {
		unix.Flock(int(f.Fd()), unix.LOCK_UN)
	}
	return f, c, true, nil
}

// ask asks the token server for a token.
func (t *tokens) ask(ctx context.Context, c client) (token, error) {
	asked := t.now()
	// Both grants differ only in these parameters; oauth2.Config would leave the scope out of a refresh, by which Microsoft tells for
	// which of its services the token is to be. The secret goes into the body, where Google wants it and Microsoft takes it: to
	// try both ways, as AuthStyleAutoDetect does, could use a refresh token up.
	o := clientcredentials.Config{ClientID: c.ID, ClientSecret: c.Secret, TokenURL: c.TokenURL, Scopes: strings.Fields(c.Scope), AuthStyle: oauth2.AuthStyleInParams}
	if c.RefreshToken != "" {
		refresh := c.RefreshToken
		if t.rotated.from == refresh {
			refresh = t.rotated.to
		}
		o.EndpointParams = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}
	}
	got, err := o.Token(context.WithValue(ctx, oauth2.HTTPClient, t.http))
	if err != nil {
		return token{}, tokenFault(err)
	}
	if c.RefreshToken != "" {
		t.keep(c.RefreshToken, got.RefreshToken)
	}
	switch {
	case got.TokenType != "" && !strings.EqualFold(got.TokenType, "bearer"):
		return token{}, fault("the token server gives tokens of another type than Bearer")
	case strings.ContainsFunc(got.AccessToken, func(c rune) bool { return c <= ' ' || c >= 0x7f }):
		return token{}, fault("the token server gives a token with characters that none may have (RFC 6750 section 2.1)")
	}
	x := token{word: got.AccessToken}
	if !got.Expiry.IsZero() {
		life := time.Until(got.Expiry)
		x.until = asked.Add(life - min(spare, life/10))
		x.brief = life < shortLife
	}
	return x, nil
}

// keep writes a refresh token into the file that the provider has given in place of the file's.
func (t *tokens) keep(old, fresh string) {
	if old == fresh {
		return
	}
	err := t.replace(old, fresh)
	if err == nil {
		t.rotated.from, t.rotated.to = "", ""
		return
	}
	t.rotated.from, t.rotated.to = old, fresh
	t.log.Warn("the provider has given a new refresh token, which cannot be written into the OAuth file: it is kept in memory, and lost with the process",
		"error", err, "remedy", "let the service write into the folder of the file")
}

// replace puts a refresh token into the file, unless somebody else has put another one there meanwhile, which is newer.
func (t *tokens) replace(old, fresh string) error {
	f, err := os.Open(t.file)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := readClient(f)
	if err != nil || c.RefreshToken != old {
		return err
	}
	c.RefreshToken = fresh
	return c.write(t.file)
}

// microsoftCode is the number by which Microsoft tells what is wrong; the words around it may hold more.
var microsoftCode = regexp.MustCompile(`\bAADSTS[0-9]{4,8}\b`)

// tokenFault says in our own words why no token comes. What a token server writes may quote what it was sent.
func tokenFault(err error) error {
	var (
		answer      *oauth2.RetrieveError
		request     *url.Error
		network     *net.OpError
		certificate *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &answer):
		said := fmt.Sprintf(" with %d", answer.Response.StatusCode)
		if remedy := remedyFor(answer); remedy != "" {
			said += " " + remedy
		}
		if code := microsoftCode.FindString(answer.ErrorDescription); code != "" {
			said += " (" + code + ")"
		}
		if s := answer.Response.StatusCode; s >= http.StatusInternalServerError || s == http.StatusTooManyRequests {
			return fault("the token server failed" + said)
		}
		return fmt.Errorf("%w%s", errNoToken, said)
	case errors.As(err, &request) && request.Timeout():
		return fault("the token server did not answer in time")
	case errors.As(err, &network):
		return fmt.Errorf("the token server cannot be reached: %w", network)
	case errors.As(err, &certificate):
		return fmt.Errorf("the token server: %w", certificate)
	}
	return fault("the token server's answer could not be read")
}

// remedyFor says what the codes of RFC 6749 section 5.2 mean to whoever has written the file.
func remedyFor(answer *oauth2.RetrieveError) string {
	switch code := answer.ErrorCode; code {
	case "invalid_client":
		return code + ": client_id or client_secret is wrong, or the secret has expired"
	case "invalid_grant":
		return code + ": refresh_token no longer holds: authorise the client again, and put the new one into the file"
	case "unauthorized_client", "unsupported_grant_type":
		return code + ": the client may not get tokens in this way; with a refresh_token in the file it is refreshing, without one client credentials"
	case "invalid_scope":
		return code + ": scope is wrong"
	case "invalid_request":
		return code + ": a field is missing or wrong, such as scope"
	}
	if s := answer.Response.StatusCode; s >= 300 && s < 400 {
		return "a redirect, which is not followed: token_url must be the address itself"
	}
	return ""
}
