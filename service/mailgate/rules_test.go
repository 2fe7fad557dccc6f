package mailgate_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/mailtest"
)

// With --gate-verp each copy has a return path of its own, and a bounce that comes back to it says whose it is.
func TestReturnPath(t *testing.T) {
	in := mailtest.FreeAddr(t)
	r := newRig(t, func(c *service.Config) { c.Gate.VERP, c.SMTP = true, in }, nil)
	if _, _, err := r.send(mailText(), ann, bob); err != nil {
		t.Fatal(err)
	}
	got := r.sink.Taken()
	if got[0].From == got[1].From || !strings.HasPrefix(got[0].From, "b-") || !strings.HasSuffix(got[0].From, "@unsub.example.com") {
		t.Fatalf("return paths %s, %s", got[0].From, got[1].From)
	}
	bounce := "From: MAILER-DAEMON@mx.example.org\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" +
		"Reporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; nobody@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b--\r\n"
	mx, err := smtp.Dial(in)
	if err != nil {
		t.Fatal(err)
	}
	defer mx.Close()
	if err := mx.SendMail("", []string{got[1].From}, strings.NewReader(bounce)); err != nil {
		t.Fatal(err)
	}
	if refused, _, err := r.send(mailText("X-Again: 1"), ann, bob); err != nil || refused[bob] == nil || !strings.Contains(refused[bob].Message, "cannot be delivered") || refused[ann] != nil {
		t.Errorf("after the bounce: %v %v", refused, err)
	}
}

// Only a mailing list manager's own List-* fields stay, but for ours.
func TestListSoftware(t *testing.T) {
	for _, marked := range []bool{false, true} {
		r := newRig(t, nil, func(k *optoutv1.ApiKey) { k.ListSoftware = marked })
		if _, _, err := r.send(mailText("List-Post: <mailto:all@example.com>", "List-Help: <mailto:help@example.com>", "List-Id: <theirs.example.com>"), ann); err != nil {
			t.Fatal(err)
		}
		a := r.sink.Last(t)
		if kept := len(a.Fields("List-Post"))+len(a.Fields("List-Help")) == 2; kept != marked {
			t.Errorf("marked %v: kept %v", marked, kept)
		}
		if ids := a.Fields("List-Id"); len(ids) != 1 || strings.Contains(ids[0], "theirs") {
			t.Errorf("List-Id %q", ids)
		}
	}
}

// Each kind of server behind the gate gets what it needs.
func TestProfiles(t *testing.T) {
	specs, lookup := dkimKeys(t)
	for profile, c := range map[string]struct {
		keys   []string
		signed bool
		omits  []string
		adds   string
	}{
		"direct":   {keys: specs, signed: true},
		"ses":      {keys: specs, signed: true, omits: []string{"message-id", "date"}},
		"m365":     {keys: specs, signed: true},
		"sendgrid": {adds: "X-SMTPAPI"},
		"mailgun":  {adds: "X-Mailgun-Track"},
		"postmark": {},
	} {
		r := newRig(t, func(s *service.Config) { s.Gate.Profile, s.Gate.DKIM = profile, c.keys }, nil)
		if _, _, err := r.send(mailText(), ann); err != nil {
			t.Fatalf("%s: %v", profile, err)
		}
		a := r.sink.Last(t)
		all, err := dkim.VerifyWithOptions(strings.NewReader(a.Text), &dkim.VerifyOptions{LookupTXT: lookup})
		if err != nil || (len(all) == 2) != c.signed {
			t.Errorf("%s: %d signatures, %v", profile, len(all), err)
		}
		for _, v := range all {
			names := strings.ToLower(strings.Join(v.HeaderKeys, " "))
			for _, o := range c.omits {
				if strings.Contains(names, o) {
					t.Errorf("%s signs %s", profile, o)
				}
			}
			if v.Err != nil || !strings.Contains(names, "list-unsubscribe-post") {
				t.Errorf("%s: %v %s", profile, v.Err, names)
			}
		}
		if c.adds != "" && len(a.Fields(c.adds)) != 1 {
			t.Errorf("%s: no %s", profile, c.adds)
		}
	}
}

// Limits: recipients a second and a message, wrong credentials, addresses that are none.
func TestLimits(t *testing.T) {
	r := newRig(t, func(c *service.Config) { c.Gate.Rate = 12 }, nil) // bursts of 120
	c := r.login()
	var e *smtp.SMTPError
	if err := c.Mail("shop@example.com", nil); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := c.Rcpt(fmt.Sprintf("p%d@example.com", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Rcpt("onemore@example.com", nil); !errors.As(err, &e) || e.Code != 452 {
		t.Errorf("the 101st recipient: %v", err)
	}
	c.Reset()
	c.Mail("shop@example.com", nil)
	fast := 0
	for i := range 60 {
		if err := c.Rcpt(fmt.Sprintf("q%d@example.com", i), nil); errors.As(err, &e) && e.Code == 450 {
			fast++
		}
	}
	if fast == 0 {
		t.Error("nothing bounds how fast a credential names recipients")
	}
	codes := map[int]int{}
	try := func(secret string) error {
		w, err := smtp.Dial(r.gate)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		return w.Auth(sasl.NewPlainClient("", "x", secret))
	}
	for range 30 {
		if err := try("wrong"); errors.As(err, &e) {
			codes[e.Code]++
		}
	}
	if codes[535] < 5 || codes[454] == 0 {
		t.Errorf("wrong credentials were answered %v", codes)
	}
	if err := try(r.secret); err != nil {
		t.Errorf("the right one, after others failed at the same address: %v", err)
	}
}

// SMTPUTF8 is offered only while the server behind takes it.
func TestHonestSMTPUTF8(t *testing.T) {
	for _, offered := range []bool{true, false} {
		r := newRig(t, func(c *service.Config) {
			if !offered {
				c.Gate.Upstream = "127.0.0.1:1"
			}
		}, nil)
		ok := false
		for range 100 { // the gate asks when it starts
			c := r.login()
			ok, _ = c.Extension("SMTPUTF8")
			c.Quit()
			if ok == offered {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if ok != offered {
			t.Errorf("offered %v, want %v", ok, offered)
		}
		var e *smtp.SMTPError
		c := r.login()
		c.Mail("shop@example.com", nil)
		if err := c.Rcpt("jörg@example.com", nil); !errors.As(err, &e) || e.Code != 553 && e.Code != 501 {
			t.Errorf("an address that is not ASCII without SMTPUTF8: %v", err)
		}
	}
}

// Large messages are not held in memory.
func TestSpoolLeavesNothing(t *testing.T) {
	data := ""
	r := newRig(t, func(c *service.Config) { data = c.Data }, nil)
	if _, _, err := r.send(mailText()+long(20<<20), ann); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(data + "/gate")
	if err != nil || len(files) != 1 || files[0].Name() != "accepted" {
		t.Errorf("left in the spool: %v %v", files, err)
	}
	if a := r.sink.Last(t); len(a.Text) < 20<<20 {
		t.Errorf("%d octets arrived", len(a.Text))
	}
}

// What happened is counted.
func TestMetrics(t *testing.T) {
	r := newRig(t, func(c *service.Config) { c.Admin = "127.0.0.1:0" }, nil)
	r.optOut(bob)
	if _, _, err := r.send(mailText(), ann, bob); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + r.svc.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	defer resp.Body.Close()
	b := new(strings.Builder)
	if err := resp.Write(b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`optout_gate_recipients_total{outcome="accepted"} 1`, `optout_gate_recipients_total{outcome="refused"} 1`, `optout_gate_messages_total{code="250"} 1`, "optout_gate_check_to_accepted_seconds_count 1"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(b.String(), "example.com") {
		t.Error("the metrics hold an address")
	}
}
