package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of a CSV file that is read. A line that passes one is reported, and reading goes on with the next.
const (
	maxCSVLine    = 64 << 10 // octets
	maxCSVRecords = 100      // lines of one record: a quoted field may hold line ends
)

// csvRecord is one record of a CSV file.
type csvRecord struct {
	fields []string
	// line is where it begins, from 1.
	line int
	// fault says why it cannot be read; then there are no fields.
	fault string
}

// csvReader reads a CSV file (RFC 4180) in constant memory. It loses no line: where a quote is opened and never closed, it
// reports that line and reads the next ones by themselves, instead of taking the rest of the file for one field, as
// encoding/csv does; each of these lines is somebody's no.
type csvReader struct {
	r       *bufio.Reader
	comma   byte
	line    int       // lines read
	octets  int64     // octets read
	pending []csvLine // read ahead and given back
}

// csvLine is one line of the file, without its end.
type csvLine struct {
	text   string
	number int
	fault  string
}

// newCSVReader reads the first line to find the separator: the one of comma, semicolon and tab that it holds most of.
func newCSVReader(r io.Reader) (*csvReader, error) {
	c := &csvReader{r: bufio.NewReaderSize(r, maxCSVLine)}
	head, err := c.r.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case strings.HasPrefix(string(head), "\xef\xbb\xbf"):
		c.r.Discard(3) // they have been read already
	case strings.HasPrefix(string(head), "\xff\xfe"), strings.HasPrefix(string(head), "\xfe\xff"):
		return nil, wrongUsage("FILE", "it is UTF-16", "save it as CSV in UTF-8")
	}
	first, err := c.nextLine()
	if errors.Is(err, io.EOF) {
		return nil, wrongUsage("FILE", "it is empty", "give a CSV file whose first line names its columns")
	}
	if err != nil {
		return nil, err
	}
	c.pending = append(c.pending, first)
	c.comma = ','
	for _, other := range []byte{';', '\t'} {
		if strings.Count(first.text, string(other)) > strings.Count(first.text, string(c.comma)) {
			c.comma = other
		}
	}
	return c, nil
}

// next returns the next record that is not blank, or io.EOF.
func (c *csvReader) next() (csvRecord, error) {
	for {
		l, err := c.nextLine()
		if err != nil {
			return csvRecord{}, err
		}
		if l.fault != "" {
			return csvRecord{line: l.number, fault: l.fault}, nil
		}
		if strings.TrimSpace(l.text) == "" {
			continue
		}
		return c.record(l)
	}
}

// record reads the record that begins with a line, and the lines that its quotes go on over.
func (c *csvReader) record(first csvLine) (csvRecord, error) {
	rec := csvRecord{line: first.number}
	var open bool
	text, more := first.text, []csvLine(nil)
	for {
		rec.fields, open, rec.fault = splitCSV(text, c.comma)
		if !open {
			break
		}
		rec.fault = "a quote is opened and never closed"
		if len(more) == maxCSVRecords || len(text) > maxCSVLine {
			break
		}
		l, err := c.nextLine()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return csvRecord{}, err
		}
		more = append(more, l)
		if l.fault != "" {
			break
		}
		text += "\n" + l.text
	}
	if rec.fault != "" {
		rec.fields = nil
		c.pending = append(more, c.pending...)
	}
	return rec, nil
}

// nextLine returns the next line, or io.EOF.
func (c *csvReader) nextLine() (csvLine, error) {
	if len(c.pending) > 0 {
		l := c.pending[0]
		c.pending = c.pending[1:]
		return l, nil
	}
	b, err := c.r.ReadSlice('\n')
	c.octets += int64(len(b))
	if len(b) == 0 && err != nil {
		return csvLine{}, err
	}
	c.line++
	l := csvLine{number: c.line, text: strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")}
	for errors.Is(err, bufio.ErrBufferFull) {
		l.text, l.fault = "", fmt.Sprintf("it is longer than %d octets", maxCSVLine)
		b, err = c.r.ReadSlice('\n')
		c.octets += int64(len(b))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return csvLine{}, err
	}
	return l, nil
}

// splitCSV splits a record into fields. open is true when a quoted field does not end in text.
func splitCSV(text string, comma byte) (fields []string, open bool, fault string) {
	for {
		if !strings.HasPrefix(text, `"`) {
			field, rest, more := strings.Cut(text, string(comma))
			fields = append(fields, field)
			if !more {
				return fields, false, ""
			}
			text = rest
			continue
		}
		var field strings.Builder
		text = text[1:]
		for {
			i := strings.IndexByte(text, '"')
			if i < 0 {
				return nil, true, ""
			}
			field.WriteString(text[:i])
			text = text[i+1:]
			if !strings.HasPrefix(text, `"`) {
				break
			}
			field.WriteByte('"')
			text = text[1:]
		}
		fields = append(fields, field.String())
		switch {
		case text == "":
			return fields, false, ""
		case text[0] != comma:
			return nil, false, "text stands after a closing quote"
		}
		text = text[1:]
	}
}
