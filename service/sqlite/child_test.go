package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"optout/service/ledger"
)

// The environment variables that make this test binary a child: what to do, on which file, how often, how durable.
const (
	childTask        = "OPTOUT_SQLITE_CHILD"
	childPath        = "OPTOUT_SQLITE_CHILD_PATH"
	childCount       = "OPTOUT_SQLITE_CHILD_COUNT"
	childSynchronous = "OPTOUT_SQLITE_CHILD_SYNCHRONOUS"
	childLogPages    = "OPTOUT_SQLITE_CHILD_LOG_PAGES"
)

func TestMain(m *testing.M) {
	if task := os.Getenv(childTask); task != "" {
		runChild(task)
		return
	}
	os.Exit(m.Run())
}

// runChild opens the store and appends commits of one entry each, reporting every outcome in a line. It goes on after errors.
func runChild(task string) {
	runtime.LockOSThread() // system calls are counted by thread
	count, _ := strconv.Atoi(os.Getenv(childCount))
	pages, _ := strconv.ParseInt(os.Getenv(childLogPages), 10, 64)
	o := Options{MinFree: 1, synchronous: os.Getenv(childSynchronous), logPages: pages}
	o.unchecked = o.synchronous != ""
	s, err := Open(context.Background(), os.Getenv(childPath), o)
	if err != nil {
		fmt.Println("not opened:", err)
		return
	}
	if task == "open" {
		fmt.Print("opened")
		return
	}
	tip, err := s.Tip(context.Background())
	if err != nil {
		fmt.Println("no tip:", err)
		return
	}
	g := newGrower()
	g.size = tip.Head.Size
	for range count {
		switch err := g.append(s, 1); {
		case err == nil:
			fmt.Println("ack", g.size)
		case errors.Is(err, ledger.ErrStorageFull):
			fmt.Println("full", err)
		case strings.Contains(err.Error(), "opened anew"):
			fmt.Println("refused", err)
		default:
			fmt.Println("unknown", err)
		}
	}
}

// outcomes is what a child reported.
type outcomes struct {
	acked                  uint64 // the last one acknowledged
	acks, full             int
	unknown, refused       int
	acksAfterUnknown       int
	firstUnknown, lastFull string
	text                   string
}

// child runs this binary as a child, under strace with the given faults if there are any.
func child(t *testing.T, faults []string, path, task string, o Options, count int) outcomes {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{self}
	if faults != nil {
		args = append([]string{"strace", "-f", "-qq", "-o", "/dev/null"}, append(faults, self)...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childTask+"="+task, childPath+"="+path, childCount+"="+strconv.Itoa(count),
		childSynchronous+"="+o.synchronous, childLogPages+"="+strconv.FormatInt(o.logPages, 10))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("the child failed: %v\n%s", err, errs.String())
	}
	out := outcomes{text: string(text)}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		what, rest, _ := strings.Cut(lines.Text(), " ")
		switch what {
		case "ack":
			if out.acked, err = strconv.ParseUint(rest, 10, 64); err != nil {
				t.Fatal(err)
			}
			if out.acks++; out.unknown > 0 {
				out.acksAfterUnknown++
			}
		case "full":
			out.full++
			out.lastFull = rest
		case "unknown":
			if out.unknown++; out.unknown == 1 {
				out.firstUnknown = rest
			}
		case "refused":
			out.refused++
		}
	}
	return out
}
