package mailgate_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	optoutv1 "optout/proto/optout/v1"
	"optout/service"
	"optout/service/receipt"
)

// 10 000 messages go through 32 connections while their recipients press one-click links. Each message that left was checked before
// the opt-out of its recipient, as the positions in its receipt and on the ledger prove; all others arrived, once each.
func TestNoMessageAfterItsOptOut(t *testing.T) {
	messages := 10000
	if testing.Short() {
		messages = 2000
	}
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("OPTOUT_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("OPTOUT_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t, func(c *service.Config) { c.Gate.Rate = 1 << 20 }, nil)
	const connections = 32
	to := func(i int) string { return fmt.Sprintf("person%d@example.com", i) }

	// Half of the people press, in random order, while the messages go out; a tenth have pressed before.
	order := random.Perm(messages)
	before, during := order[:messages/10], order[messages/10:messages*6/10]
	addresses := make([]string, messages)
	for i := range addresses {
		addresses[i] = to(i)
	}
	links, err := r.c.BatchIssueLinks(t.Context(), "news", addresses, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	defer transport.CloseIdleConnections()
	browser := &http.Client{Transport: transport}
	press := func(i int) {
		path := strings.TrimPrefix(links[i].GetLink().GetUrl(), "https://mail.example.com")
		resp, err := browser.Post("http://"+r.svc.HTTP+path, "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("press: %v %v", resp, err)
			return
		}
		resp.Body.Close()
	}
	for _, i := range before {
		press(i)
	}
	var mu sync.Mutex
	told := map[int]int{} // the code that each message was answered
	pressed := make([]time.Time, messages)
	var all sync.WaitGroup
	jobs := make(chan int)
	for range connections {
		all.Go(func() {
			c := r.login()
			for i := range jobs {
				refused, _, err := sendOn(c, strings.Replace(mailText(), "<1@", fmt.Sprintf("<%d@", i), 1), to(i))
				code := 250
				var e *smtp.SMTPError
				if refused[to(i)] != nil {
					code = refused[to(i)].Code
				} else if errors.As(err, &e) {
					code = e.Code
				} else if err != nil {
					t.Errorf("message %d: %v", i, err)
				}
				mu.Lock()
				told[i] = code
				mu.Unlock()
			}
		})
	}
	for range 4 {
		all.Go(func() {
			for {
				mu.Lock()
				if len(during) == 0 {
					mu.Unlock()
					return
				}
				i := during[0]
				during = during[1:]
				mu.Unlock()
				press(i)
				pressed[i] = time.Now()
			}
		})
	}
	for i := range messages {
		jobs <- i
	}
	close(jobs)
	all.Wait()

	// The position of a person's opt-out; 0 when there is none.
	optedOut := func(addr string) uint64 {
		story, err := optoutv1.NewSuppressionServiceClient(r.c.Conn()).ExplainAddress(t.Context(), &optoutv1.ExplainAddressRequest{Address: addr})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range story.Entries {
			if e.Kind == optoutv1.EntryKind_ENTRY_KIND_OPTED_OUT {
				return e.Position
			}
		}
		return 0
	}
	arrived := map[string]int{}
	late := 0
	for _, a := range r.sink.Taken() {
		arrived[a.To[0]]++
		claims, _, err := receipt.Parse(strings.Join(a.Fields(receipt.Field), ""))
		if err != nil {
			t.Fatalf("a message without a receipt: %s", a.Header())
		}
		if no := optedOut(a.To[0]); no != 0 {
			late++
			if claims.Position >= no {
				t.Errorf("a message whose check saw position %d left, though its recipient opted out at %d", claims.Position, no)
			}
		}
	}
	withheld := 0
	for i := range messages {
		want := 0
		if told[i] == 250 {
			want = 1
		} else if told[i] == 550 {
			withheld++
		} else {
			t.Errorf("message %d was answered %d", i, told[i])
		}
		if n := arrived[to(i)]; n != want {
			t.Errorf("message %d was answered %d and arrived %d times", i, told[i], n)
		}
		if told[i] == 550 && pressed[i].IsZero() && !slices.Contains(before, i) {
			t.Errorf("message %d was refused, and its recipient never opted out", i)
		}
	}
	if withheld < messages/10 || late == 0 {
		t.Errorf("%d refused, %d opted out after they had their message: there was no race", withheld, late)
	}
	t.Logf("%d messages: %d arrived, %d refused or withheld, %d opted out after theirs", messages, len(arrived), withheld, late)
}
