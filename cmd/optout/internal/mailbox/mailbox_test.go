package mailbox

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// all reads every message whole; an error ends the list.
func all(t *testing.T, text string, format Format) (found []string) {
	t.Helper()
	for m, err := range Read(strings.NewReader(text), "box", format, nil) {
		if err != nil {
			return append(found, err.Error())
		}
		b, err := io.ReadAll(m.Text)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, fmt.Sprintf("%s %q", m.Where, b))
	}
	return found
}

const begin = "From ann@example.com Sun Mar  1 10:00:00 2026\n"

// A message of an mbox is what was put into it, octet for octet: a signature over its body must hold.
func TestMbox(t *testing.T) {
	long := strings.Repeat("x", 3*bufferSize) + "\n"
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"one":                      {begin + "A: 1\n\nbody\n\n", []string{`box:1 "A: 1\n\nbody\n"`}},
		"without an end":           {begin + "A: 1\n\nbody", []string{`box:1 "A: 1\n\nbody"`}},
		"two":                      {begin + "A: 1\n\none\n\n" + begin + "B: 2\n\ntwo\n\n", []string{`box:1 "A: 1\n\none\n"`, `box:6 "B: 2\n\ntwo\n"`}},
		"blank lines at the end":   {begin + "A: 1\n\none\n\n\n\n" + begin + "B: 2\n", []string{`box:1 "A: 1\n\none\n\n\n"`, `box:8 "B: 2\n"`}},
		"no body":                  {begin + "A: 1\n\n" + begin + "B: 2\n\n", []string{`box:1 "A: 1\n"`, `box:4 "B: 2\n"`}},
		"CRLF":                     {strings.ReplaceAll(begin+"A: 1\n\none\n\n"+begin+"B: 2\n\n", "\n", "\r\n"), []string{`box:1 "A: 1\r\n\r\none\r\n"`, `box:6 "B: 2\r\n"`}},
		"quoted":                   {begin + "A: 1\n\n>From here\n>>From there\n> From\n>Fromage\n\n", []string{`box:1 "A: 1\n\nFrom here\n>From there\n> From\n>Fromage\n"`}},
		"not quoted, no time":      {begin + "A: 1\n\nDear all,\n\nFrom now on it is so.\n\n", []string{`box:1 "A: 1\n\nDear all,\n\nFrom now on it is so.\n"`}},
		"not after a blank line":   {begin + "A: 1\n\nas he says:\n" + begin + "\n", []string{`box:1 "A: 1\n\nas he says:\nFrom ann@example.com Sun Mar  1 10:00:00 2026\n"`}},
		"long lines":               {begin + "A: 1\n\n" + long + "\n" + begin + "B: " + long, []string{fmt.Sprintf("box:1 %q", "A: 1\n\n"+long), fmt.Sprintf("box:6 %q", "B: "+long)}},
		"something before":         {"\n\n" + begin + "A: 1\n", []string{`box:3 "A: 1\n"`}},
		"an empty message":         {begin + "\n" + begin + "A: 1\n", []string{`box:1 ""`, `box:3 "A: 1\n"`}},
		"a header without a value": {begin + "A:\n\n\nbody\n", []string{`box:1 "A:\n\n\nbody\n"`}},
	} {
		if got := all(t, c.text, Auto); !slices.Equal(got, c.want) {
			t.Errorf("%s: %.300q, want %.300q", name, got, c.want)
		}
	}
	for m, err := range Read(strings.NewReader(begin+"A: 1\n"), "box", Auto, nil) {
		if err != nil || !m.Since.Equal(time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)) {
			t.Errorf("since %v, %v", m.Since, err)
		}
	}
}

// Messages that are not read, or not to their end, are passed over.
func TestMboxPassedOver(t *testing.T) {
	box := strings.Repeat(begin+"A: 1\n\none\n\ntwo\n\n", 5)
	var where []string
	for m, err := range Read(strings.NewReader(box), "box", Mbox, nil) {
		if err != nil {
			t.Fatal(err)
		}
		where = append(where, m.Where)
		io.CopyN(io.Discard, m.Text, int64(len(where)))
	}
	if want := []string{"box:1", "box:8", "box:15", "box:22", "box:29"}; !slices.Equal(where, want) {
		t.Errorf("%v, want %v", where, want)
	}
}

func TestFormats(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "[]",
		" \n\r\n":             "[]",
		"Dear all,\nhello":    "[" + ErrNothing.Error() + "]",
		"Subject: x\n\nhello": `[box "Subject: x\n\nhello"]`,
		"\nX-Y-Z : x\n":       `[box "\nX-Y-Z : x\n"]`,
	} {
		if got := fmt.Sprint(all(t, text, Auto)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := all(t, "no mail\n", Mbox); len(got) != 1 || got[0] != ErrNothing.Error() {
		t.Errorf("no mbox: %q", got)
	}
	if got := all(t, begin+"A: 1\n", EML); len(got) != 1 || !strings.Contains(got[0], "From ann") {
		t.Errorf("one message: %q", got)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(begin + "A: 1\n"))
	z.Close()
	if got := all(t, packed.String(), Auto); !slices.Equal(got, []string{`box:1 "A: 1\n"`}) {
		t.Errorf("compressed: %q", got)
	}
	if got := all(t, packed.String()[:packed.Len()-9], Auto); len(got) == 0 || !strings.Contains(got[len(got)-1], "EOF") {
		t.Errorf("compressed and cut short: %q", got)
	}
}

func TestMaildir(t *testing.T) {
	dir := t.TempDir()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, "E: 5\n")
	z.Close()
	for name, text := range map[string]string{"cur/1:2,S": "A: 1\r\n\r\nx", "new/2": "B: 2\n", "new/.hidden": "C: 3\n", "tmp/3": "D: 4\n", "new/4,S=5,W=6": packed.String()} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	read := 0
	var got []string
	for m, err := range Path(dir, Auto, func(n int) { read += n }) {
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(m.Text)
		got = append(got, fmt.Sprintf("%s %q", m.Where, b))
	}
	slices.Sort(got)
	if want := []string{`1:2,S "A: 1\r\n\r\nx"`, `2 "B: 2\n"`, `4,S=5,W=6 "E: 5\n"`}; !slices.Equal(got, want) || read != 14+packed.Len() {
		t.Errorf("%q, %d octets", got, read)
	}
	for path, format := range map[string]Format{dir: Mbox, filepath.Join(dir, "new/2"): Maildir, filepath.Join(dir, "nothing"): Auto, filepath.Join(dir, "cur"): Auto} {
		n := 0
		for _, err := range Path(path, format, nil) {
			if n++; err == nil {
				t.Errorf("%s as %s is read", path, format)
			}
		}
		if n != 1 {
			t.Errorf("%s as %s: %d", path, format, n)
		}
	}
}

// A large mbox is read in as little memory as a small one.
func TestMemory(t *testing.T) {
	text := begin + "A: 1\n\n" + strings.Repeat("a line of some octets\n", 50_000) + "\n"
	var in []io.Reader
	for range 50 {
		in = append(in, strings.NewReader(text))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := 0
	for m, err := range Read(io.MultiReader(in...), "box", Auto, nil) {
		if err != nil {
			t.Fatal(err)
		}
		k, err := io.Copy(io.Discard, m.Text)
		if n++; err != nil || k != int64(len(text)-len(begin)-1) {
			t.Fatalf("%d octets, %v", k, err)
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; n != 50 || used > 3<<20 {
		t.Errorf("%d messages of %d octets took %d octets of memory", n, len(text), used)
	}
}

// Whatever the octets, messages come to an end, and hold nothing that was not there.
func FuzzMbox(f *testing.F) {
	for _, s := range []string{begin + "A: 1\n\none\n\n" + begin + "B: 2\r\n\r\ntwo\r\n\r\n", "From x\n\n>From y\n", begin, "A: 1\n\n", "\x1f\x8b", begin + ">>From \n\n\n" + begin + "\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, format := range []Format{Auto, Mbox} {
			octets := 0
			for m, err := range Read(bytes.NewReader(b), "box", format, nil) {
				if err != nil {
					break
				}
				n, err := io.Copy(io.Discard, io.LimitReader(m.Text, 1<<20))
				if octets += int(n); err != nil {
					break
				}
			}
			if octets > len(b) && !bytes.HasPrefix(b, []byte("\x1f\x8b")) {
				t.Fatalf("%d octets of %d", octets, len(b))
			}
		}
	})
}
