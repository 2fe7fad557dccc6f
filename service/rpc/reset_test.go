package rpc_test

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	optoutv1 "optout/proto/optout/v1"
)

// A client that opens streams and resets them at once (rapid reset) never has more handlers at work than one connection may
// have streams, and others are served meanwhile.
func TestRapidResetIsBounded(t *testing.T) {
	a := newAPI(t)
	a.svc.CreateTopic(t, "news")
	before := runtime.NumGoroutine()
	conn, err := net.Dial("tcp", a.svc.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, conn) // the server's frames
	var headers bytes.Buffer
	enc := hpack.NewEncoder(&headers)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/grpc.health.v1.Health/Watch"}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	var peak atomic.Int64
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			default:
				if n := int64(runtime.NumGoroutine()); n > peak.Load() {
					peak.Store(n)
				}
				runtime.Gosched()
			}
		}
	}()
	sent := 0
	for id := uint32(1); id < 40000; id += 2 {
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers.Bytes(), EndHeaders: true, EndStream: false}) != nil ||
			framer.WriteData(id, true, []byte{0, 0, 0, 0, 0}) != nil || framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break // the server has ended the connection: bounded too
		}
		sent++
		if id%2001 == 0 {
			if _, err := optoutv1.NewSuppressionServiceClient(a.conn).CheckSend(a.ctx(), &optoutv1.CheckSendRequest{Topic: "news", Address: "a@example.com"}); err != nil {
				t.Errorf("others are not served: %v", err)
			}
		}
	}
	close(stop)
	<-watched
	// One goroutine a handler, one to watch over its context.
	if limit := int64(before) + 3*256; peak.Load() > limit {
		t.Errorf("%d streams were opened and reset; %d goroutines at once, want at most %d", sent, peak.Load(), limit)
	}
	if sent < 100 {
		t.Errorf("only %d streams: nothing was shown", sent)
	}
	t.Logf("%d streams, at most %d goroutines at once (%d before)", sent, peak.Load(), before)
}
