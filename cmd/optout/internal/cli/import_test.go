package cli

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// readList reads a whole list and tells each row as "address reason topic date note", "line N: fault" or "left out".
func readList(t *testing.T, text string, columns map[string]string) (rows []string, err error) {
	t.Helper()
	r, err := newCSVReader(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	first, err := r.next()
	if err != nil {
		return nil, err
	}
	l, err := newLayout(first.fields, columns)
	if err != nil {
		return nil, err
	}
	tell := func(rec csvRecord) {
		if rec.fault != "" {
			rows = append(rows, "fault "+rec.fault)
			return
		}
		s, skip, err := l.importRow(rec.fields)
		switch {
		case skip:
			rows = append(rows, "left out")
		case err != nil:
			rows = append(rows, "fault "+err.Error())
		default:
			var when string
			if s.OccurredAt != nil {
				when = s.OccurredAt.AsTime().Format(time.RFC3339)
			}
			rows = append(rows, strings.TrimRight(strings.Join([]string{s.Address, enumName(s.Reason.Descriptor(), s.Reason.Number()), s.Topic, when, s.Note}, "|"), "|"))
		}
	}
	if l.headless {
		tell(first)
	}
	for {
		rec, err := r.next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		tell(rec)
	}
}

func TestImportLists(t *testing.T) {
	for _, c := range []struct {
		name, text string
		columns    map[string]string
		want       []string
	}{
		{"our own", "address,date,reason,scope,topic,note\nann@x.org,2024-05-01,unsubscribe,,,by phone\nbob@x.org,,complaint,,news,\ncy@x.org,,,commercial,,\ndi@x.org,,,,news,\ned@x.org,,bounce,,news,\n", nil,
			[]string{"ann@x.org|OPTED_OUT_ALL||2024-05-01T00:00:00Z|by phone", "bob@x.org|COMPLAINT|news", "cy@x.org|OPTED_OUT_COMMERCIAL", "di@x.org|OPTED_OUT_TOPIC|news", "ed@x.org|UNDELIVERABLE"}},
		{"BOM, CRLF, semicolons, quotes, blank lines", "\xef\xbb\xbfE-Mail;Unsubscribed At;Note\r\n\r\n\"ann@x.org\";2024-05-01 10:11:12;\"said \"\"stop\"\";\r\ntwice\"\r\n", nil,
			[]string{"ann@x.org|OPTED_OUT_ALL||2024-05-01T10:11:12Z|said \"stop\"; twice"}},
		{"tabs", "email\tdate\nann@x.org\t1714558272\n", nil, []string{"ann@x.org|OPTED_OUT_ALL||2024-05-01T10:11:12Z"}},
		{"addresses alone", "ann@x.org\nbob@x.org\n", nil, []string{"ann@x.org|OPTED_OUT_ALL", "bob@x.org|OPTED_OUT_ALL"}},
		{"short and long rows", "email,date\nann@x.org\nbob@x.org,2024-05-01,more\n", nil, []string{"ann@x.org|OPTED_OUT_ALL", "bob@x.org|OPTED_OUT_ALL||2024-05-01T00:00:00Z"}},
		{"columns by name", "Who,Left on\nann@x.org,2024-05-01\n", map[string]string{"address": "who", "date": "Left On"}, []string{"ann@x.org|OPTED_OUT_ALL||2024-05-01T00:00:00Z"}},
		{"columns by number, no header", "ann@x.org,COMPLAINT\n", map[string]string{"address": "1", "reason": "2"}, []string{"ann@x.org|COMPLAINT"}},
		{"scope wins over a topic column", "email,scope,topic\nann@x.org,all,news\nbob@x.org,topic:news,\ncy@x.org,topic,\n", nil,
			[]string{"ann@x.org|OPTED_OUT_ALL", "bob@x.org|OPTED_OUT_TOPIC|news", "fault topic: it is missing (name the topic in a column topic, or with --topic)"}},
		{"what cannot be read", "email,date,reason,scope\n,,,\nann@x.org,yesterday,,\nbob@x.org,,because bob@x.org said so,\ncy@x.org,,softbounce,\ndi@x.org,,,most\n\xff@x.org,,,\n", nil, []string{
			"fault address: it is empty",
			"fault date: \"yesterday\" is no moment that can be read (use 2026-05-01T10:00:00Z, 2026-05-01, 2026-05-01 10:00:00 or unix seconds)",
			"fault reason: the value is not known (use unsubscribe, commercial, bounce or complaint; or leave the column out with --columns, and give --reason)",
			"fault reason: \"softbounce\" is not known (use unsubscribe, commercial, bounce or complaint; or leave the column out with --columns, and give --reason)",
			"fault scope: \"most\" is not known (use all, commercial or topic)",
			"fault it is not valid UTF-8 (save the file as CSV in UTF-8)"}},
		{"a quote that is never closed loses no other line", "email,note\nann@x.org,\"open\nbob@x.org,\ncy@x.org,\"closed\"\ndi@x.org,\n", nil,
			[]string{"fault text stands after a closing quote", "bob@x.org|OPTED_OUT_ALL", "cy@x.org|OPTED_OUT_ALL|||closed", "di@x.org|OPTED_OUT_ALL"}},
		{"nor at the end of the file", "email,note\nann@x.org,\"open\nbob@x.org,\n", nil, []string{"fault a quote is opened and never closed", "bob@x.org|OPTED_OUT_ALL"}},
		{"a line that is too long", "email,note\nann@x.org," + strings.Repeat("x", maxCSVLine) + "\nbob@x.org,\n", nil, []string{"fault it is longer than 65536 octets", "bob@x.org|OPTED_OUT_ALL"}},

		{"Mailchimp unsubscribed", "\"Email Address\",\"First Name\",MEMBER_RATING,OPTIN_TIME,UNSUB_TIME,UNSUB_CAMPAIGN_TITLE,UNSUB_CAMPAIGN_ID,UNSUB_REASON,UNSUB_REASON_OTHER,LEID,EUID,NOTES\nann@x.org,Ann,2,\"2020-01-01 00:00:00\",\"2024-05-01 10:11:12\",May,1,\"N/A (Unsubscribed by admin)\",,1,2,\n", nil,
			[]string{"ann@x.org|OPTED_OUT_ALL||2024-05-01T10:11:12Z|N/A (Unsubscribed by admin)"}},
		{"Mailchimp cleaned", "\"Email Address\",MEMBER_RATING,OPTIN_TIME,CLEAN_TIME,CLEAN_CAMPAIGN_TITLE,LEID,EUID\nann@x.org,2,,\"2024-05-01 10:11:12\",May,1,2\n", nil, []string{"ann@x.org|UNDELIVERABLE||2024-05-01T10:11:12Z|May"}},
		{"SendGrid unsubscribes", "email,created\nann@x.org,1714558272\n", nil, []string{"ann@x.org|OPTED_OUT_ALL||2024-05-01T10:11:12Z"}},
		{"SendGrid spam reports", "ip,email,created\n1.2.3.4,ann@x.org,1714558272\n", nil, []string{"ann@x.org|COMPLAINT||2024-05-01T10:11:12Z"}},
		{"SendGrid bounces and blocks", "status,reason,email,created\n5.1.1,\"550 5.1.1 no such user, sorry\",ann@x.org,1714558272\n5.0.0,550-5.1.1 unknown,bob@x.org,1714558272\n4.7.0,try later,cy@x.org,1714558272\n5.7.1,spam,di@x.org,1714558272\n", nil,
			[]string{"ann@x.org|UNDELIVERABLE||2024-05-01T10:11:12Z|550 5.1.1 no such user, sorry", "bob@x.org|UNDELIVERABLE||2024-05-01T10:11:12Z|550-5.1.1 unknown", "left out", "left out"}},
		{"SendGrid invalid emails", "reason,email,created\nMail domain mentioned in email address is unknown,ann@x.orgg,1714558272\n", nil, []string{"ann@x.orgg|UNDELIVERABLE||2024-05-01T10:11:12Z|Mail domain mentioned in email address is unknown"}},
		{"Postmark", "EmailAddress,SuppressionReason,Origin,CreatedAt\nann@x.org,HardBounce,Recipient,2024-05-01T10:11:12-05:00\nbob@x.org,SpamComplaint,Recipient,2024-05-01T10:11:12Z\ncy@x.org,ManualSuppression,Customer,2024-05-01T10:11:12Z\n", nil,
			[]string{"ann@x.org|UNDELIVERABLE||2024-05-01T15:11:12Z|Recipient", "bob@x.org|COMPLAINT||2024-05-01T10:11:12Z|Recipient", "cy@x.org|OPTED_OUT_ALL||2024-05-01T10:11:12Z|Customer"}},
		{"Amazon SES", "EmailAddress,Reason,LastUpdateTime\nann@x.org,BOUNCE,2024-05-01T10:11:12.345000+02:00\nbob@x.org,COMPLAINT,\n", nil, []string{"ann@x.org|UNDELIVERABLE||2024-05-01T08:11:12Z", "bob@x.org|COMPLAINT"}},
		{"listmonk", "uuid,email,name,attributes,status,created_at,updated_at\nu,ann@x.org,Ann,{},blocklisted,2020-01-01 00:00:00,2024-05-01 10:11:12.123456+00:00\nu,bob@x.org,Bob,{},enabled,2020-01-01 00:00:00,2024-05-01 10:11:12\nu,cy@x.org,Cy,{},other,,\n", nil,
			[]string{"ann@x.org|OPTED_OUT_ALL||2024-05-01T10:11:12Z", "left out",
				"fault reason: \"other\" is not known (use unsubscribe, commercial, bounce or complaint; or leave the column out with --columns, and give --reason)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readList(t, c.text, c.columns)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%q\nwant\n%q", got, c.want)
			}
		})
	}
}

func TestListsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		columns          map[string]string
	}{
		{"empty", "", "it is empty", nil},
		{"UTF-16", "\xff\xfee\x00m\x00", "UTF-16", nil},
		{"no address column", "name,date\nAnn,2024-05-01\n", "no column", nil},
		{"rows without a header", "ann@x.org,2024-05-01\n", "names no columns", nil},
		{"people who are subscribed", "Email Address,MEMBER_RATING,OPTIN_TIME,LEID,EUID\nann@x.org,2,,1,2\n", "not of those who said stop", nil},
		{"a column that is not there", "email\nann@x.org\n", "there is no column \"date\"", map[string]string{"address": "email", "date": "date"}},
		{"a role that is none", "email\nann@x.org\n", "\"adress\" is not known", map[string]string{"adress": "email"}},
		{"columns without the address", "email\nann@x.org\n", "where the address is", map[string]string{"date": "email"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if rows, err := readList(t, c.text, c.columns); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("rows %q, error %v, want one that says %q", rows, err, c.want)
			}
		})
	}
}

func TestMoments(t *testing.T) {
	want := time.Date(2024, 5, 1, 10, 11, 12, 0, time.UTC)
	for _, text := range []string{"2024-05-01T10:11:12Z", "2024-05-01T12:11:12+02:00", "2024-05-01 10:11:12", "2024-05-01T10:11:12", "1714558272", "1714558272000",
		"2024-05-01 10:11:12+00:00", "2024-05-01 12:11:12+02", "2024-05-01 10:11:12 UTC", "2024-05-01 10:11:12 +0000 UTC"} {
		if got, err := parseTime(text); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "05/01/2024", "1.5.2024", "20240501", "2024-13-01", "2024-05-01T10:11", "-1714558272", "now"} {
		if got, err := parseTime(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestLineNumbersCountEveryLine(t *testing.T) {
	r, err := newCSVReader(strings.NewReader("email,note\n\nann@x.org,\"a\nb\"\n\nbob@x.org,\"x\" y\n"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []int
	for {
		rec, err := r.next()
		if err != nil {
			break
		}
		lines = append(lines, rec.line)
	}
	if want := []int{1, 3, 6}; !slices.Equal(lines, want) {
		t.Errorf("records begin at lines %v, want %v", lines, want)
	}
}
