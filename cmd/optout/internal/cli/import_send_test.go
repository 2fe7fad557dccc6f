package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
)

// recorder takes imports, refuses addresses that begin with "bad", and knows those that begin with "old".
type recorder struct {
	sizes []int
	last  []bool
	dry   []bool
	rows  []string
	fails int // how many calls fail at first with UNAVAILABLE
	dies  int // which call fails for good; 0 for none
}

func (r *recorder) take(q *optoutv1.ImportSuppressionsRequest) (*optoutv1.ImportSuppressionsResponse, error) {
	if r.fails > 0 {
		r.fails--
		return nil, status.Error(codes.Unavailable, "not now")
	}
	if len(r.sizes)+1 == r.dies {
		return nil, status.Error(codes.PermissionDenied, "no more")
	}
	r.sizes, r.last, r.dry = append(r.sizes, len(q.Rows)), append(r.last, q.Last), append(r.dry, q.DryRun)
	a := &optoutv1.ImportSuppressionsResponse{}
	for i, row := range q.Rows {
		r.rows = append(r.rows, row.Address)
		switch {
		case strings.HasPrefix(row.Address, "bad"):
			a.Malformed = append(a.Malformed, &optoutv1.MalformedAddress{Index: uint32(i), Message: "address: it has no domain"})
		case strings.HasPrefix(row.Address, "old"):
			a.Unchanged++
		default:
			a.Added++
		}
	}
	return a, nil
}

func writeList(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImportInChunks(t *testing.T) {
	var text strings.Builder
	text.WriteString("address\n")
	for i := range 12000 {
		fmt.Fprintf(&text, "a%d@x.org\n", i)
	}
	for _, c := range []struct {
		rows int
		want string
	}{{12000, "[5000 5000 2000] [false false true]"}, {10000, "[5000 5000] [false true]"}, {1, "[1] [true]"}, {0, "[0] [true]"}} {
		lines := strings.SplitAfter(text.String(), "\n")[:c.rows+1]
		r := &recorder{fails: 1}
		code, stdout, stderr := runWith(t, (&fake{imp: r.take}).serve(t), "", "import", writeList(t, strings.Join(lines, "")))
		if got := fmt.Sprint(r.sizes, r.last); code != exitOK || got != c.want || len(r.rows) != c.rows || c.rows > 0 && r.rows[c.rows-1] != fmt.Sprintf("a%d@x.org", c.rows-1) {
			t.Errorf("%d rows: exit %d, chunks %s, want %s; %s%s", c.rows, code, got, c.want, stdout, stderr)
		}
	}
}

func TestImportTellsLines(t *testing.T) {
	r := &recorder{}
	env := (&fake{imp: r.take}).serve(t)
	list := writeList(t, "address,reason\nann@x.org,\nold@x.org,spam\n,\nbad-secret@,\nsecret@x.org,secret@x.org\ncy@x.org,\"open\n")
	code, stdout, stderr := runWith(t, env, "", "import", list, "--dry-run")
	if code != exitNo || strings.Contains(stdout+stderr, "secret") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	wantErr := "line 4: address: it is empty\nline 5: address: it has no domain\nline 6: reason: the value is not known"
	if !strings.HasPrefix(stderr, wantErr) || !strings.Contains(stderr, "line 7: a quote is opened and never closed\n") {
		t.Errorf("stderr %q", stderr)
	}
	wantOut := "1  would be recorded\n1  in force already, or repeated\n0  left out: no opt-outs, or no permanent bounces\n4  could not be read\n" +
		"reasons: 1 complaint, 1 opted-out-all\nnothing was changed: run it again without --dry-run\n"
	if stdout != wantOut {
		t.Errorf("stdout %q", stdout)
	}

	code, stdout, stderr = runWith(t, env, "", "import", list, "--json")
	var got importResult
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || stderr != "" || code != exitNo {
		t.Fatalf("exit %d, %v: %q, %q", code, err, stdout, stderr)
	}
	if got.Source != "list.csv" || got.DryRun || got.Added != 1 || got.Unchanged != 1 || got.Malformed != 4 || len(got.Lines) != 4 || got.Lines[1] != (malformedLine{5, "address: it has no domain"}) ||
		got.Reasons["COMPLAINT"] != 1 {
		t.Errorf("%+v", got)
	}
	if want := "[true false]"; fmt.Sprint(r.dry) != want {
		t.Errorf("dry runs %v, want %s", r.dry, want)
	}
}

func TestImportOfNothingReadableIsNotComplete(t *testing.T) {
	r := &recorder{}
	if code, _, _ := runWith(t, (&fake{imp: r.take}).serve(t), "", "import", writeList(t, "address\n\"x\" y\n")); code != exitNo || len(r.sizes) != 0 {
		t.Errorf("exit %d, calls %v", code, r.sizes)
	}
}

func TestImportThatFailsTellsWhatWasRecorded(t *testing.T) {
	var text strings.Builder
	text.WriteString("address\n")
	for i := range 6000 {
		fmt.Fprintf(&text, "a%d@x.org\n", i)
	}
	code, stdout, stderr := runWith(t, (&fake{imp: (&recorder{dies: 2}).take}).serve(t), text.String(), "import", "-", "--source", "old system")
	if code != exitError || stdout != "" || stderr != "optout: no more; 5000 opt-outs were recorded before: import the file again, it records nothing twice\n" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}
