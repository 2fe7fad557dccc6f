package report

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// Servers that write no delivery status notification: qmail and its kin, Exim of old, and others. They are recognised by who
// writes, by what the text begins with, and by an address with a reply code near it.
var (
	robot    = regexp.MustCompile(`(?i)(^|[<" ])(mailer-daemon|postmaster|mail delivery|mailerdaemon|mdaemon|mail-daemon)`)
	subjects = regexp.MustCompile(`(?i)undeliver|delivery (status|failure|failed|has failed|problem|report|notification)|failure notice|returned mail|mail (delivery )?(failed|failure|error)|could ?n.t be delivered|could not be delivered|not (be )?delivered|failure delivery|mail error|non.?delivery|delivery error|user unknown|unknown user|address (problem|error|unknown)|unzustellbar|non remis|no se (ha podido|pudo) entregar|nicht zugestellt|mail system error`)
	openings = regexp.MustCompile(`(?i)this is the (qmail-send|mail delivery agent|mail system|mail delivery system) |message (that you sent )?could not be delivered|unable to deliver your message|i'm afraid i wasn't able to deliver|` +
		`this message was created automatically by mail delivery software|the following (address|recipient|addresses|recipients)[a-z() ]* (failed|had (permanent|delivery)|could not|was not|were not)|` +
		`your (e-?mail |mail )?(message )?(to|did not reach|could not|was not|wasn't|cannot|has not|has been (rejected|returned))|unable to deliver|(message|mail|e-?mail) (could not|cannot|was not|has not) be(en)? deliver|(could|can) ?not be delivered|had permanent fatal errors|invalid final delivery|failed to deliver|not deliver(ed|able)|returned to sender|undeliverable|delivery to the following recipient|sorry we were unable to deliver|the original message was received at`)
	anyAddress = regexp.MustCompile(`([^<>\s:;,"()\[\]=]+@[^<>\s:;,"()\[\]=]+\.[^<>\s:;,"()\[\]=.]+)`)
	failing    = regexp.MustCompile(`(?i)fail(ed|ure)|undeliver|could(n't| not) (be )?deliver|not delivered|unable to (deliver|send)|cannot (be )?deliver|rejected|bounced|non.?deliver|unknown (user|recipient)|not (be )?(reached|found)|unknown address|error`)
	original   = regexp.MustCompile(`(?i)^\W*(this is a copy of|below this line is a copy|original message|included is a copy|the header of the original|---- ?message header|a copy of the message|start of returned message|----- original|--- the following|return-path:|received:|message header follows)`)
)

// guess reads what is not in the standard's format.
func (r *Report) guess(root *part, w *walker) {
	auto := strings.ToLower(word(root.header.Get("Auto-Submitted")))
	automatic := auto != "" && auto != "no" || root.header.Get("X-Autoreply") != "" || root.header.Get("X-Autorespond") != "" ||
		strings.EqualFold(strings.TrimSpace(root.header.Get("Precedence")), "auto_reply")
	from := root.header.Get("From")
	failed := root.header.Get("X-Failed-Recipients")
	nullPath := strings.TrimSpace(root.header.Get("Return-Path")) == "<>"
	others := map[string]bool{}
	for _, name := range []string{"From", "To", "Delivered-To", "X-Original-To", "Reply-To", "Sender", "Errors-To"} {
		for _, m := range anyAddress.FindAllStringSubmatch(root.header.Get(name), 10) {
			others[strings.ToLower(m[1])] = true
		}
	}
	likely := 0
	for _, yes := range []bool{robot.MatchString(from), subjects.MatchString(root.header.Get("Subject")), openings.Match(head(w.text)), failed != "", nullPath} {
		if yes {
			likely++
		}
	}
	if automatic {
		r.Kind = Automatic
	}
	if likely == 0 {
		return
	}
	found := recipientsIn(w.text, others)
	if likely == 1 {
		found = slices.DeleteFunc(found, func(x Recipient) bool { return !basic.MatchString(x.Diagnostic) && x.Status == "" })
	}
	if failed != "" {
		found = mark(found, failed)
	}
	if len(found) == 0 {
		return
	}
	r.Kind, r.Recipients = Bounce, found
	if w.returned == nil {
		w.returned = originalIn(w.text)
	}
}

// head is the beginning of a text, where a server says what it is about, on one line.
func head(b []byte) []byte {
	b = b[:min(len(b), 2000)]
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r"), nil), []byte("\n"), []byte(" "))
}

// recipientsIn finds the addresses that a text says mail could not be delivered to: those with words of a failure on their line,
// on the line before, or on the few that follow. Those in others were who wrote and who is written to.
func recipientsIn(text []byte, others map[string]bool) (all []Recipient) {
	lines := strings.Split(strings.ReplaceAll(string(text[:min(len(text), 64<<10)]), "\r", ""), "\n")
	for i := range lines {
		if original.MatchString(lines[i]) {
			lines = lines[:i]
			break
		}
	}
	at := map[string]int{}
	looked := 0
	for i, l := range lines {
		for _, m := range anyAddress.FindAllStringSubmatch(l[:min(len(l), maxLook)], 10) {
			if looked++; looked > maxLooked {
				return all
			}
			addr := bareAddress(m[1])
			if addr == "" || others[strings.ToLower(addr)] || robot.MatchString(addr) || len(all) == 100 {
				continue
			}
			words := oneLine(about(lines, i, addr))
			if !telling(words) {
				continue
			}
			x := Recipient{Final: addr, Action: "failed", Diagnostic: words}
			if s := enhancedIn.FindStringSubmatch(words); s != nil && statusForm.MatchString(s[1]) {
				x.Status = s[1]
			}
			x.Class = classify(x.Action, x.Status, words)
			if n, known := at[strings.ToLower(addr)]; known {
				if better(x.Class, all[n].Class) {
					all[n] = x
				}
				continue
			}
			at[strings.ToLower(addr)] = len(all)
			all = append(all, x)
		}
	}
	return all
}

// maxLook is how many octets about an address are looked at, and maxLooked how many addresses of one text.
const (
	maxLook   = 1000
	maxLooked = 300
)

// better tells whether a class says more of the address.
func better(a, b Class) bool { return a == Hard && b != Hard }

// telling reports whether words are about a failure to deliver.
func telling(words string) bool {
	return basic.MatchString(words) || enhancedIn.MatchString(words) || unknownUser.MatchString(words) || full.MatchString(words) || failing.MatchString(words)
}

// about are the words about an address: its own line and those that follow it up to the next address or empty line; if they
// tell nothing, the paragraph before.
func about(lines []string, i int, addr string) string {
	words := strings.ReplaceAll(lines[i][:min(len(lines[i]), maxLook)], addr, "")
	blank := strings.Trim(words, " <>:;,\t") == ""
	for j := i + 1; j < len(lines) && j < i+7 && len(words) < maxLook; j++ {
		l := strings.TrimSpace(lines[j][:min(len(lines[j]), maxLook)])
		if l == "" && !blank || anyAddress.MatchString(strings.ReplaceAll(l, addr, "")) {
			break
		}
		if l != "" {
			words, blank = words+" "+strings.ReplaceAll(l, addr, ""), false
		}
	}
	if telling(words) {
		return words
	}
	for j, n := i-1, 0; j >= 0 && n < 4 && len(words) < 2*maxLook; j-- {
		if l := strings.TrimSpace(lines[j][:min(len(lines[j]), maxLook)]); l != "" {
			words, n = l+" "+words, n+1
		}
	}
	return words
}

// mark keeps to the addresses that X-Failed-Recipients names, and adds those that the text does not explain.
func mark(found []Recipient, failed string) (all []Recipient) {
	for _, a := range strings.Split(failed, ",") {
		addr := bareAddress(a)
		if addr == "" || len(all) == maxRecipients {
			continue
		}
		x := Recipient{Final: addr, Action: "failed", Class: Soft}
		for _, f := range found {
			if strings.EqualFold(f.Final, addr) {
				x = f
			}
		}
		all = append(all, x)
	}
	return all
}

// originalIn finds the original message that a text repeats at its end.
func originalIn(text []byte) []byte {
	for rest := text; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return nil
		}
		l := rest[:i]
		rest = rest[i+1:]
		if original.Match(l) {
			return bytes.TrimLeft(rest, "\r\n \t-")
		}
	}
	return nil
}
