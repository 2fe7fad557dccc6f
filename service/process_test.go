package service_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	optoutv1 "optout/proto/optout/v1"
)

// program builds the program once for all tests of this package.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "optout-program")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "optout")
	out, err := exec.Command("go", "build", "-o", path, "optout/cmd/optout").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return path, err
})

func TestMain(m *testing.M) {
	if os.Getenv(sinkEnv) != "" {
		sinkProcess() // the server behind the gate, run in a process of its own
		return
	}
	if os.Getenv(eagerEnv) != "" {
		eagerProcess() // the control of the flood, run in a process of its own
		return
	}
	if os.Getenv(controlEnv) != "" {
		controlWriter() // the control of the power-cut test, run in a process of its own
		return
	}
	code := m.Run()
	if path, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is a running "optout serve".
type process struct {
	cmd  *exec.Cmd
	data string
	addr struct{ GRPC, HTTP, Admin, SMTP string }
	log  bytes.Buffer
	conn *grpc.ClientConn
	key  string
	web  *http.Client
}

// serve starts the program on a data folder and waits until it is ready.
func serve(t testing.TB, data string, extra ...string) (*process, error) {
	t.Helper()
	return serveUnder(t, nil, data, extra...)
}

// serveUnder does so under another program, such as strace.
func serveUnder(t testing.TB, wrapper []string, data string, extra ...string) (*process, error) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{data: data}
	args := append(wrapper, path, "serve", "--data", data, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--smtp", "127.0.0.1:0")
	args = append(args, extra...)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = append(os.Environ(), "OPTOUT_KEY=")
	p.cmd.Stderr = &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || json.Unmarshal([]byte(line), &p.addr) != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		return nil, fmt.Errorf("not ready (%q): %s", line, p.log.String())
	}
	key, err := os.ReadFile(filepath.Join(data, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	p.key = strings.TrimSpace(string(key))
	if p.conn, err = grpc.NewClient("passthrough:///"+p.addr.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	p.web = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 10 * time.Second}
	return p, nil
}

// ctx carries the admin key.
func (p *process) ctx() context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+p.key)
}

// kill ends the process at once, as kill -9 does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.conn.Close()
	p.web.CloseIdleConnections()
}

// press posts the token the way Gmail does, and tells whether it was acknowledged.
func (p *process) press(token string) bool {
	resp, err := p.web.Post("http://"+p.addr.HTTP+"/u/"+token, "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == 200 && err == nil
}

// recipients makes addresses and their links.
type recipients struct {
	seed uint64
	next int
}

func (r *recipients) take(t testing.TB, p *process, n int) (addresses, tokens []string) {
	t.Helper()
	for range n {
		r.next++
		addresses = append(addresses, fmt.Sprintf("p%d.%x@example.com", r.next, r.seed))
	}
	for part := range slices.Chunk(addresses, 2000) {
		resp, err := optoutv1.NewLinkServiceClient(p.conn).BatchIssueLinks(p.ctx(), &optoutv1.BatchIssueLinksRequest{Topic: "news", Addresses: part})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range resp.Results {
			url := l.GetLink().GetUrl()
			tokens = append(tokens, url[strings.LastIndexByte(url, '/')+1:])
		}
	}
	return addresses, tokens
}

// load opts people out from many callers at once, by one-click and by RPC in turn, until stop is closed or the service is gone.
// It returns the addresses whose opt-out was acknowledged to the caller.
func (p *process) load(addresses, tokens []string, workers int, stop <-chan struct{}) []string {
	var mu sync.Mutex
	var acked []string
	var all sync.WaitGroup
	subs := optoutv1.NewSubscriptionServiceClient(p.conn)
	for w := range workers {
		all.Go(func() {
			for i := w; i < len(addresses); i += workers {
				select {
				case <-stop:
					return
				default:
				}
				ok := false
				if (i/workers)%2 == 0 {
					ok = p.press(tokens[i])
				} else {
					ctx, cancel := context.WithTimeout(p.ctx(), 10*time.Second)
					_, err := subs.Unsubscribe(ctx, &optoutv1.UnsubscribeRequest{Address: addresses[i]})
					cancel()
					ok = err == nil
				}
				if !ok {
					return
				}
				mu.Lock()
				acked = append(acked, addresses[i])
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return acked
}

// inForce checks that every address is refused, and returns those that are not.
func (p *process) inForce(t testing.TB, addresses []string) (lost []string) {
	t.Helper()
	for len(addresses) > 0 {
		n := min(len(addresses), 5000)
		resp, err := optoutv1.NewSuppressionServiceClient(p.conn).BatchCheckSend(p.ctx(), &optoutv1.BatchCheckSendRequest{Topic: "news", Addresses: addresses[:n]})
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range resp.Verdicts {
			if optoutv1.Verdict(v) != optoutv1.Verdict_VERDICT_DO_NOT_SEND {
				lost = append(lost, addresses[i])
			}
		}
		addresses = addresses[n:]
	}
	return lost
}

// verified runs "optout verify" on a folder that no service has open.
func verified(t testing.TB, data string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "verify", "--data", data).CombinedOutput(); err != nil {
		t.Fatalf("verify: %v\n%s", err, out)
	}
}

// newInstallation starts a service on a new folder with the topic "news".
func newInstallation(t testing.TB, data string, extra ...string) *process {
	t.Helper()
	p, err := serve(t, data, extra...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = optoutv1.NewAdminServiceClient(p.conn).CreateTopic(p.ctx(), &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: "news"}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newSeed prints the seed, so that a failure can be repeated.
func newSeed(t testing.TB) (*rand.Rand, uint64) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0)), seed
}
