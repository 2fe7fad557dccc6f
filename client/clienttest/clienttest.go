// Package clienttest gives tests a real optout service in their own process, on the embedded store in a folder that the test
// removes: no fake that answers otherwise than the real one.
//
//	svc := clienttest.Start(t)
//	svc.CreateTopic(t, "newsletter")
//	mailer := client.NewMailer(svc.Client(t), goMailClient)
package clienttest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
	"optout/service"
)

// Service is a running service.
type Service struct {
	// GRPC and HTTP are the addresses that it listens on, host:port.
	GRPC, HTTP string
	// SMTP is the address of the server for mail in, when an option has turned it on.
	SMTP string
	// Gate is the address of the SMTP gate, and Submissions its address with TLS from the first octet, when options have turned them on.
	Gate, Submissions string
	// Admin is the address of /metrics, when an option has turned it on.
	Admin string
	// Key is an admin API key.
	Key string

	svc  *service.Service
	stop func() error
}

// Option changes the service's configuration.
type Option func(*service.Config)

// Start starts a service, which ends with the test. Its links are https links of "mail.example.com", so that messages get their
// one-click header; press them with PressPath on HTTP.
func Start(t testing.TB, options ...Option) *Service {
	t.Helper()
	cfg := service.Config{Data: filepath.Join(t.TempDir(), "optout-data"), GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0",
		PublicURL: "https://mail.example.com", MailDomain: "unsub.example.com"}
	for _, o := range options {
		o(&cfg)
	}
	svc, err := service.New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(cfg.Data, "admin.key"))
	if err != nil {
		t.Fatal(errors.Join(err, svc.Close()))
	}
	s := &Service{GRPC: svc.Addresses().GRPC, HTTP: svc.Addresses().HTTP, SMTP: svc.Addresses().SMTP, Gate: svc.Addresses().Gate, Submissions: svc.Addresses().Submissions, Admin: svc.Addresses().Admin, Key: strings.TrimSpace(string(key)), svc: svc}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	s.stop = func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("the service ended: %v", err)
		}
	})
	return s
}

// Stop ends the service, as an outage does.
func (s *Service) Stop() error { return s.stop() }

// Client returns a client with the admin key, which ends with the test.
func (s *Service) Client(t testing.TB, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(s.GRPC, append([]client.Option{client.WithKey(s.Key)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// CreateTopic creates a commercial topic and gives the default sender a postal address, so that mail of it may go out.
func (s *Service) CreateTopic(t testing.TB, name string) {
	t.Helper()
	admin := optoutv1.NewAdminServiceClient(s.Client(t).Conn())
	postal := "1 Example Street, Springfield"
	_, err := admin.UpdateSender(t.Context(), &optoutv1.UpdateSenderRequest{PostalAddress: &postal})
	if err == nil {
		_, err = admin.CreateTopic(t.Context(), &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: name}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// PressPath is the path of a link, to be posted to on HTTP as a mailbox provider does.
func PressPath(link string) string {
	if i := strings.Index(link, "/u/"); i >= 0 {
		return link[i:]
	}
	return link
}
