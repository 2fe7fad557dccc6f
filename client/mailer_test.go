package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wneessen/go-mail"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

func TestMailerDropsTheRefusedAndSaysSo(t *testing.T) {
	s := newSetup(t)
	s.optOut(t, "cc-out@example.com")
	s.optOut(t, "bcc-out@example.com")
	report, err := s.mailer.Send(t.Context(), "news", message(t, []string{"to@example.com"}, []string{"cc-out@example.com", "cc@example.com"},
		[]string{"bcc-out@example.com", "bcc@example.com"}))
	if err != nil {
		t.Fatal(err)
	}
	got := outcomes(report)
	for addr, want := range map[string]client.Outcome{"to@example.com": client.Sent, "cc@example.com": client.Sent, "bcc@example.com": client.Sent,
		"cc-out@example.com": client.Refused, "bcc-out@example.com": client.Refused} {
		if got[addr] != want {
			t.Errorf("%s: %v, want %v", addr, got[addr], want)
		}
	}
	if s.sink.total() != 3 {
		t.Errorf("%d messages arrived, want 3", s.sink.total())
	}
	links := map[string]bool{}
	for _, addr := range []string{"to@example.com", "cc@example.com", "bcc@example.com"} {
		for _, m := range s.sink.to(addr) {
			head, _, _ := strings.Cut(m, "\r\n\r\n")
			if strings.Contains(m, "bcc@") || strings.Contains(m, "-out@") {
				t.Errorf("the message to %s shows who else got it or was refused:\n%s", addr, head)
			}
			if strings.Count(head, "List-Unsubscribe: <https://mail.example.com/u/") != 1 || strings.Count(head, "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n") != 1 {
				t.Errorf("the message to %s has not exactly one of each list field:\n%s", addr, head)
			}
			_, link, _ := strings.Cut(head, "List-Unsubscribe: <")
			link, _, _ = strings.Cut(link, ">")
			if links[link] {
				t.Error("two recipients got the same link")
			}
			links[link] = true
			press(t, s.svc, link)
			d, err := s.client.CheckSend(t.Context(), "news", addr)
			if err != nil || d.Send() {
				t.Errorf("the arriving link did not stop mail to %s: %v, %v", addr, d, err)
			}
		}
	}
}

// Somebody opts out after the first look and before their message leaves: it does not leave.
func TestMailerAsksAgainBeforeEachMessage(t *testing.T) {
	s := newSetup(t)
	s.sink.before = func(to string) {
		if to == "first@example.com" {
			s.client.Unsubscribe(context.Background(), "second@example.com", nil)
		}
	}
	report, err := s.mailer.Send(t.Context(), "news", message(t, []string{"first@example.com"}, nil, nil), message(t, []string{"second@example.com"}, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	if report[0].Outcome != client.Sent || report[1].Outcome != client.Refused || len(s.sink.to("second@example.com")) != 0 {
		t.Errorf("%v", report)
	}
}

func TestMailerSendsNothingWhenItCannotAsk(t *testing.T) {
	s := newSetup(t)
	t.Run("unknown topic", func(t *testing.T) {
		report, err := s.mailer.Send(t.Context(), "nosuch", message(t, []string{"a@example.com"}, nil, nil))
		if !errors.Is(err, client.ErrCannotAsk) || client.Reason(err) != optoutv1.ErrorReason_ERROR_REASON_UNKNOWN_TOPIC || report.Count(client.NotAsked) != 1 {
			t.Errorf("%v, %v", report, err)
		}
	})
	t.Run("service gone in the middle", func(t *testing.T) {
		s.sink.before = func(string) { go s.svc.Stop(); time.Sleep(300 * time.Millisecond) }
		c := s.svc.Client(t, client.WithTimeout(time.Second))
		report, err := client.NewMailer(c, s.sink.mail(t)).Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil), message(t, []string{"b@example.com"}, nil, nil),
			message(t, []string{"c@example.com"}, nil, nil))
		if !errors.Is(err, client.ErrCannotAsk) || report.Count(client.Sent) != 1 || report.Count(client.NotAsked) != 2 || s.sink.total() != 1 {
			t.Errorf("%v, %v; %d arrived", report, err, s.sink.total())
		}
	})
}

func TestMailerRefusesCommercialMailWithoutPostalAddress(t *testing.T) {
	s := newSetup(t)
	none := ""
	admin := optoutv1.NewAdminServiceClient(s.client.Conn())
	if _, err := admin.UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{PostalAddress: &none}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.mailer.Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil)); !errors.Is(err, client.ErrPostalAddress) {
		t.Errorf("%v", err)
	}
	if s.sink.total() != 0 {
		t.Error("a message left")
	}
}

func TestMailerTellsWhatTheServerRefused(t *testing.T) {
	s := newSetup(t)
	s.sink.refuse = "gone@example.com"
	report, err := s.mailer.Send(t.Context(), "news", message(t, []string{"gone@example.com", "here@example.com"}, nil, nil))
	got := outcomes(report)
	if err == nil || got["gone@example.com"] != client.Failed || got["here@example.com"] != client.Sent {
		t.Errorf("%v, %v", report, err)
	}
}

// A caller's own list fields are replaced, whichever way they were set.
func TestMailerReplacesListFields(t *testing.T) {
	s := newSetup(t)
	for name, set := range map[string]func(*mail.Msg){
		"generic":      func(m *mail.Msg) { m.SetListUnsubscribe("<https://old.example.com/x>") },
		"preformatted": func(m *mail.Msg) { m.SetGenHeaderPreformatted("List-Unsubscribe", "<https://old.example.com/x>") },
	} {
		m := message(t, []string{name + "@example.com"}, nil, nil)
		set(m)
		if _, err := s.mailer.Send(t.Context(), "news", m); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := s.sink.to(name + "@example.com")[0]; strings.Contains(got, "old.example.com") || strings.Count(got, "List-Unsubscribe: ") != 1 {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

// A class that is newer than this client is taken for commercial: without a postal address its mail does not leave.
func TestMailerTakesUnknownClassesForCommercial(t *testing.T) {
	for class, refused := range map[optoutv1.TopicClass]bool{optoutv1.TopicClass_TOPIC_CLASS_COMMERCIAL: true, 0: true, 9: true,
		optoutv1.TopicClass_TOPIC_CLASS_TRANSACTIONAL: false} {
		k, s := newSink(t), newScripted()
		s.class, s.postal = class, " "
		_, err := client.NewMailer(s.client(t), k.mail(t)).Send(t.Context(), "news", message(t, []string{"a@example.com"}, nil, nil))
		if errors.Is(err, client.ErrPostalAddress) != refused || (k.total() == 0) != refused {
			t.Errorf("class %d: %v; %d arrived", class, err, k.total())
		}
		if refused && client.Reason(err) != optoutv1.ErrorReason_ERROR_REASON_POSTAL_ADDRESS_MISSING {
			t.Errorf("class %d: the reason is %v", class, client.Reason(err))
		}
	}
}

// An outage, or a verdict that the client does not know, between the first look and the message: nothing leaves from there on.
func TestMailerStopsAtAnAnswerItCannotUse(t *testing.T) {
	for name, answer := range map[string]func() (*optoutv1.CheckSendResponse, error){
		"unknown verdict": func() (*optoutv1.CheckSendResponse, error) {
			return &optoutv1.CheckSendResponse{Verdict: 3, Link: exampleLink()}, nil
		},
		"no verdict": func() (*optoutv1.CheckSendResponse, error) {
			return &optoutv1.CheckSendResponse{Link: exampleLink()}, nil
		},
		"refused to answer": func() (*optoutv1.CheckSendResponse, error) { return nil, errors.New("internal") },
	} {
		k, s := newSink(t), newScripted()
		permit, asked := s.check, 0
		s.check = func(r *optoutv1.CheckSendRequest) (*optoutv1.CheckSendResponse, error) {
			if asked++; asked == 2 {
				return answer()
			}
			return permit(r)
		}
		report, err := client.NewMailer(s.client(t), k.mail(t)).Send(t.Context(), "news", three(t))
		if !errors.Is(err, client.ErrCannotAsk) || report.Count(client.Sent) != 1 || report.Count(client.NotAsked) != 2 || k.total() != 1 || asked != 2 {
			t.Errorf("%s: %v, %v; %d arrived, asked %d times", name, report, err, k.total(), asked)
		}
	}
}
