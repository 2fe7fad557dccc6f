package client_test

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"optout/client"
	optoutv1 "optout/proto/optout/v1"
)

func TestBatchCheckSendSplitsByItself(t *testing.T) {
	s := newSetup(t)
	s.optOut(t, "p1000@example.com")
	for _, n := range []int{0, 1, 1000, 1001, 2500} {
		addresses := make([]string, n)
		for i := range addresses {
			addresses[i] = "p" + strconv.Itoa(i) + "@example.com"
		}
		if n > 1 {
			addresses[n-1] = "not an address"
		}
		decisions, err := s.client.BatchCheckSend(t.Context(), "news", addresses)
		if err != nil || len(decisions) != n {
			t.Fatalf("%d: %d decisions, %v", n, len(decisions), err)
		}
		for i, d := range decisions {
			want := i != 1000 && !(n > 1 && i == n-1)
			if d.Send() != want {
				t.Errorf("%d: address %d: %v", n, i, d)
			}
		}
		if n > 1 && decisions[n-1].Malformed == "" {
			t.Errorf("%d: the malformed one is not told", n)
		}
	}
	var zero client.Decision
	if zero.Send() {
		t.Error("the zero Decision permits")
	}
}

// One call takes 1 000 addresses, no more than four calls run at once, and every answer stands at its own address.
func TestBatchCheckSendCalls(t *testing.T) {
	for _, x := range []struct{ addresses, calls int }{{0, 0}, {1, 1}, {1000, 1}, {1001, 2}, {12000, 12}} {
		s := newScripted()
		var mu sync.Mutex
		running, most := 0, 0
		s.batch = func(r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
			running--
			mu.Unlock()
			resp := &optoutv1.BatchCheckSendResponse{}
			for i, a := range r.Addresses {
				n, _ := strconv.Atoi(a)
				resp.Verdicts = append(resp.Verdicts, byte(1+n%2))
				if n%2 == 1 {
					resp.Refused = append(resp.Refused, &optoutv1.RefusedAddress{Index: uint32(i), Denials: []*optoutv1.Denial{{Entry: uint64(n)}}})
				}
			}
			return resp, nil
		}
		list := make([]string, x.addresses)
		for i := range list {
			list[i] = strconv.Itoa(i)
		}
		decisions, err := s.client(t).BatchCheckSend(t.Context(), "news", list)
		if err != nil || len(decisions) != x.addresses || s.called("BatchCheckSend") != x.calls || most > 4 || x.calls >= 8 && most < 2 {
			t.Fatalf("%d addresses: %d decisions in %d calls, %d at once, %v; want %d calls, at most 4 at once", x.addresses, len(decisions), s.called("BatchCheckSend"), most, err, x.calls)
		}
		for i, d := range decisions {
			if d.Send() != (i%2 == 0) || !d.Send() && d.Denials[0].Entry != uint64(i) {
				t.Fatalf("address %d got the answer %v of another", i, d)
			}
		}
	}
}

// A list that does not end is read only a little ahead of what is answered; leaving the loop ends everything.
func TestCheckEachReadsAsItGoes(t *testing.T) {
	s := newScripted()
	c := s.client(t)
	read, answered := 0, 0
	endless := func(yield func(string) bool) {
		for yield(strconv.Itoa(read)) {
			read++
		}
	}
	for a, err := range c.CheckEach(t.Context(), "news", endless) {
		if err != nil || a.Address != strconv.Itoa(answered) || !a.Send() {
			t.Fatalf("answer %d is about %s: %v, %v", answered, a.Address, a, err)
		}
		if answered++; read-answered > 4000 {
			t.Fatalf("%d addresses were read when %d were answered", read, answered)
		}
		if answered == 25500 {
			break
		}
	}
}

// An answer that does not fit the question permits nothing.
func TestBatchAnswersThatDoNotFit(t *testing.T) {
	for name, resp := range map[string]*optoutv1.BatchCheckSendResponse{
		"too short":       {Verdicts: []byte{1}},
		"too long":        {Verdicts: []byte{1, 1, 1}},
		"unknown verdict": {Verdicts: []byte{1, 3}},
		"no verdict":      {Verdicts: []byte{1, 0}},
		"stray address":   {Verdicts: []byte{1, 1}, Refused: []*optoutv1.RefusedAddress{{Index: 2}}},
	} {
		s := newScripted()
		s.batch = func(*optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) { return resp, nil }
		decisions, err := s.client(t).BatchCheckSend(t.Context(), "news", []string{"a@example.com", "b@example.com"})
		if !errors.Is(err, client.ErrCannotAsk) || len(decisions) != 2 || decisions[0].Send() || decisions[1].Send() {
			t.Errorf("%s: %v, %v", name, decisions, err)
		}
	}
}

// When one call of many fails, nothing is permitted, not even what other calls answered.
func TestBatchFailsWhole(t *testing.T) {
	s := newScripted()
	permit := s.batch
	s.batch = func(r *optoutv1.BatchCheckSendRequest) (*optoutv1.BatchCheckSendResponse, error) {
		if r.Addresses[0] == "2000" {
			return nil, errors.New("gone")
		}
		return permit(r)
	}
	list := make([]string, 5000)
	for i := range list {
		list[i] = strconv.Itoa(i)
	}
	decisions, err := s.client(t).BatchCheckSend(t.Context(), "news", list)
	if err == nil || len(decisions) != len(list) {
		t.Fatalf("%d decisions, %v", len(decisions), err)
	}
	for i, d := range decisions {
		if d.Send() {
			t.Fatalf("address %d may be sent to in spite of %v", i, err)
		}
	}
}
