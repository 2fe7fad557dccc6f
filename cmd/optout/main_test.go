package main

import (
	"bufio"
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The first SIGTERM lets calls in flight end and exits 0; a second one ends the process at once, whatever still hangs.
func TestSignals(t *testing.T) {
	program := filepath.Join(t.TempDir(), "optout")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	serve := func() (*exec.Cmd, string) {
		cmd := exec.Command(program, "serve", "--data", filepath.Join(t.TempDir(), "data"), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "off", "--smtp", "off")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		line, err := bufio.NewReader(out).ReadBytes('\n')
		var ready struct {
			Ready bool
			HTTP  string
		}
		if err != nil || json.Unmarshal(line, &ready) != nil || !ready.Ready {
			t.Fatalf("the ready line is %q, %v", line, err)
		}
		return cmd, ready.HTTP
	}

	cmd, _ := serve()
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v, want exit 0", err)
	}

	cmd, addr := serve()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("POST /u/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n12")) // a body that never ends
	time.Sleep(200 * time.Millisecond)
	cmd.Process.Signal(syscall.SIGTERM)
	time.Sleep(300 * time.Millisecond)
	second := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("it did not wait for the call in flight: %v", err)
	}
	if err := cmd.Wait(); err == nil || time.Since(second) > 2*time.Second {
		t.Errorf("after a second SIGTERM: %v after %v, want an end by signal at once", err, time.Since(second))
	}
}
