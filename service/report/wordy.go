package report

import (
	"bytes"
	"regexp"
	"strings"
)

// anyAddress is an address in a text.
var anyAddress = regexp.MustCompile(`([^<>\s:;,"'()\[\]=]+@[^<>\s:;,"'()\[\]=]+\.[^<>\s:;,"'()\[\]=.]+)`)

// failing are words about a failure, whatever its reason.
var failing = []string{"fail", "undeliver", "couldn't deliver", "could not deliver", "not be deliver", "not deliver", "not be sent", "unable to", "cannot be", "rejected", "bounced", "non-deliver", "not reach", "did not receive", "not be reached", "unknown", "error",
	"wasn't able", "postponed", "delayed", "not yet been delivered", "returned", "fatal", "pas pu", "no pudo", "wrong", "aborted", "problem", "not a valid", "intended recipient"}

// asked are words before an address that is there to be asked, not one that failed.
var asked = []string{"contact", "send mail to", "send email to", "send an email to", "send e-mail to", "send an e-mail to", "write to", "questions to", "report this to", "forward this"}

// wordy reads what is not in the standard's format.
func (r *Report) wordy(root *part, w *walker) {
	auto := strings.ToLower(word(root.header.Get("Auto-Submitted")))
	if auto != "" && auto != "no" || root.header.Get("X-Autoreply") != "" || root.header.Get("X-Autorespond") != "" ||
		strings.EqualFold(strings.TrimSpace(root.header.Get("Precedence")), "auto_reply") {
		r.Kind = Automatic
	}
	text := unquoted(w.readable())
	f := formOf(root, text)
	if f == nil {
		return
	}
	action := f.action
	if action == "" {
		action = "failed"
	}
	others := map[string]bool{}
	for _, name := range []string{"From", "To", "Delivered-To", "X-Original-To", "Reply-To", "Sender", "Errors-To"} {
		for _, m := range anyAddress.FindAllStringSubmatch(root.header.Get(name)[:min(len(root.header.Get(name)), maxLook)], 10) {
			others[strings.ToLower(m[1])] = true
		}
	}
	found := recipientsIn(after(text, f.behind), action, others)
	if failed := root.header.Get("X-Failed-Recipients"); failed != "" {
		found = mark(found, failed)
	}
	if len(found) == 0 {
		return
	}
	r.Kind, r.Recipients = Bounce, found
	if w.returned == nil {
		w.returned = originalIn(text)
	}
}

// unquoted is a text without the lines that a person quotes, "> " in front: a postmaster may ask about a report. (Transcripts of
// sessions begin their lines with ">>>".)
func unquoted(text []byte) []byte {
	if !bytes.HasPrefix(text, []byte("> ")) && !bytes.Contains(text, []byte("\n> ")) {
		return text
	}
	out := make([]byte, 0, len(text))
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("> ")) {
			out = append(out, line...)
		}
	}
	return out
}

// robotic reports whether a mail system sent the message, by its own word: in its From field or, without one, its return path.
func robotic(root *part) bool {
	who, path := folded([]byte(root.header.Get("From")), maxLook), folded([]byte(root.header.Get("Return-Path")), maxLook)
	if root.header.Get("X-Failed-Recipients") != "" || says(who, robots) || strings.Contains(who, "<>") {
		return true
	}
	return who == "" && (path == "<>" || says(path, robots))
}

// formOf is the form that a message has; nil when it is no report.
func formOf(root *part, text []byte) *form {
	who, subject, opening := folded([]byte(root.header.Get("From")), maxLook), folded([]byte(decodedWords(root.header.Get("Subject"))), maxLook), folded(text, maxOpening)
	robot := robotic(root)
	if !robot && (root.header.Get("In-Reply-To") != "" || root.header.Get("References") != "") {
		return nil // a person's answer, which may quote anything
	}
	for i := range forms {
		f := &forms[i]
		fits := func(text string, phrases []string) bool { return len(phrases) == 0 || says(text, phrases) }
		if (len(f.from) == 0 && robot || len(f.from) > 0 && says(who, f.from)) && fits(subject, f.subject) && fits(opening, f.opening) {
			return f
		}
	}
	return nil
}

// after is the text from the first line on that holds one of the phrases; all of it when none does.
func after(text []byte, phrases []string) []byte {
	for at := 0; len(phrases) > 0 && at < len(text); {
		line, _, _ := bytes.Cut(text[at:], []byte("\n"))
		if says(folded(line, maxLook), phrases) {
			return text[at:]
		}
		at += len(line) + 1
	}
	return text
}

// isEnding reports whether the original message begins behind a line.
func isEnding(line string) bool {
	l := strings.TrimLeft(folded([]byte(line), 200), "-=_*|# ")
	for _, e := range endings {
		if strings.HasPrefix(l, e) {
			return true
		}
	}
	return false
}

// recipientsIn finds the addresses that a text says mail could not be delivered to: those with words of a failure on their line,
// on the line before, or on the few that follow. Those in others were who wrote and who is written to.
func recipientsIn(text []byte, action string, others map[string]bool) (all []Recipient) {
	lines := strings.Split(strings.ReplaceAll(string(text[:min(len(text), 64<<10)]), "\r", ""), "\n")
	for i := range lines {
		if isEnding(lines[i]) {
			lines = lines[:i]
			break
		}
	}
	at, aliases := map[string]int{}, map[string]bool{}
	looked := 0
	for i, l := range lines {
		l = l[:min(len(l), maxLook)]
		for _, m := range anyAddress.FindAllStringSubmatchIndex(l, 10) {
			if looked++; looked > maxLooked {
				return all
			}
			addr := bareAddress(l[m[2]:m[3]])
			before := strings.ToLower(strings.TrimRight(l[:m[2]], "<(: "))
			if strings.HasSuffix(before, "expanded from") { // an alias of the one above
				aliases[strings.ToLower(addr)] = true
			}
			if strings.HasSuffix(before, " from") && !strings.HasSuffix(before, "generated from") || says(before, asked) {
				continue // who wrote, or whom to ask
			}
			if addr == "" || others[strings.ToLower(addr)] || aliases[strings.ToLower(addr)] || says(strings.ToLower(addr), robots) || len(all) == 100 {
				continue
			}
			words := oneLine(about(lines, i, addr, others))
			if !telling(words) {
				continue
			}
			x := Recipient{Final: addr, Action: action, Diagnostic: words}
			if s := enhancedIn.FindStringSubmatch(words); s != nil && statusForm.MatchString(s[1]) {
				x.Status = s[1]
			}
			x.Class = classify(x.Action, x.Status, words)
			if n, known := at[strings.ToLower(addr)]; known {
				if better(&x, &all[n]) {
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
	maxLooked = 200
	// maxOpening is how many octets of a text are looked at to tell its form.
	maxOpening = 4000
)

// better tells whether b says more of an address than a, which was read before it: only where a told no reason.
func better(b, a *Recipient) bool {
	return a.Class == Soft && a.Status == "" && !basic.MatchString(a.Diagnostic) &&
		(b.Class == Hard || b.Status != "" || basic.MatchString(b.Diagnostic))
}

// telling reports whether words are about a failure to deliver.
func telling(words string) bool {
	plain := strings.ToLower(words)
	return basic.MatchString(words) || enhancedIn.MatchString(words) || says(plain, unknownUser) || says(plain, full) || says(plain, failing)
}

// about are the words about an address: its own line and those that follow it up to the next address that is not in others, or
// empty line, one behind a colon ("for the following reason:") left aside; if they tell nothing, the paragraph before. In a transcript, what the server
// answered ("<<<") goes before what the reporting system makes of it; below a list of several addresses it tells of none alone.
func about(lines []string, i int, addr string, others map[string]bool) string {
	another := func(l string) bool {
		for _, m := range anyAddress.FindAllString(l[:min(len(l), maxLook)], 10) {
			if !strings.EqualFold(m, addr) && !others[strings.ToLower(m)] {
				return true
			}
		}
		return false
	}
	answer := func(l string) bool { return strings.HasPrefix(l, "<<<") && basic.MatchString(l) }
	if i > 0 && answer(lines[i-1]) && !strings.HasPrefix(lines[i], "<<<") {
		return strings.ReplaceAll(lines[i-1][:min(len(lines[i-1]), maxLook)], addr, "")
	}
	words := strings.ReplaceAll(lines[i][:min(len(lines[i]), maxLook)], addr, "")
	blank := strings.Trim(words, " <>:;,\t\"'") == ""
	several, answered := i > 0 && another(lines[i-1]), answer(lines[i])
	for j := i + 1; j < len(lines) && j < i+7 && len(words) < maxLook; j++ {
		l := strings.TrimSpace(lines[j][:min(len(lines[j]), maxLook)])
		if l == "" && !blank && !strings.HasSuffix(words, ":") || another(l) ||
			answered && !strings.HasPrefix(l, "<<<") || several && strings.HasPrefix(l, "-----") {
			break
		}
		answered = answered || answer(l)
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
		if isEnding(string(l[:min(len(l), 300)])) {
			return bytes.TrimLeft(rest, "\r\n \t-")
		}
	}
	return nil
}
