package words_test

import (
	"bytes"
	"mime"
	"os"
	"strings"
	"testing"

	"optout/service/words"
)

// letter is a message as a simple mail program writes it.
func letter(subject, body string) []byte {
	return []byte("From: Ann Example <ann@shop.example>\r\nTo: stop@mail.example.com\r\nSubject: " + mime.QEncoding.Encode("utf-8", subject) +
		"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + strings.ReplaceAll(body, "\n", "\r\n") + "\r\n")
}

var languages = []string{"en", "de", "fr", "es", "pt", "it", "nl", "pl", "ja", "zh"}

// saying is a line of a file in testdata/phrases or testdata/strangers.
type saying struct{ line, meaning, subject, body string }

func sayings(t testing.TB, folder, lang string) (all []saying) {
	text, err := os.ReadFile("testdata/" + folder + "/" + lang + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		l := strings.TrimRight(string(line), "\n")
		if l == "" || l[0] == '#' {
			continue
		}
		s := saying{line: l}
		s.meaning, s.body, _ = strings.Cut(l, " ")
		if rest, ok := strings.CutPrefix(s.body, "S: "); ok {
			if s.subject, s.body, ok = strings.Cut(rest, " B:"); !ok {
				t.Fatalf("%s: no body: %s", lang, l)
			}
		}
		s.body = strings.ReplaceAll(strings.TrimSpace(s.body), `\n`, "\n")
		all = append(all, s)
	}
	return all
}

// Several hundred things that people write, in ten languages.
func TestPhrases(t *testing.T) {
	for _, lang := range languages {
		t.Run(lang, func(t *testing.T) {
			count := map[string]int{}
			for _, s := range sayings(t, "phrases", lang) {
				count[s.meaning]++
				r := words.Read(letter(s.subject, s.body))
				if r.Meaning.String() != s.meaning {
					t.Errorf("%s\n\tgot %s (%s)", s.line, r.Meaning, r.Language)
				}
				if (r.Meaning == words.Other || r.Meaning == words.Empty) != (r.Language == "") {
					t.Errorf("%s\n\tlanguage %q", s.line, r.Language)
				}
			}
			if count["stop"] < 15 || count["perhaps"] < 5 || count["other"] < 5 {
				t.Errorf("too few: %v", count)
			}
		})
	}
}

// What was written down before the phrases were: see testdata/strangers/en.txt. No message that is not a demand may be taken for one;
// what is one and is not understood is marked in the files, and waits for a person.
func TestStrangers(t *testing.T) {
	for _, lang := range languages {
		t.Run(lang, func(t *testing.T) {
			for _, s := range sayings(t, "strangers", lang) {
				got := words.Read(letter(s.subject, s.body)).Meaning
				demand := got == words.Stop || got == words.Cancel
				switch s.meaning {
				case "stop", "cancel":
					if got.String() != s.meaning {
						t.Errorf("%s\n\tgot %s", s.line, got)
					}
				case "waits", "no":
					if demand {
						t.Errorf("%s\n\tgot %s", s.line, got)
					}
				default:
					t.Errorf("no such mark: %s", s.line)
				}
			}
		})
	}
}
