package service_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledgertest"
)

// Law 4: after a failed fsync nothing more is acknowledged and the process ends; the restart recovers, and whatever was
// acknowledged is in force.
func TestFailedFsyncEndsTheProcess(t *testing.T) {
	ledgertest.Require(t, "faults at system calls need strace", haveAll("strace"))
	data := filepath.Join(t.TempDir(), "data")
	random, seed := newSeed(t)
	newInstallation(t, data).kill()
	people := recipients{seed: seed}
	var all []string
	for range 5 {
		p, err := serveUnder(t, []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
			"-e", fmt.Sprintf("inject=fsync,fdatasync:error=EIO:when=%d+", 20+random.IntN(60))}, data)
		if err != nil {
			continue // the fault struck during the start, which must then fail; it did
		}
		addresses, tokens := people.take(t, p, 3000)
		acked := p.load(addresses, tokens, 8, make(chan struct{}))
		ended := make(chan error, 1)
		go func() { ended <- p.cmd.Wait() }()
		select {
		case err := <-ended:
			if err == nil {
				t.Error("the process ended with exit code 0 after a failed fsync")
			}
		case <-time.After(20 * time.Second):
			p.cmd.Process.Kill()
			t.Fatal("the process went on after a failed fsync")
		}
		p.conn.Close()
		if len(acked) == len(addresses) {
			t.Fatal("no fsync failed: nothing was shown")
		}
		all = append(all, acked...)
	}
	p, err := serve(t, data)
	if err != nil {
		t.Fatal(err)
	}
	if lost := p.inForce(t, all); len(lost) > 0 {
		t.Errorf("%d of %d acknowledged opt-outs were lost", len(lost), len(all))
	}
	if len(all) == 0 {
		t.Error("nothing was acknowledged before the faults: nothing was shown")
	}
	p.kill()
	verified(t, data)
}

// A full disk refuses writes with "try again" while checks go on, and writing resumes by itself.
func TestFullDisk(t *testing.T) {
	ledgertest.Require(t, "a small file system needs root", os.Getuid() == 0)
	dir := t.TempDir()
	must(t, "mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", dir)
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	p := newInstallation(t, filepath.Join(dir, "data"))
	defer p.kill()
	people := recipients{seed: 1}
	addresses, tokens := people.take(t, p, 3)
	if !p.press(tokens[0]) {
		t.Fatal("the first press failed")
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(filler, io.LimitReader(zeroes{}, 96<<20)); err == nil {
		t.Fatal("the disk is not full")
	}
	filler.Close()
	waitFor(t, func() bool { return !p.press(tokens[1]) })
	resp, err := p.web.Post("http://"+p.addr.HTTP+"/u/"+tokens[1], "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("full disk: status %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	_, err = optoutv1.NewSubscriptionServiceClient(p.conn).Unsubscribe(p.ctx(), &optoutv1.UnsubscribeRequest{Address: addresses[2]})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("full disk: %v", err)
	}
	if lost := p.inForce(t, addresses[:1]); len(lost) > 0 { // checks go on
		t.Error("the acknowledged opt-out is not in force")
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return p.press(tokens[1]) && p.press(tokens[2]) })
	if lost := p.inForce(t, addresses); len(lost) > 0 {
		t.Errorf("%d opt-outs are not in force", len(lost))
	}
}

// Messages that are kept must not take the disk from the ledger: strangers send them, as many and as large as they like.
func TestKeptMailLeavesTheLedgerItsDisk(t *testing.T) {
	ledgertest.Require(t, "a small file system needs root", os.Getuid() == 0)
	dir := t.TempDir()
	must(t, "mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", dir)
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	data := filepath.Join(dir, "data")
	p := newInstallation(t, data, "--mail-domain", "unsub.example.com", "--keep-mail", "24h")
	defer p.kill()
	people := recipients{seed: 1}
	addresses, tokens := people.take(t, p, 1)
	feedback := optoutv1.NewFeedbackServiceClient(p.conn)
	body := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 34_000) // 2.6 MB
	for i := range 45 {
		_, err := feedback.SubmitReport(p.ctx(), &optoutv1.SubmitReportRequest{Recipients: []string{"stop@unsub.example.com"},
			Message: fmt.Appendf(nil, "From: x%d@example.net\r\nSubject: stop\r\n\r\n%s", i, body)})
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(data, &fs); err != nil {
		t.Fatal(err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < 16<<20 { // the store's watermark: it refuses writes within a second
		t.Errorf("only %d octets are left for the ledger", free)
	}
	if !p.press(tokens[0]) {
		t.Error("an opt-out is refused")
	}
	if lost := p.inForce(t, addresses); len(lost) > 0 {
		t.Error("the opt-out is not in force")
	}
	if kept, _ := filepath.Glob(filepath.Join(data, "mail", "*", "*.eml")); len(kept) == 0 {
		t.Error("nothing was kept: nothing was shown")
	}
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
