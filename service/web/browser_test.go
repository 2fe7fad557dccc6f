package web_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledgertest"
)

// browser starts a real Chromium.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	ledgertest.Require(t, "Chromium (Debian package chromium)", err == nil)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-quic", true), chromedp.WindowSize(360, 740))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() { cancel(); stop() })
	do(t, ctx) // the first call starts the browser
	ctx, expire := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(expire)
	return ctx
}

func do(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

func get[T any](t *testing.T, ctx context.Context, what chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, what)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// scripts switches scripts on or off.
func scripts(on bool) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
		return err
	})
}

// dark asks for the dark page.
func dark() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
		return err
	})
}

// shot keeps a picture of the page where OPTOUT_SCREENSHOTS names a folder.
func shot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	if dir := os.Getenv("OPTOUT_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(dir+"/"+name+".png", get(t, ctx, chromedp.FullScreenshot(100)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The button works with scripts off; the answer offers to undo; undone is undone.
func TestPageInChromium(t *testing.T) {
	s := newSite(t)
	name, policy := "Example Letters", "https://example.com/privacy"
	_, err := optoutv1.NewAdminServiceClient(s.c.Conn()).UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{DisplayName: &name, PrivacyPolicyUrl: &policy})
	if err != nil {
		t.Fatal(err)
	}
	addr, path := s.person()
	ctx := browser(t)
	url := "http://" + s.svc.HTTP + path
	html := chromedp.OuterHTML(chromedp.CSS("html"))
	do(t, ctx, scripts(false), chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("button")))
	title, page := get(t, ctx, chromedp.Title()), get(t, ctx, html)
	if !strings.Contains(title, "Unsubscribe") || !strings.Contains(page, name) || !strings.Contains(page, policy) || strings.Contains(page, addr) || strings.Count(page, "<button") != 1 {
		t.Errorf("the page: %s\n%s", title, page)
	}
	shot(t, ctx, "ask-light")
	do(t, ctx, dark())
	shot(t, ctx, "ask-dark")
	if s.out(addr) {
		t.Fatal("looking has unsubscribed")
	}
	do(t, ctx, chromedp.Click(chromedp.CSS("button")), chromedp.WaitVisible(chromedp.CSS(`[role="status"]`)))
	if page := get(t, ctx, html); !s.out(addr) || !strings.Contains(page, "You are unsubscribed") {
		t.Errorf("the button did not unsubscribe:\n%s", page)
	}
	shot(t, ctx, "done-dark")
	do(t, ctx, chromedp.Click(chromedp.CSS("button.quiet")), chromedp.WaitNotPresent(chromedp.CSS("button")))
	if page := get(t, ctx, html); s.out(addr) || !strings.Contains(page, "Taken back") {
		t.Errorf("undo did not undo:\n%s", page)
	}
	// The page fits a narrow phone.
	do(t, ctx, scripts(true), chromedp.Navigate(url))
	if !get(t, ctx, chromedp.Evaluate[bool](`document.documentElement.scrollWidth <= window.innerWidth`)) {
		t.Error("the page is wider than a phone")
	}
}

// A scanner that loads the page in a whole browser, scripts on, and waits, changes nothing (T4).
func TestCrawlerInChromiumChangesNothing(t *testing.T) {
	s := newSite(t)
	addr, path := s.person()
	before := s.head()
	ctx := browser(t)
	do(t, ctx, chromedp.Navigate("http://"+s.svc.HTTP+path), chromedp.WaitVisible(chromedp.CSS("button")), chromedp.Sleep(2*time.Second), chromedp.Reload(), chromedp.Sleep(time.Second))
	if s.out(addr) || s.head() != before {
		t.Error("a crawler has changed the ledger")
	}
}
