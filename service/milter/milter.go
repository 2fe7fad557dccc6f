// Package milter makes Postfix and Sendmail check: a mail filter (milter) that refuses recipients when they are named and again at
// the end of the message, and puts the list fields on; and a socketmap, by which Postfix asks again when it tries mail anew that
// was deferred. What a message may carry, and to whom, package outgoing says; this one speaks the two protocols.
package milter

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/d--j/go-milter"

	"optout/service/ledger"
	"optout/service/outgoing"
)

// OnError says what becomes of mail when the ledger cannot be asked.
type OnError string

// Ways to go on.
const (
	// Tempfail: the mail server tries again. It is the default.
	Tempfail OnError = "tempfail"
	// Reject: the mail comes back to who sent it.
	Reject OnError = "reject"
	// Accept: the mail goes out unchecked.
	Accept OnError = "accept"
)

// Options are what the milter and the socketmap need. All but Topics and Observe are required.
type Options struct {
	Judge *outgoing.Judge
	// Key is the number of the API key by whose rules mail is judged.
	Key uint32
	// Topics is the file that maps who sends to topics; empty for none.
	Topics  string
	OnError OnError
	Log     *slog.Logger
	// Observe takes what became of one recipient, for metrics: "accepted", "observed", "refused" (when
	// named) or "withheld". May be nil.
	Observe func(outcome string)
}

const (
	// readTimeout is how long a mail server may be silent: it holds its connection while its own client thinks.
	readTimeout  = 30 * time.Minute
	writeTimeout = 30 * time.Second
	askTimeout   = 30 * time.Second
	maxRcpt      = 10000
)

// Server is the milter, with the socketmap beside it.
type Server struct {
	o      Options
	topics *topicMap

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener
	filters   []*milter.Server
	conns     map[net.Conn]struct{}
	running   sync.WaitGroup
}

// New makes the server. It fails when the map of topics cannot be read.
func New(o Options) (*Server, error) {
	t, err := openTopics(o.Topics)
	if err != nil {
		return nil, err
	}
	return &Server{o: o, topics: t, conns: map[net.Conn]struct{}{}}, nil
}

// Serve answers mail servers on l until the server is closed. With local, mail comes from programs on the mail server's own machine
// (Postfix's non_smtpd_milters): whom they name cannot be refused one by one, so it is done at the end of the message.
func (s *Server) Serve(l net.Listener, local bool) error {
	actions := milter.OptAddHeader | milter.OptChangeHeader | milter.OptRemoveRcpt
	f := milter.NewServer(
		milter.WithMilter(func() milter.Milter { return &session{s: s, local: local} }),
		milter.WithActions(actions),
		milter.WithProtocols(milter.OptNoHelo|milter.OptNoData|milter.OptNoBody|milter.OptNoUnknown|milter.OptHeaderLeadingSpace),
		milter.WithReadTimeout(readTimeout), milter.WithWriteTimeout(writeTimeout),
		milter.WithMacroRequest(milter.StageMail, []milter.MacroName{milter.MacroAuthAuthen, milter.MacroClientAddr, macroTopic}))
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners, s.filters = append(s.listeners, l), append(s.filters, f)
	s.mu.Unlock()
	if err := f.Serve(l); err != nil && err != milter.ErrServerClosed && !s.isClosed() {
		return err
	}
	return nil
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close ends everything: messages whose end has come get their answers first, for as long as ctx lasts.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.SetReadDeadline(time.Now()) // between two questions; what is asked is still answered
	}
	filters := s.filters
	s.mu.Unlock()
	for _, f := range filters {
		f.Close()
	}
	ended := make(chan struct{})
	go func() { s.running.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		s.mu.Lock()
		for c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		<-ended
	}
	return nil
}

func (s *Server) observe(outcome string) {
	if s.o.Observe != nil {
		s.o.Observe(outcome)
	}
}

// macroTopic is a macro by which the mail server may name the topic (Postfix: milter_macro_defaults).
const macroTopic = "{optout_topic}"

// session is one connection of a mail server: one message after the other.
type session struct {
	milter.NoOpMilter
	s      *Server
	local  bool
	client string

	fallback string // the topic by macro or map
	to       []string
	head     []byte
}

// Connect takes note of who sends.
func (c *session) Connect(_, family string, _ uint16, addr string, _ milter.Modifier) (*milter.Response, error) {
	if family == "tcp4" || family == "tcp6" {
		c.client = addr
	}
	return milter.RespContinue, nil
}

// MailFrom begins a message.
func (c *session) MailFrom(from, _ string, m milter.Modifier) (*milter.Response, error) {
	c.to, c.head = nil, nil
	if c.fallback = m.Get(macroTopic); c.fallback == "" {
		topic, err := c.s.topics.find(m.Get(milter.MacroAuthAuthen), milter.RemoveAngle(from), c.client)
		if err != nil {
			c.s.o.Log.Error("the milter's map of topics cannot be read", "error", err)
			return c.answer(errMap)
		}
		c.fallback = topic
	}
	return milter.RespContinue, nil
}

var (
	errMap     = outgoing.Fault(451, [3]int{4, 3, 5}, "the map of topics cannot be read: try again later")
	errKey     = outgoing.Fault(451, [3]int{4, 3, 5}, "the milter's API key is not valid: try again later")
	errSecond  = outgoing.Fault(452, [3]int{4, 5, 3}, "each recipient's copy carries a link of its own: send one message to each")
	errSeveral = outgoing.Fault(550, [3]int{5, 5, 3}, "each recipient's copy carries a link of its own: send one message to each, with one recipient")
	errMany    = outgoing.Fault(452, [3]int{4, 5, 3}, "too many recipients")
)

// RcptTo checks a recipient the moment it is named.
func (c *session) RcptTo(to, _ string, _ milter.Modifier) (*milter.Response, error) {
	to = milter.RemoveAngle(to)
	if c.local {
		if len(c.to) < maxRcpt {
			c.to = append(c.to, to)
		}
		return milter.RespContinue, nil // it must not be refused here, or the whole message is
	}
	if len(c.to) >= maxRcpt {
		return c.answer(errMany)
	}
	key := c.s.key()
	if key == nil {
		return c.answer(errKey)
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	if r := c.s.o.Judge.Foresee(ctx, key, c.fallback, to); r != nil {
		if r.Denied {
			c.s.observe("refused")
		}
		return c.answer(r)
	}
	if len(c.to) > 0 && c.s.o.Judge.MayBeLinked(key, c.fallback) {
		return c.answer(errSecond)
	}
	c.to = append(c.to, to)
	return milter.RespContinue, nil
}

func (s *Server) key() *ledger.APIKey { return s.o.Judge.Current(s.o.Key) }

// Header takes one field.
func (c *session) Header(name, value string, _ milter.Modifier) (*milter.Response, error) {
	if !strings.HasPrefix(value, " ") && !strings.HasPrefix(value, "\t") {
		value = " " + value
	}
	if len(c.head) <= outgoing.MaxHeader {
		c.head = append(c.head, name+":"+strings.ReplaceAll(strings.ReplaceAll(value, "\r\n", "\n"), "\n", "\r\n")+"\r\n"...)
	}
	return milter.RespContinue, nil
}

// EndOfMessage checks all recipients again, takes the refused ones off, and puts the fields on.
func (c *session) EndOfMessage(m milter.Modifier) (*milter.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	key := c.s.key()
	if key == nil {
		return c.answer(errKey)
	}
	h, _, r := outgoing.ParseHeader(c.head)
	if r != nil {
		return c.answer(r)
	}
	q, r := c.s.o.Judge.Ask(key, h, c.fallback)
	if r != nil {
		return c.answer(r)
	}
	var refused []string
	var last *outgoing.Refusal
	var verdicts []*ledger.Verdict
	for _, to := range c.to {
		v, r := c.s.o.Judge.Check(ctx, q, to)
		switch {
		case r == nil:
			verdicts = append(verdicts, &v)
		case r.Denied:
			refused, last = append(refused, to), r
			c.s.o.Judge.Withheld(ctx, q, &v)
			c.s.observe("withheld")
		default:
			return c.answer(r)
		}
		if q.Linked() && len(verdicts) > 1 {
			return c.answer(errSeveral)
		}
	}
	if len(verdicts) == 0 {
		if last == nil {
			last = outgoing.Fault(554, [3]int{5, 5, 1}, "no valid recipients")
		}
		return c.answer(last)
	}
	for _, to := range refused {
		if err := m.DeleteRecipient(to); err != nil {
			return nil, err
		}
	}
	if err := c.rewrite(m, q, h, verdicts); err != nil {
		return nil, err
	}
	observed := 0
	for _, v := range verdicts {
		if c.s.o.Judge.Observed(q, v) {
			observed++
			c.s.observe("observed")
			continue
		}
		c.s.observe("accepted")
	}
	c.s.o.Log.Info("message", "credential", key.Number, "topic", q.Topic.Name, "mailing", q.Mailing, "recipients", len(c.to), "accepted", len(verdicts), "withheld", len(refused), "observed", observed)
	return milter.RespAccept, nil
}

// rewrite takes fields off and puts ours on.
func (c *session) rewrite(m milter.Modifier, q *outgoing.Question, h *outgoing.Header, verdicts []*ledger.Verdict) error {
	count := map[string]int{}
	names := h.Names()
	for _, n := range names {
		count[strings.ToLower(n)]++
	}
	for _, n := range names {
		k := strings.ToLower(n)
		if !outgoing.Removed(q, n) || k == "return-path" {
			continue
		}
		for ; count[k] > 0; count[k]-- { // from the last, so that the numbers of the others stay
			if err := m.ChangeHeader(count[k], n, ""); err != nil {
				return err
			}
		}
	}
	for _, f := range c.s.o.Judge.Fields(q, verdicts...) {
		if err := m.AddHeader(f.Name, " "+strings.ReplaceAll(f.Value, "\r\n", "\n")); err != nil {
			return err
		}
	}
	return nil
}

// Abort ends a message that did not come to its end.
func (c *session) Abort(milter.Modifier) error {
	c.to, c.head = nil, nil
	return nil
}

// answer turns a refusal into the protocol's reply. What cannot be judged goes as OnError says.
func (c *session) answer(r *outgoing.Refusal) (*milter.Response, error) {
	if r.Temporary() && r != errSecond && r != errMany {
		switch c.s.o.OnError {
		case Accept:
			c.s.o.Log.Error("mail goes out unchecked, as --milter-on-error accept demands", "reason", r.Text)
			return milter.RespAccept, nil
		case Reject:
			return reply(outgoing.Fault(550, [3]int{5, 3, 0}, "%s", r.Text))
		}
	}
	return reply(r)
}

func reply(r *outgoing.Refusal) (*milter.Response, error) {
	_, text, _ := strings.Cut(r.Error(), " ")
	return milter.RejectWithCodeAndReason(uint16(r.Code), strings.ReplaceAll(text, "%", "%%"))
}
