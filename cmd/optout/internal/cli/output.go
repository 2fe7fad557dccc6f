package cli

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

// answer prints a message of the API as one line of JSON, or calls human.
func (c *call) answer(m proto.Message, human func(w io.Writer)) error {
	if c.json {
		_, err := fmt.Fprintf(c.Stdout, "%s\n", jsonOf(m))
		return err
	}
	human(c.Stdout)
	return nil
}

// jsonOf is a message as JSON, with the API's field names in the API's order. Numbers, booleans and lists are always there;
// texts, messages, enums and optional fields only when they say something. Times are RFC 3339 in UTC, octets hexadecimal, enums
// without their prefix. (protojson writes 64-bit numbers as strings and varies its white space on purpose.)
func jsonOf(m proto.Message) []byte {
	return appendMessage(nil, m.ProtoReflect())
}

func appendMessage(b []byte, m protoreflect.Message) []byte {
	if t, ok := m.Interface().(*timestamppb.Timestamp); ok {
		return strconv.AppendQuote(b, t.AsTime().Format(time.RFC3339Nano))
	}
	b = append(b, '{')
	fields := m.Descriptor().Fields()
	for i, first := 0, true; i < fields.Len(); i++ {
		f := fields.Get(i)
		if !m.Has(f) && !alwaysShown(f) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = strconv.AppendQuote(b, string(f.Name()))
		b = append(b, ':')
		b = appendField(b, f, m.Get(f))
	}
	return append(b, '}')
}

func alwaysShown(f protoreflect.FieldDescriptor) bool {
	if f.HasPresence() || f.IsMap() {
		return false
	}
	switch f.Kind() {
	case protoreflect.EnumKind, protoreflect.StringKind, protoreflect.BytesKind:
		return f.IsList()
	}
	return true
}

func appendField(b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch {
	case f.IsMap(): // of texts, the only kind that the API has
		texts := map[string]string{}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			texts[k.String()] = v.String()
			return true
		})
		return appendJSON(b, texts)
	case f.IsList():
		b = append(b, '[')
		for i := range v.List().Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendSingle(b, f, v.List().Get(i))
		}
		return append(b, ']')
	}
	return appendSingle(b, f, v)
}

func appendSingle(b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return appendMessage(b, v.Message())
	case protoreflect.EnumKind:
		return strconv.AppendQuote(b, enumName(f.Enum(), v.Enum()))
	case protoreflect.BytesKind:
		return strconv.AppendQuote(b, hex.EncodeToString(v.Bytes()))
	case protoreflect.StringKind:
		return appendJSON(b, v.String())
	}
	return append(b, v.String()...) // numbers and booleans
}

func appendJSON(b []byte, v any) []byte {
	text := bytes.NewBuffer(b)
	e := json.NewEncoder(text)
	e.SetEscapeHTML(false) // headers are full of < and >
	e.Encode(v)            // texts, numbers and structs of them cannot fail
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}

// enumName is a value's name without the prefix that all values of its enum share.
func enumName(e protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	v := e.Values().ByNumber(n)
	if v == nil {
		return strconv.Itoa(int(n)) // of a newer service
	}
	return strings.TrimPrefix(string(v.Name()), strings.TrimSuffix(string(e.Values().ByNumber(0).Name()), "UNSPECIFIED"))
}

// word is an enum's value as people read it: "opt-in".
func word(v protoreflect.Enum) string {
	return wordOf(v.Descriptor(), v.Number())
}

func wordOf(e protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	return strings.ReplaceAll(strings.ToLower(enumName(e, n)), "_", "-")
}

// enumFlag is a flag that takes the values of an enum, in lower case with hyphens.
type enumFlag struct {
	kind  protoreflect.EnumDescriptor
	value protoreflect.EnumNumber
}

// newEnumFlag makes a flag of the enum that zero is a value of.
func newEnumFlag(zero protoreflect.Enum) *enumFlag { return &enumFlag{kind: zero.Descriptor()} }

// String is the value given, or "".
func (e *enumFlag) String() string {
	if e.value == 0 {
		return ""
	}
	return wordOf(e.kind, e.value)
}

// Set reads a value: opt-in, OPT_IN and opt_in are the same.
func (e *enumFlag) Set(s string) error {
	for i := 1; i < e.kind.Values().Len(); i++ {
		if n := e.kind.Values().Get(i).Number(); wordOf(e.kind, n) == strings.ReplaceAll(strings.ToLower(s), "_", "-") {
			e.value = n
			return nil
		}
	}
	return fmt.Errorf("it must be one of: %s", e.listing())
}

// Type is shown in help where the flag's text names none.
func (e *enumFlag) Type() string { return "word" }

func (e *enumFlag) words() []string {
	var all []string
	for i := 1; i < e.kind.Values().Len(); i++ {
		all = append(all, wordOf(e.kind, e.kind.Values().Get(i).Number()))
	}
	return all
}

// listing is every value, for help and errors.
func (e *enumFlag) listing() string { return strings.Join(e.words(), ", ") }

// table prints rows in aligned columns.
func table(w io.Writer, rows ...[]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(tw, strings.TrimRight(strings.Join(row, "\t"), "\t "))
	}
	tw.Flush() // what the writer below has refused, it refuses again
}

// at is a time as people read it: RFC 3339 in UTC, to the second; "-" where there is none.
func at(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// printable keeps texts of others (addresses, notes, names) from steering the terminal.
func printable(s string) string {
	if !strings.ContainsFunc(s, steers) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if steers(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func steers(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) && r != ' ' }

// because says in words why mail is denied, since when and by which entry.
func because(d *optoutv1.Denial) string {
	var s string
	switch d.Reason {
	case optoutv1.DenialReason_DENIAL_REASON_UNDER_13:
		s = "under 13"
	case optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL:
		s = "opted out of ALL correspondence"
	case optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_COMMERCIAL:
		s = "opted out of COMMERCIAL mail"
	case optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_TOPIC:
		s = "opted out of topic " + d.Scope.GetTopic()
	case optoutv1.DenialReason_DENIAL_REASON_COMPLAINT:
		s = "reported mail as spam"
	case optoutv1.DenialReason_DENIAL_REASON_WIRELESS_DOMAIN:
		s = "wireless domain without the person's authorisation"
	case optoutv1.DenialReason_DENIAL_REASON_NO_CONSENT:
		s = "no confirmed consent, which the topic needs"
	default:
		s = strings.ReplaceAll(word(d.Reason), "-", " ")
	}
	if d.Since != nil {
		s += " since " + at(d.Since)
	}
	if d.Entry != 0 {
		s += fmt.Sprintf(" (entry %d)", d.Entry)
	}
	if d.Joined {
		s += ", said at another address of the same person"
	}
	return s
}

func becauseAll(denials []*optoutv1.Denial) string {
	var all []string
	for _, d := range denials {
		all = append(all, because(d))
	}
	return strings.Join(all, "; ")
}

// scopeName is a scope as people read it.
func scopeName(s *optoutv1.Scope) string {
	switch s.GetKind() {
	case optoutv1.ScopeKind_SCOPE_KIND_ALL:
		return "ALL"
	case optoutv1.ScopeKind_SCOPE_KIND_COMMERCIAL:
		return "COMMERCIAL"
	case optoutv1.ScopeKind_SCOPE_KIND_TOPIC:
		return "topic " + s.GetTopic()
	}
	return "-"
}
