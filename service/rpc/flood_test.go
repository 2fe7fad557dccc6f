package rpc_test

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
	"optout/service/rpc"
)

// meter counts how many handlers run at once. Each stays until the test releases it, as one does that waits for a disk.
type meter struct {
	now, most atomic.Int64
	release   chan struct{}
}

func (m *meter) run() {
	n := m.now.Add(1)
	defer m.now.Add(-1)
	for most := m.most.Load(); n > most && !m.most.CompareAndSwap(most, n); most = m.most.Load() {
	}
	<-m.release
}

// settled waits until the number of handlers has stopped growing, and returns the most there were.
func (m *meter) settled() int64 {
	for last := int64(-1); ; {
		if now := m.most.Load(); now == last {
			return now
		} else {
			last = now
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// floodStreams is how many streams a flood opens and resets.
const floodStreams = 2000

// A client that opens streams and resets each at once (rapid reset, CVE-2023-44487) runs no more handlers than the limit on
// streams: a stream that was reset still counts while its handler runs. Others are served meanwhile. The control, a server
// without the limit, must run more.
func TestRapidResetIsBounded(t *testing.T) {
	const limit = 256
	ours := &meter{release: make(chan struct{})}
	r := newRig(t, func(o *rpc.Options) {
		o.RotateLinkKey = func(context.Context, ledger.By) (ledger.Secret, ledger.Outcome, error) {
			ours.run()
			return ledger.Secret{}, ledger.Outcome{}, ledger.ErrStorageUnavailable
		}
	})
	end := flood(t, r.addr, r.secret)
	most := ours.settled()
	if most > limit || most < limit/2 {
		t.Errorf("%d handlers at once, want at most %d, and nearly as many for the flood to be one", most, limit)
	}
	other := &rig{t: t, api: r.dial(), secret: r.secret}
	other.want("news", "ann@example.com")
	close(ours.release)
	end()

	control := &meter{release: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	optoutv1.RegisterAdminServiceServer(s, &unbounded{meter: control})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	end = flood(t, l.Addr().String(), r.secret)
	if most := control.settled(); most <= limit {
		t.Errorf("the control ran only %d handlers at once: the flood proves nothing", most)
	}
	close(control.release)
	end()
	s.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

type unbounded struct {
	optoutv1.UnimplementedAdminServiceServer
	meter *meter
}

func (u *unbounded) RotateLinkKey(context.Context, *optoutv1.RotateLinkKeyRequest) (*optoutv1.RotateLinkKeyResponse, error) {
	u.meter.run()
	return &optoutv1.RotateLinkKeyResponse{}, nil
}

// flood opens streams that call RotateLinkKey, and resets each at once, in the background. The function that it returns ends it.
func flood(t *testing.T, addr, secret string) (end func()) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		rapidReset(conn, secret)
	}()
	drained := make(chan struct{})
	go func() { // what the server says is not read as HTTP/2, but read: else it would wait for us
		defer close(drained)
		buf := make([]byte, 32<<10)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	return func() { conn.Close(); <-sent; <-drained }
}

// rapidReset writes the flood. It stops when the server no longer takes it.
func rapidReset(conn net.Conn, secret string) {
	conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return
	}
	framer := http2.NewFramer(conn, nil)
	if framer.WriteSettings() != nil {
		return
	}
	body, _ := proto.Marshal(&optoutv1.RotateLinkKeyRequest{})
	message := append([]byte{0, 0, 0, 0, byte(len(body))}, body...)
	var fields bytes.Buffer
	encoder := hpack.NewEncoder(&fields)
	for i := range uint32(floodStreams) {
		id := 2*i + 1
		fields.Reset()
		for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", optoutv1.AdminService_RotateLinkKey_FullMethodName}, {":authority", "optout"},
			{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", "Bearer " + secret}} {
			encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: fields.Bytes(), EndHeaders: true}) != nil ||
			framer.WriteData(id, true, message) != nil {
			return
		}
		time.Sleep(10 * time.Microsecond) // so that the handler begins before its stream ends
		if framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			return
		}
	}
}
