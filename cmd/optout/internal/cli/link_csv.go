package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	optoutv1 "optout/proto/optout/v1"
)

// csvColumns are the columns that links add to a campaign's list.
var csvColumns = []string{"unsubscribe_url", "list_unsubscribe", "list_unsubscribe_post", "unsubscribe_mailto"}

// verdictColumn comes first of them where the refused are kept.
const verdictColumn = "optout_verdict"

// linkChunk is how many addresses one call asks about.
const linkChunk = 1000

// campaign is a campaign's list on its way through: rows in, rows with links out.
type campaign struct {
	*call
	request     *optoutv1.BatchCheckSendRequest
	column      string
	keepRefused bool
	refusedTo   string

	rows    *csvReader
	at      int // the column of the address
	width   int // columns of the header line
	out     *bufio.Writer
	refused *bufio.Writer

	chunk []csvRecord
	done  struct{ read, linked, refused, malformed uint64 }
}

// links reads a list from in and writes it with links to standard output. Who may not be mailed is left out, or kept without a link.
// Exit code 1: some were refused or could not be read.
func (c *campaign) links(in io.Reader, size int64) (err error) {
	if c.rows, err = newCSVReader(in); err != nil {
		return err
	}
	head, err := c.rows.next()
	if err != nil {
		return err
	}
	if err := c.find(head); err != nil {
		return err
	}
	// A topic that no link stops is refused before anybody is checked: a check of it may be an entry.
	if _, err := c.link.IssueLink(c.ctx, &optoutv1.IssueLinkRequest{Sender: c.sender, Topic: c.request.Topic, Address: "nobody@example.com", Scope: c.request.LinkScope}); err != nil {
		return err
	}
	c.out = bufio.NewWriter(c.Stdout)
	if c.refusedTo != "" {
		f, err := os.OpenFile(c.refusedTo, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return wrongUsage("--refused", err.Error(), "name a file that may be written")
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		c.refused = bufio.NewWriter(f)
		c.write(c.refused, append(slices.Clone(head.fields), "optout_reason"))
	}
	if !c.json {
		added := csvColumns
		if c.keepRefused {
			added = append([]string{verdictColumn}, added...)
		}
		c.write(c.out, append(slices.Clone(head.fields), added...))
	}
	bar := c.startProgress("links", size, true)
	defer bar.finish()
	for {
		rec, err := c.rows.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = c.take(rec)
		}
		if err != nil {
			return c.broken(err)
		}
		bar.set(uint64(c.rows.octets), uint64(size))
	}
	if err := c.ask(); err != nil {
		return c.broken(err)
	}
	if err := c.flush(); err != nil {
		return err
	}
	bar.finish()
	d := &c.done
	fmt.Fprintf(c.Stderr, "%d rows: %d with links, %d may not be mailed, %d could not be read\n", d.read, d.linked, d.refused, d.malformed)
	if d.refused+d.malformed > 0 {
		return errNo
	}
	return nil
}

// broken tells how much of the output is good.
func (c *campaign) broken(err error) error {
	if e := c.flush(); e != nil {
		return e
	}
	f := *explainError(err)
	f.Message += fmt.Sprintf(" (the output ends after %d rows with links: do not use it as it is)", c.done.linked)
	return &f
}

func (c *campaign) flush() error {
	err := c.out.Flush()
	if c.refused != nil {
		err = errors.Join(err, c.refused.Flush())
	}
	return err
}

// find finds the column of the address: the one named, else one that is usually named so.
func (c *campaign) find(head csvRecord) error {
	if head.fault != "" {
		return wrongUsage("FILE", fmt.Sprintf("line %d: %s", head.line, head.fault), "the first line must name the columns")
	}
	c.width, c.at = len(head.fields), -1
	names := columnNames[0].names
	if c.column != "" {
		names = []string{plain(c.column)}
	}
	for _, name := range names {
		if c.at < 0 {
			c.at = slices.IndexFunc(head.fields, func(h string) bool { return plain(h) == name })
		}
	}
	for _, h := range head.fields {
		if slices.Contains(csvColumns, strings.TrimSpace(h)) || strings.TrimSpace(h) == verdictColumn {
			return wrongUsage("FILE", "it has a column "+h+" already", "give the list as it was before links were added")
		}
	}
	if c.at < 0 {
		return wrongUsage("--column", "no column is named as addresses usually are", "name it: --column NAME, one of the first line's")
	}
	return nil
}

// take adds a row to the chunk, and asks when it is full.
func (c *campaign) take(rec csvRecord) error {
	c.done.read++
	if rec.fault != "" || len(rec.fields) != c.width {
		if rec.fault == "" {
			rec.fault = fmt.Sprintf("it has %d columns, the first line %d", len(rec.fields), c.width)
		}
		c.done.malformed++
		fmt.Fprintf(c.Stderr, "line %d: %s\n", rec.line, rec.fault)
		return nil
	}
	if c.chunk = append(c.chunk, rec); len(c.chunk) < linkChunk {
		return nil
	}
	return c.ask()
}

// ask asks about the chunk and writes its rows.
func (c *campaign) ask() error {
	if len(c.chunk) == 0 {
		return nil
	}
	c.request.Addresses = c.request.Addresses[:0]
	for _, rec := range c.chunk {
		c.request.Addresses = append(c.request.Addresses, strings.TrimSpace(rec.fields[c.at]))
	}
	r, err := c.suppression.BatchCheckSend(c.ctx, c.request)
	if err != nil {
		return err
	}
	if len(r.Verdicts) != len(c.chunk) {
		return errors.New("the service answered for another number of addresses: bring program and service to the same version")
	}
	why, links := map[uint32]string{}, map[uint32]*optoutv1.UnsubscribeLink{}
	for _, x := range r.Refused {
		why[x.Index] = becauseAll(x.Denials)
	}
	for _, x := range r.Malformed {
		why[x.Index] = x.Message
		c.done.malformed++
		fmt.Fprintf(c.Stderr, "line %d: %s\n", c.chunk[x.Index].line, printable(x.Message))
	}
	for _, x := range r.Links {
		links[x.Index] = x.Link
	}
	for i, rec := range c.chunk {
		n := uint32(i)
		send := optoutv1.Verdict(r.Verdicts[i]) == optoutv1.Verdict_VERDICT_SEND
		if send && links[n] == nil {
			return errors.New("the service gave no link: mail of a required topic has none")
		}
		c.row(rec, send, links[n], why[n])
	}
	c.done.refused += uint64(len(r.Refused))
	c.chunk = c.chunk[:0]
	return nil
}

// row writes one row.
func (c *campaign) row(rec csvRecord, send bool, link *optoutv1.UnsubscribeLink, why string) {
	verdict := "DO_NOT_SEND"
	values := make([]string, len(csvColumns))
	if send {
		c.done.linked++
		verdict, values[0], values[3] = "SEND", link.Url, link.Mailto
		for _, h := range link.Headers {
			switch h.Name {
			case "List-Unsubscribe":
				values[1] = h.Value
			case "List-Unsubscribe-Post":
				values[2] = h.Value
			}
		}
	} else if c.refused != nil {
		c.write(c.refused, append(slices.Clone(rec.fields), why))
	}
	switch {
	case c.json:
		o := map[string]string{"address": rec.fields[c.at], "verdict": verdict}
		for i, name := range csvColumns {
			if values[i] != "" {
				o[name] = values[i]
			}
		}
		if why != "" {
			o["reason"] = why
		}
		fmt.Fprintf(c.out, "%s\n", appendJSON(nil, o))
	case c.keepRefused:
		c.write(c.out, append(append(slices.Clone(rec.fields), verdict), values...))
	case send:
		c.write(c.out, append(slices.Clone(rec.fields), values...))
	}
}

// write writes a record with the separator that the list came with (RFC 4180).
func (c *campaign) write(w *bufio.Writer, fields []string) {
	for i, f := range fields {
		if i > 0 {
			w.WriteByte(c.rows.comma)
		}
		if strings.ContainsAny(f, "\"\r\n"+string(c.rows.comma)) {
			f = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
		}
		w.WriteString(f)
	}
	w.WriteByte('\n') // what the writer below has refused, Flush tells
}
