package words_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"optout/service/words"
)

const token = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwxyz234"

// Whole messages, as people's mail programs write replies to a newsletter of ours with our footer in it.
func TestMail(t *testing.T) {
	stop, perhaps, other, empty := words.Stop, words.Perhaps, words.Other, words.Empty
	cases := map[string]struct {
		meaning  words.Meaning
		language string
		token    bool
		own      string
	}{
		"gmail-en":             {stop, "en", true, "Please unsubscribe me."},
		"gmail-en-question":    {other, "", true, "Lovely! Is the blue one still there?"},
		"gmail-en-nothing":     {empty, "", true, ""},
		"gmail-de":             {stop, "de", true, "Bitte abmelden."},
		"gmail-ja":             {stop, "ja", true, "配信停止をお願いします。"},
		"gmail-forward":        {stop, "en", true, "unsubscribe"},
		"outlook-de":           {stop, "de", true, "Sehr geehrte Damen und Herren,\n\n\n\nbitte nehmen Sie mich aus dem Verteiler.\n\nMit freundlichen Grüßen\n\nErika Beispiel"},
		"outlook-de-question":  {other, "", true, "Guten Tag,\n\nliefern Sie auch nach Wien?\n\nErika Beispiel"},
		"outlook-web":          {stop, "en", true, "Stop sending me these emails.\n\nBest,\nAnn"},
		"outlook-phone":        {stop, "en", true, "Remove me from your list"},
		"apple-fr":             {stop, "fr", true, "Bonjour,\n\nMerci de me désabonner de votre newsletter.\n\nCordialement\nJeanne Exemple"},
		"iphone-de":            {stop, "de", true, "Bitte melden Sie mich ab"},
		"iphone-ja":            {stop, "ja", true, "配信を停止してください"},
		"yahoo-en":             {stop, "en", true, "UNSUBSCRIBE"},
		"thunderbird-de":       {stop, "de", true, "Bitte streichen Sie mich aus Ihrem Verteiler."},
		"thunderbird-ja":       {stop, "ja", true, "今後メールは不要です。"},
		"thunderbird-question": {other, "", true, "Gilt das auch im Laden?"},
		"gmx-de":               {stop, "de", true, "Newsletter bitte abbestellen"},
		"qq-zh":                {stop, "zh", true, "退订，谢谢"},
		"netease-zh":           {stop, "zh", true, "请不要再给我发邮件了。"},
		"disclaimer-en":        {stop, "en", true, "Please remove me from this list.\n\nRegards,\nBob Example\nHead of Something | Corp Ltd\nT: +44 20 7946 0000"},
		"forward-attached":     {stop, "en", true, "unsubscribe me from this"},
		"away-bare":            {perhaps, "en", false, "I am out of the office until 30 November. To stop these messages, write to unsubscribe."},
		"encrypted":            {perhaps, "en", false, ""},
		"attachment":           {other, "", false, ""},
		"outlook-empty":        {empty, "", false, ""},
		"apple-unsubscribe":    {other, "", false, "Apple Mail sent this email to unsubscribe from the message \"Our spring sale\"."},
		"away-exchange":        {other, "", false, "Ich bin bis 30. November nicht im Büro."},
	}
	files, err := filepath.Glob("testdata/mail/*.eml")
	if err != nil || len(files) != len(cases) {
		t.Fatalf("%d files, %d cases, %v", len(files), len(cases), err)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile("testdata/mail/" + name + ".eml")
			if err != nil {
				t.Fatal(err)
			}
			r := words.Read(raw)
			if r.Meaning != c.meaning || r.Language != c.language {
				t.Errorf("%s (%s), want %s (%s)", r.Meaning, r.Language, c.meaning, c.language)
			}
			if r.Own != c.own {
				t.Errorf("own words %q, want %q", r.Own, c.own)
			}
			if want := []string{token}; c.token && !slices.Equal(r.Tokens, want) || !c.token && r.Tokens != nil {
				t.Errorf("tokens %q", r.Tokens)
			}
			if !slices.Contains(r.Recipients, "unsubscribe@mail.example.com") || !strings.HasSuffix(r.From, ".example") || r.MessageID == "" {
				t.Errorf("recipients %q, from %q, id %q", r.Recipients, r.From, r.MessageID)
			}
			if program := name == "apple-unsubscribe" || name == "away-exchange"; r.Automatic != program {
				t.Errorf("automatic: %v (%s)", r.Automatic, r.Why)
			}
		})
	}
}
