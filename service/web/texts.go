package web

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/language"

	"optout/service/ledger"
)

// words are the page's texts in one language. %s stands for the sender's or the topic's name.
type words struct {
	Lang           string `json:"lang"`
	AskTitle       string `json:"ask_title"`
	AskAll         string `json:"ask_all"`
	AskCommercial  string `json:"ask_commercial"`
	AskTopic       string `json:"ask_topic"`
	Button         string `json:"button"`
	DoneTitle      string `json:"done_title"`
	DoneAll        string `json:"done_all"`
	DoneCommercial string `json:"done_commercial"`
	DoneTopic      string `json:"done_topic"`
	Undo           string `json:"undo"`
	UndoHint       string `json:"undo_hint"`
	UndoneTitle    string `json:"undone_title"`
	UndoneText     string `json:"undone_text"`
	StillTitle     string `json:"still_title"`
	StillText      string `json:"still_text"`
	StaleTitle     string `json:"stale_title"`
	StaleText      string `json:"stale_text"`
	LaterTitle     string `json:"later_title"`
	LaterText      string `json:"later_text"`
	MayStillCome   string `json:"may_still_come"`
	PrivacyPolicy  string `json:"privacy_policy"`
	Contact        string `json:"contact"`
	ThisSender     string `json:"this_sender"`
}

// texts are all languages, with the matcher that chooses among them.
type texts struct {
	all     []words
	matcher language.Matcher
}

func loadTexts() *texts {
	t := &texts{}
	var tags []language.Tag
	for _, lang := range []string{"en", "de", "fr", "es", "pt", "it", "nl", "pl", "ja", "zh"} { // the first is for everybody else
		b, err := files.ReadFile("texts/" + lang + ".json")
		if err != nil {
			panic(err) // embedded: a fault of the build
		}
		w := words{Lang: lang}
		if err := json.Unmarshal(b, &w); err != nil {
			panic(err)
		}
		t.all = append(t.all, w)
		tags = append(tags, language.Make(lang))
	}
	t.matcher = language.NewMatcher(tags)
	return t
}

// pick chooses the language of an Accept-Language field.
func (t *texts) pick(accept string) words {
	if len(accept) > 200 {
		accept = ""
	}
	tags, _, err := language.ParseAcceptLanguage(accept)
	if err != nil {
		tags = nil
	}
	_, i, _ := t.matcher.Match(tags...)
	return t.all[i]
}

// view is what a page shows. It has nothing personal: whoever holds a forwarded link learns nothing of its recipient.
type view struct {
	words
	State  string
	Style  template.CSS
	Sender string
	Named  bool   // the sender has a name to show
	What   string // what stops
	Stops  string // what has stopped
	// Required are the topics that may still come, with the reason given for each.
	Required []required
	Policy   string
	Postal   string
	DPO      string
	// Action is where the form posts to; empty for the page's own address.
	Action  string
	CanUndo bool
}

type required struct{ Name, Why string }

func (h *handler) view(r *http.Request, s *ledger.Sender, kind ledger.ScopeKind, topic *ledger.Topic) *view {
	w := h.texts.pick(r.Header.Get("Accept-Language"))
	v := &view{words: w, Sender: s.DisplayName, Policy: s.PrivacyPolicyURL, Postal: s.PostalAddress, DPO: s.DataProtection}
	if v.Named = v.Sender != ""; !v.Named {
		v.Sender = w.ThisSender
	}
	switch kind {
	case ledger.ScopeTopic:
		name := topic.Description
		if name == "" {
			name = topic.Name
		}
		v.What, v.Stops = fill(w.AskTopic, name, v.Sender), fill(w.DoneTopic, name, v.Sender)
	case ledger.ScopeCommercial:
		v.What, v.Stops = fill(w.AskCommercial, v.Sender), fill(w.DoneCommercial, v.Sender)
	default:
		v.What, v.Stops = fill(w.AskAll, v.Sender), fill(w.DoneAll, v.Sender)
	}
	if kind == ledger.ScopeAll {
		for _, t := range s.Topics() {
			if t.Class == ledger.Required {
				name := t.Description
				if name == "" {
					name = t.Name
				}
				v.Required = append(v.Required, required{name, t.Justification})
			}
		}
	}
	return v
}

// fill puts names where the text has %s, in order, and begins the sentence with a capital.
func fill(text string, names ...string) string {
	for _, n := range names {
		text = strings.Replace(text, "%s", n, 1)
	}
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}
