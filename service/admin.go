package service

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"optout/service/imapin"
	"optout/service/intake"
	"optout/service/ledger"
	"optout/service/mailgate"
)

// meters are the figures at /metrics. None has an address or a key in its labels.
type meters struct {
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec
	pages    *prometheus.HistogramVec
	messages *prometheus.CounterVec
	outcomes *prometheus.CounterVec
	accepted prometheus.Histogram
	filtered *prometheus.CounterVec
	mailed   *prometheus.CounterVec
	polled   *prometheus.CounterVec
}

func newMeters(l *ledger.Ledger, cert *certificate, now func() time.Time) *meters {
	m := &meters{registry: prometheus.NewRegistry(),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "optout_rpc_seconds", Help: "Time to answer a call, by method and gRPC code.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 4, 9)}, []string{"method", "code"}),
		pages: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "optout_http_seconds", Help: "Time to answer a recipient's request, by route and status.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 4, 9)}, []string{"route", "code"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optout_gate_messages_total", Help: "Messages that came to the gate, by the code of the answer."}, []string{"code"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optout_gate_recipients_total", Help: "Recipients of mail at the gate, by what became of them."}, []string{"outcome"}),
		filtered: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optout_milter_recipients_total", Help: "Recipients of mail at the milter and the socketmap, by what became of them."}, []string{"outcome"}),
		mailed:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optout_mail_in_total", Help: "Messages that came in, for each address of ours, by what became of them."}, []string{"outcome"}),
		polled:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optout_mailbox_total", Help: "Messages in watched mailboxes, and connections to these that failed, by what became of them."}, []string{"outcome"}),
		accepted: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "optout_gate_check_to_accepted_seconds", Help: "Time from a recipient's last check to the upstream's acceptance.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 1.5, 27)})}
	count := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
	}
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	c := l.Counters()
	count("optout_checks_total", "Addresses checked.", func() float64 { return float64(c.Checks.Load()) })
	count("optout_refused_total", "Addresses refused.", func() float64 { return float64(c.Refused.Load()) })
	count("optout_commits_total", "Transactions committed, one fsync each.", func() float64 { return float64(c.Commits.Load()) })
	count("optout_entries_total", "Entries written since the start.", func() float64 { return float64(c.Entries.Load()) })
	count("optout_replays_total", "Requests that came again with the same request_id.", func() float64 { return float64(c.Replays.Load()) })
	count("optout_anchor_failures_total", "Failures to write the tree head off the database.", func() float64 { return float64(c.AnchorFailures.Load()) })
	gauge("optout_ledger_position", "The head of the ledger.", func() float64 { return float64(l.Position().Number) })
	gauge("optout_clock_behind_seconds", "How far the clock is behind the newest entry: more than seconds mean that it stood wrong and was set back.", func() float64 { return l.ClockBehind().Seconds() })
	gauge("optout_certificate_expiry_seconds", "When the certificate in use ends, in Unix time; 0 without TLS.", cert.ends)
	gauge("optout_addresses", "Address keys that standing holds.", func() float64 { n, _ := l.Known(); return float64(n) })
	gauge("optout_queue_messages", "Messages that wait in the review queue.", func() float64 { return float64(l.QueueStats().Waiting) })
	gauge("optout_queue_held_messages", "Messages in the review queue that only a person decides, because too many came at once.", func() float64 { return float64(l.QueueStats().Held) })
	gauge("optout_queue_storms", "Domains whose hard bounces have jumped and are held.", func() float64 { return float64(l.QueueStats().Storms) })
	gauge("optout_queue_oldest_seconds", "How long the oldest message has waited in the review queue.", func() float64 {
		if oldest := l.QueueStats().Oldest; !oldest.IsZero() {
			return max(0, now().Sub(oldest).Seconds())
		}
		return 0
	})
	gauge("optout_standing_bytes", "Memory that standing takes.", func() float64 { _, b := l.Known(); return float64(b) })
	gauge("optout_writable", "1 when writes are taken, 0 when not (disk full, or the ledger has failed).", func() float64 {
		if l.Writable() == nil {
			return 1
		}
		return 0
	})
	// A counter that appears only with its first event hides that event from whoever watches for growth.
	for _, o := range []intake.Outcome{intake.OptedOut, intake.Bounce, intake.Complaint, intake.Queued, intake.Forwarded, intake.Ignored, intake.NotOurs, intake.Failed} {
		m.mailed.WithLabelValues(label(string(o)))
	}
	for _, o := range []string{imapin.Taken, imapin.Failed, imapin.TooLarge, imapin.Disconnected} {
		m.polled.WithLabelValues(label(o))
	}
	m.registry.MustRegister(m.calls, m.pages, m.messages, m.outcomes, m.accepted, m.filtered, m.mailed, m.polled, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *meters) rpc(method string, code codes.Code, d time.Duration) {
	m.calls.WithLabelValues(method, code.String()).Observe(d.Seconds())
}

func (m *meters) web(route string, status int, d time.Duration) {
	m.pages.WithLabelValues(route, http.StatusText(status)).Observe(d.Seconds())
}

func (m *meters) gate(e mailgate.Event) {
	if e.Code != 0 {
		m.messages.WithLabelValues(strconv.Itoa(e.Code)).Inc()
		return
	}
	m.outcomes.WithLabelValues(e.Outcome).Inc()
	if e.CheckToAccepted != 0 {
		m.accepted.Observe(e.CheckToAccepted.Seconds())
	}
}

func (m *meters) inbound(o intake.Outcome) { m.mailed.WithLabelValues(label(string(o))).Inc() }

func (m *meters) mailbox(outcome string) { m.polled.WithLabelValues(label(outcome)).Inc() }

// label is the value of a metric's label for what is called so in words.
func label(words string) string { return strings.ReplaceAll(words, " ", "_") }

func (m *meters) milter(outcome string) { m.filtered.WithLabelValues(outcome).Inc() }

// adminHandler serves /metrics, /healthz (the process lives and its ledger has not failed) and /readyz (writes are taken).
func (s *Service) adminHandler() http.Handler {
	mux := http.NewServeMux()
	answer := func(ok func() error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			if err := ok(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				w.Write([]byte(err.Error() + "\n"))
				return
			}
			w.Write([]byte("ok\n"))
		}
	}
	l := s.ledger
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.meters.registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", answer(func() error {
		if l.Err() != nil {
			return ledger.ErrClosed
		}
		return nil
	}))
	mux.Handle("GET /readyz", answer(l.Writable))
	return mux
}
