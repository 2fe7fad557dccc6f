package service_test

import (
	"bufio"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"optout/service/mailtest"
)

// hostile are messages that cost whoever reads them without bounds: each is named, and as long as it says.
func hostile() map[string]string {
	var nested strings.Builder
	nested.WriteString("Content-Type: multipart/mixed; boundary=b0\r\n")
	for i := range 20000 {
		fmt.Fprintf(&nested, "\r\n--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n", i, i+1)
	}
	field := "References: " + strings.Repeat("<"+strings.Repeat("a", 400)+"@x.example>\r\n ", 500) + "<x@x.example>\r\n"
	const text = "Content-Type: text/plain; charset="
	body := func(line string, octets int) string { return strings.Repeat(line+"\r\n", octets/(len(line)+2)) }
	return map[string]string{
		"50 MB attachment":      "Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body(strings.Repeat("UEsDBA", 12), 50_000_000),
		"nested 20 000 deep":    nested.String(),
		"a million parts":       "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\n", 1_000_000),
		"a report of many":      "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" + strings.Repeat("Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n", 300_000) + "--b--\r\n",
		"messages in messages":  strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 500_000),
		"a header of 255 KiB":   field + "\r\nstop\r\n",
		"a header of 20 MB":     strings.Repeat("X-Y: z\r\n", 2_500_000) + "\r\n",
		"base64 of nothing":     text + "utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body("====", 20_000_000),
		"soft line breaks":      text + "utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + body("=", 10_000_000),
		"a charset that is not": text + "utf-16\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + body("=D8=00=D8=00", 20_000_000),
		"HTML of open tags":     "Content-Type: text/html\r\n\r\n" + body(strings.Repeat("<div><table><td>", 50), 20_000_000),
		"encoded words":         "Subject: " + strings.Repeat("=?utf-8?q?=20?=\r\n ", 12_000) + "x\r\n\r\nstop\r\n",
		"quotes upon quotes":    text + "utf-8\r\n\r\n" + body(strings.Repeat(">", 900), 20_000_000),
		"addresses in a field":  "From: " + strings.Repeat("(", 200_000) + "\r\n\r\nstop\r\n",
	}
}

// Forty hostile messages at once, to every kind of address that there is: each is answered, memory stays bounded, and a person who
// writes meanwhile is out.
func TestHostileMail(t *testing.T) {
	addr := mailtest.FreeAddr(t)
	p := newInstallation(t, filepath.Join(t.TempDir(), "data"), "--smtp", addr, "--mail-domain", floodDomain)
	defer p.kill()
	people := recipients{seed: 1}
	addresses, tokens := people.take(t, p, 2)
	send := func(to, message string) (code int, err error) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(3 * time.Minute))
		r := textproto.NewReader(bufio.NewReader(conn))
		if _, _, err = r.ReadResponse(220); err != nil {
			return 0, err
		}
		for _, c := range []string{"250 EHLO x", "250 MAIL FROM:<>", "250 RCPT TO:<" + to + ">", "354 DATA"} {
			want, command, _ := strings.Cut(c, " ")
			fmt.Fprintf(conn, "%s\r\n", command)
			if code, _ := strconv.Atoi(want); err == nil {
				_, _, err = r.ReadResponse(code)
			}
		}
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(conn, "%s\r\n.\r\n", message)
		code, _, err = r.ReadResponse(0)
		return code, err
	}
	messages := hostile()
	var all sync.WaitGroup
	n := 0
	for range 3 {
		for name, m := range messages {
			if n++; n > 40 {
				break
			}
			to := []string{"u-" + tokens[0], "unsubscribe", "stop", "fbl"}[n%4] + "@" + floodDomain
			all.Go(func() {
				if code, err := send(to, m); err != nil || code < 200 {
					t.Errorf("%s to %.8s: %d, %v", name, to, code, err)
				}
			})
		}
	}
	if code, err := send("u-"+tokens[1]+"@"+floodDomain, "Subject: unsubscribe\r\n\r\n"); err != nil || code != 250 {
		t.Errorf("beside the hostile messages: %d, %v", code, err)
	}
	all.Wait()
	if lost := p.inForce(t, addresses[1:]); len(lost) > 0 {
		t.Error("the one who wrote beside them is not out")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(peak)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the most memory at any time: %d MiB", kib>>10)
	if kib > 300<<10 {
		t.Errorf("the service took %d MiB for forty messages, want at most 300", kib>>10)
	}
}
