package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	optoutv1 "optout/proto/optout/v1"
)

// importChunk is how many rows go into one call; the API takes 10 000.
const importChunk = 5000

// importFlags say what a list is.
type importFlags struct {
	dryRun        bool
	columns       map[string]string
	reason        *enumFlag
	topic, source string
}

func (p *program) importCommand() *cobra.Command {
	f := importFlags{reason: newEnumFlag(optoutv1.DenialReason(0))}
	cmd := &cobra.Command{
		Use:   "import FILE.csv [--dry-run]",
		Short: "Take over opt-outs kept elsewhere",
		Long: `Records the opt-outs, bounces and complaints of a list that was kept elsewhere: the promises made before optout. It never lifts
anything, so importing a list twice, or an old one, can only stop mail.

The first line of the file names the columns; found by their names are address (or email), date (occurred_at, unsubscribed_at,
created, …), reason, scope, topic and note. --columns names them where that fails, by header or number. Exports of SendGrid,
Mailchimp, Postmark, Amazon SES and listmonk are recognised, and the rows in them that are no opt-outs are left out. A file of
addresses alone, one a line, is taken as opt-outs from ALL. Comma, semicolon or tab; quotes, CRLF and byte order marks are fine.

Dates: 2026-05-01T10:00:00Z, 2026-05-01, 2026-05-01 10:00:00 (UTC) or unix seconds. Reasons: unsubscribe (ALL correspondence
unless a scope or topic narrows it), commercial, bounce, complaint or spam. --dry-run says what would change and changes nothing;
addresses that are repeated more than 5 000 lines apart are counted each time.

Lines that cannot be read are reported by number, without the address, and left out: mend them and import the file again. Exit
code 0: every line was read; 1: some were not; 2: error (what was recorded before it stays).`,
		Example: `  optout import old-opt-outs.csv --dry-run
  optout import unsubscribed_members.csv --source mailchimp-2026-05
  optout import people.csv --columns address=Mail,date="Left on" --reason opted-out-commercial`,
		Args: needArgs(1, 1, "FILE.csv", "give one CSV file, or - for standard input"),
	}
	cmd.ValidArgsFunction = fileArgument
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would change, and change nothing")
	cmd.Flags().StringToStringVar(&f.columns, "columns", nil, "`COLUMNS` by header or number, such as address=Mail,date=3")
	enumVar(cmd, f.reason, "reason", "`REASON` of rows that name none: opted-out-all, opted-out-commercial, complaint or undeliverable (default opted-out-all)")
	cmd.Flags().StringVar(&f.topic, "topic", "", "`TOPIC` of opt-outs and complaints that name none and no wider scope")
	cmd.Flags().StringVar(&f.source, "source", "", "where the list comes from, in `WORDS`, for the ledger (default: the file's name)")
	return p.online(cmd, func(c *call, args []string) error { return c.importFile(&f, args[0]) })
}

func (c *call) importFile(f *importFlags, path string) error {
	in, size := c.Stdin, int64(0)
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return wrongUsage("FILE", err.Error(), "name a file that can be read")
		}
		defer file.Close()
		if st, err := file.Stat(); err == nil {
			size = st.Size()
		}
		in = file
		f.source = or(f.source, filepath.Base(path))
	}
	if f.source == "" {
		return wrongUsage("--source", "it is missing", "say where the list on standard input comes from")
	}
	r, err := newCSVReader(in)
	if err != nil {
		return err
	}
	first, err := r.next()
	if err != nil {
		return err
	}
	if first.fault != "" {
		return wrongUsage("FILE", fmt.Sprintf("line %d cannot be read: %s", first.line, first.fault), "mend the line that names the columns")
	}
	l, err := newLayout(first.fields, f.columns)
	if err != nil {
		return err
	}
	l.topic = f.topic
	if f.reason.value != 0 {
		if !importable(optoutv1.DenialReason(f.reason.value)) {
			return wrongUsage("--reason", f.reason.String()+" cannot be imported", "use opted-out-all, opted-out-commercial, opted-out-topic, complaint or undeliverable")
		}
		l.fallback = optoutv1.DenialReason(f.reason.value)
	}
	i := &importer{call: c, flags: f, rows: r, layout: l, size: size,
		result: importResult{Format: l.format, Source: f.source, DryRun: f.dryRun, Reasons: map[string]uint64{}}}
	i.bar = c.startProgress("importing", size, true)
	defer i.bar.finish()
	if l.headless {
		i.take(first)
	}
	if err := i.run(); err != nil {
		failed := *explainError(err)
		if n := i.recorded(); n > 0 {
			failed.Message += fmt.Sprintf("; %d opt-outs were recorded before: import the file again, it records nothing twice", n)
		}
		return &failed
	}
	i.bar.finish()
	return i.tell()
}

// importable are the reasons that a list can give.
func importable(r optoutv1.DenialReason) bool {
	switch r {
	case optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL, optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_COMMERCIAL,
		optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_TOPIC, optoutv1.DenialReason_DENIAL_REASON_COMPLAINT,
		optoutv1.DenialReason_DENIAL_REASON_UNDELIVERABLE:
		return true
	}
	return false
}

// importResult is what an import did, as --json shows it.
type importResult struct {
	Source string `json:"source"`
	// Format is the export that was recognised.
	Format string `json:"format,omitempty"`
	DryRun bool   `json:"dry_run"`
	// Added were recorded (dry run: would be); Unchanged were in force already; LeftOut are rows that are no opt-outs.
	Added     uint64 `json:"added"`
	Unchanged uint64 `json:"unchanged"`
	LeftOut   uint64 `json:"left_out"`
	// Malformed counts the lines that could not be read; Lines tells of the first of them.
	Malformed uint64          `json:"malformed"`
	Lines     []malformedLine `json:"malformed_lines"`
	// Reasons counts the rows that were read, by reason.
	Reasons map[string]uint64 `json:"reasons"`
}

// malformedLine is a line that could not be read; the message holds no address.
type malformedLine struct {
	Line    int    `json:"line"`
	Message string `json:"message"`
}

// maxLinesTold bounds how many malformed lines are told one by one.
const maxLinesTold = 1000

// importer is one import on its way.
type importer struct {
	*call
	flags  *importFlags
	rows   *csvReader
	layout *layout
	bar    *progress
	size   int64 // octets of the file; 0 when not known
	result importResult

	chunk []*optoutv1.ImportedSuppression
	lines []int // of the rows in chunk
}

// run reads to the end. A full chunk is sent only when another row follows it, so that the last one can say that it is the last.
func (i *importer) run() error {
	for {
		rec, err := i.rows.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("FILE: %w", err)
		}
		if len(i.chunk) == importChunk {
			if err := i.send(false); err != nil {
				return err
			}
		}
		i.take(rec)
	}
	if len(i.chunk) == 0 && i.result.Malformed > 0 && i.result.Added+i.result.Unchanged == 0 {
		return nil // nothing could be read: that completes no import
	}
	return i.send(true)
}

// take adds a record to the chunk.
func (i *importer) take(rec csvRecord) {
	if rec.fault != "" {
		i.malformed(rec.line, rec.fault)
		return
	}
	row, skip, err := i.layout.importRow(rec.fields)
	switch {
	case skip:
		i.result.LeftOut++
	case err != nil:
		i.malformed(rec.line, err.Error())
	default:
		i.chunk, i.lines = append(i.chunk, row), append(i.lines, rec.line)
		i.result.Reasons[enumName(row.Reason.Descriptor(), row.Reason.Number())]++
	}
}

func (i *importer) malformed(line int, message string) {
	i.result.Malformed++
	if len(i.result.Lines) < maxLinesTold {
		i.result.Lines = append(i.result.Lines, malformedLine{line, message})
	}
}

// send imports the chunk. The call changes nothing twice, so the client repeats it where its outcome is unknown.
func (i *importer) send(last bool) error {
	if len(i.chunk) == 0 && (!last || i.flags.dryRun) {
		return nil
	}
	r, err := i.suppression.ImportSuppressions(i.ctx, &optoutv1.ImportSuppressionsRequest{Sender: i.sender, Rows: i.chunk,
		DryRun: i.flags.dryRun, Source: i.flags.source, Last: last})
	if err != nil {
		return err
	}
	i.result.Added += uint64(r.Added)
	i.result.Unchanged += uint64(r.Unchanged)
	for _, m := range r.Malformed {
		if int(m.Index) < len(i.lines) {
			i.malformed(i.lines[m.Index], m.Message)
			reason := i.chunk[m.Index].Reason
			i.result.Reasons[enumName(reason.Descriptor(), reason.Number())]--
		}
	}
	i.chunk, i.lines = i.chunk[:0], i.lines[:0]
	i.bar.set(uint64(i.rows.octets), uint64(i.size))
	return nil
}

// recorded is how many opt-outs are on the ledger because of this import.
func (i *importer) recorded() uint64 {
	if i.flags.dryRun {
		return 0
	}
	return i.result.Added
}

// tell prints the result; lines that could not be read are a no.
func (i *importer) tell() error {
	r := &i.result
	slices.SortFunc(r.Lines, func(a, b malformedLine) int { return a.Line - b.Line })
	if i.json {
		r.Lines = append([]malformedLine{}, r.Lines...) // [] where there are none
		fmt.Fprintf(i.Stdout, "%s\n", appendJSON(nil, r))
	} else {
		for _, l := range r.Lines {
			fmt.Fprintf(i.Stderr, "line %d: %s\n", l.Line, printable(l.Message))
		}
		if more := r.Malformed - uint64(len(r.Lines)); more > 0 {
			fmt.Fprintf(i.Stderr, "and %d more lines\n", more)
		}
		i.summary(i.Stdout)
	}
	if r.Malformed > 0 {
		return errNo
	}
	return nil
}

func (i *importer) summary(w io.Writer) {
	r := &i.result
	if r.Format != "" {
		fmt.Fprintf(w, "recognised: %s\n", r.Format)
	}
	recorded := "recorded"
	if r.DryRun {
		recorded = "would be recorded"
	}
	var by []string
	for _, reason := range slices.Sorted(maps.Keys(r.Reasons)) {
		if n := r.Reasons[reason]; n > 0 {
			by = append(by, fmt.Sprintf("%d %s", n, strings.ReplaceAll(strings.ToLower(reason), "_", "-")))
		}
	}
	table(w,
		[]string{fmt.Sprint(r.Added), recorded},
		[]string{fmt.Sprint(r.Unchanged), "in force already, or repeated"},
		[]string{fmt.Sprint(r.LeftOut), "left out: no opt-outs, or no permanent bounces"},
		[]string{fmt.Sprint(r.Malformed), "could not be read"})
	if len(by) > 0 {
		fmt.Fprintf(w, "reasons: %s\n", strings.Join(by, ", "))
	}
	if r.DryRun {
		fmt.Fprintln(w, "nothing was changed: run it again without --dry-run")
	}
}
