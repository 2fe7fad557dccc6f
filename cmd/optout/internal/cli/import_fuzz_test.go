package cli

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// FuzzCSVRoundTrip: whatever fields encoding/csv writes, we read back, and the record after them too.
func FuzzCSVRoundTrip(f *testing.F) {
	f.Add("ann@x.org", "said \"stop\", twice", "line\nbreak")
	f.Add(";", "\t", "")
	f.Add("\"", "\"\"", " \"x\" ")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if strings.Contains(a+b+c, "\r") || strings.Count(a+b+c, "\n") >= maxCSVRecords || len(a+b+c) > maxCSVLine/4 {
			t.Skip("line ends are the file's, not the field's; or beyond the limits")
		}
		var file bytes.Buffer
		w := csv.NewWriter(&file)
		w.WriteAll([][]string{{"email", "note", "more"}, {a, b, c}, {"next", "", ""}})
		all, _ := readAllCSV(t, file.String())
		if strings.TrimSpace(a+b+c) == "" {
			return
		}
		if len(all) != 3 || !slices.Equal(all[1].fields, []string{a, b, c}) || all[2].fields[0] != "next" {
			t.Fatalf("%q came back as %+v", file.String(), all)
		}
	})
}

// FuzzCSVLosesNoLine: in any file, every line that is not blank belongs to exactly one record or fault. A fault takes only its own
// line, and a record only the lines that its quotes go on over.
func FuzzCSVLosesNoLine(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "\"open\na,b\n", "a,\"b\" c\nd\n", "\"a\n\"b\nc\"\n", "\n\n", "x\r\n\"y\r\nz\"\r\n", "\xef\xbb\xbf\"x\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, read := readAllCSV(t, text)
		lines := strings.Split(strings.TrimPrefix(text, "\xef\xbb\xbf"), "\n")
		next := 1
		for _, rec := range all {
			for ; next < rec.line; next++ {
				if strings.TrimSpace(lines[next-1]) != "" {
					t.Fatalf("line %d is lost: %q", next, text)
				}
			}
			if rec.line != next {
				t.Fatalf("line %d is read twice: %q", rec.line, text)
			}
			next++
			for _, field := range rec.fields {
				next += strings.Count(field, "\n")
			}
		}
		for ; next <= read; next++ {
			if strings.TrimSpace(lines[next-1]) != "" {
				t.Fatalf("line %d is lost: %q", next, text)
			}
		}
	})
}

func readAllCSV(t *testing.T, text string) (all []csvRecord, lines int) {
	t.Helper()
	r, err := newCSVReader(strings.NewReader(text))
	if err != nil {
		return nil, 0
	}
	for {
		rec, err := r.next()
		if errors.Is(err, io.EOF) {
			return all, r.line
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rec)
	}
}

// FuzzImportRow reads any list: it never fails otherwise than by an error, and no error or fault holds an address.
func FuzzImportRow(f *testing.F) {
	for _, s := range []string{"address,date\nsecret@example.com,2024-05-01\n", "email,reason\nsecret@example.com,secret@example.com\n",
		"status,reason,email,created\n5.1.1,x,secret@example.com,1\n", "email,scope\nsecret@example.com,topic:secret@example.com\n", "secret@example.com\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rows, err := readList(t, text, nil)
		if err != nil && strings.Contains(err.Error(), "secret@example.com") {
			t.Fatalf("the error holds the address: %v", err)
		}
		for _, row := range rows {
			if fault, ok := strings.CutPrefix(row, "fault "); ok && strings.Contains(fault, "@") {
				t.Fatalf("the fault holds an address: %q", fault)
			}
		}
	})
}
