package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"

	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	optoutv1 "optout/proto/optout/v1"
)

// web is the API as JSON on a real listener.
type jsonRig struct {
	*rig
	url string
}

func newJSONRig(t *testing.T) *jsonRig {
	t.Helper()
	r := newRig(t, nil)
	s := httptest.NewServer(r.server.JSON(false))
	t.Cleanup(s.Close)
	return &jsonRig{r, s.URL}
}

// post calls a method and returns status, header and the answer's text.
func (r *jsonRig) post(t testing.TB, secret, method, contentType string, body []byte) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.url+"/optout.v1."+method, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

type jsonError struct{ Code, Message, Reason, Field, Remedy string }

func errorOf(t testing.TB, text string) (e jsonError) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &e); err != nil || e.Code == "" || e.Message == "" {
		t.Fatalf("no error: %q, %v", text, err)
	}
	return e
}

// Who may call what is the same as over gRPC, method by method and role by role.
func TestJSONRights(t *testing.T) {
	r := newJSONRig(t)
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	secrets := map[string]string{}
	for letter, role := range letters {
		secrets[letter], _ = r.key(&optoutv1.ApiKey{Role: role})
	}
	for name := range methods(t) {
		for letter, secret := range secrets {
			code, _, text := r.post(t, secret, name, "application/json", []byte("{}"))
			denied := code == http.StatusForbidden && errorOf(t, text).Reason == "ROLE_REQUIRED"
			if denied == strings.Contains(rights[name], letter) || code == http.StatusNotFound && errorOf(t, text).Code == "unimplemented" || code == http.StatusUnauthorized {
				t.Errorf("%s as %s: %d %s", name, letters[letter], code, text)
			}
		}
		for _, secret := range []string{"", "optout_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"} {
			if code, h, text := r.post(t, secret, name, "application/json", []byte("{}")); code != http.StatusUnauthorized || h.Get("WWW-Authenticate") == "" || errorOf(t, text).Reason != "UNAUTHENTICATED" {
				t.Errorf("%s without a credential: %d %s", name, code, text)
			}
		}
	}
}

// Answers say the same as over gRPC, and errors too.
func TestJSONIsTheAPI(t *testing.T) {
	r := newJSONRig(t)
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	r.optOut("bob@example.com")
	for name, in := range map[string]proto.Message{
		"SuppressionService/CheckSend":      &optoutv1.CheckSendRequest{Topic: "news", Address: "bob@example.com"},
		"SuppressionService/BatchCheckSend": &optoutv1.BatchCheckSendRequest{Topic: "news", Addresses: []string{"ann@example.com", "bob@example.com", "nix"}, WantHeaders: true, Mailing: 7},
		"SuppressionService/ExplainAddress": &optoutv1.ExplainAddressRequest{Address: "bob@example.com"},
		"AdminService/ListTopics":           &optoutv1.ListTopicsRequest{},
		"AdminService/GetSender":            &optoutv1.GetSenderRequest{},
		"LedgerService/ListEntries":         &optoutv1.ListEntriesRequest{PageSize: 1000},
		"LinkService/IssueLink":             &optoutv1.IssueLinkRequest{Topic: "news", Address: "ann@example.com"},
		// errors
		"SuppressionService/LiftSuppression": &optoutv1.LiftSuppressionRequest{Address: "bob@example.com", Reason: optoutv1.DenialReason_DENIAL_REASON_OPTED_OUT_ALL, RequestId: "1", Justification: "x"},
		"SubscriptionService/Subscribe":      &optoutv1.SubscribeRequest{Topic: "news", Address: "ann@example.com"},
		"AdminService/CreateTopic":           &optoutv1.CreateTopicRequest{Topic: &optoutv1.Topic{Name: "news"}},
		"AdminService/RevokeApiKey":          &optoutv1.RevokeApiKeyRequest{Number: 99},
		"SuppressionService/VoidEntries":     &optoutv1.VoidEntriesRequest{},
		"SubscriptionService/UnlinkPerson":   &optoutv1.UnlinkPersonRequest{Sender: "nix"},
		"AdminService/UpdateApiKey":          &optoutv1.UpdateApiKeyRequest{Number: 1, ObserveUntil: timestamppb.New(timestamppb.Now().AsTime().AddDate(1, 0, 0))},
	} {
		m := methods(t)[name]
		want, err := r.answerOf(r.ctx(), name, in)
		for _, marshal := range []protojson.MarshalOptions{{}, {UseProtoNames: true}, {UseEnumNumbers: true}} {
			body, merr := marshal.Marshal(in)
			if merr != nil {
				t.Fatal(merr)
			}
			code, h, text := r.post(t, r.secret, name, "application/json; charset=utf-8", body)
			if err != nil {
				e := errorOf(t, text)
				if e.Message != status.Convert(err).Message() || e.Reason != reason(err) || e.Remedy != info(err).Metadata["remedy"] || e.Field != info(err).Metadata["field"] || code/100 != 4 {
					t.Errorf("%s: %d %s, over gRPC %v %v", name, code, text, err, info(err))
				}
				continue
			}
			if code != 200 || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %v %s", name, code, h, text)
				continue
			}
			got := want.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal([]byte(text), got); err != nil || !proto.Equal(got, want) {
				t.Errorf("%s: %s, over gRPC %v", m.FullName(), text, want)
			}
		}
	}
}

// answerOf calls a unary method over gRPC.
func (r *rig) answerOf(ctx context.Context, name string, in proto.Message) (proto.Message, error) {
	out, ok := map[string]proto.Message{
		"SuppressionService/CheckSend": &optoutv1.CheckSendResponse{}, "SuppressionService/BatchCheckSend": &optoutv1.BatchCheckSendResponse{},
		"SuppressionService/ExplainAddress": &optoutv1.ExplainAddressResponse{}, "AdminService/ListTopics": &optoutv1.ListTopicsResponse{},
		"AdminService/GetSender": &optoutv1.GetSenderResponse{}, "LedgerService/ListEntries": &optoutv1.ListEntriesResponse{}, "LinkService/IssueLink": &optoutv1.IssueLinkResponse{},
	}[name]
	if !ok {
		out = &optoutv1.VerifyResponse{}
	}
	return out, r.conn.Invoke(ctx, "/optout.v1."+name, in, out)
}

// A streamed answer is one object a line.
func TestJSONStreams(t *testing.T) {
	r := newJSONRig(t)
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	code, h, text := r.post(t, r.secret, "LedgerService/Verify", "application/json", []byte("{}"))
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var last struct {
		Done     bool
		FirstBad string `json:"first_bad"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || code != 200 || h.Get("Content-Type") != "application/x-ndjson" || !last.Done || last.FirstBad != "0" {
		t.Errorf("%d %s %q: %v", code, h.Get("Content-Type"), text, err)
	}
}

// What is no request is refused, with what is wrong with it, and says nothing back of what somebody wrote into it.
func TestJSONFaults(t *testing.T) {
	r := newJSONRig(t)
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	const check = "SuppressionService/CheckSend"
	for name, c := range map[string]struct {
		method, contentType, body string
		code                      int
		words                     string
	}{
		"unknown method":     {"SuppressionService/Nix", "application/json", "{}", 404, "no method"},
		"unknown service":    {"NixService/CheckSend", "application/json", "{}", 404, "no method"},
		"empty":              {check, "application/json", "", 400, "empty"},
		"no JSON":            {check, "application/json", "topic=news", 400, "JSON of CheckSendRequest"},
		"cut short":          {check, "application/json", `{"topic":"news"`, 400, "JSON of CheckSendRequest"},
		"unknown field":      {check, "application/json", `{"topic":"news","adress":"secret@example.com"}`, 400, `there is no field "adress"`},
		"twice":              {check, "application/json", `{"topic":"news","topic":"digest"}`, 400, "line 1"},
		"wrong type":         {check, "application/json", `{"topic":["secret@example.com"]}`, 400, "line 1"},
		"a list":             {check, "application/json", `[]`, 400, "JSON of"},
		"two objects":        {check, "application/json", `{}{}`, 400, "JSON of"},
		"deep":               {check, "application/json", strings.Repeat(`{"at_least":`, 100000), 400, "JSON of"},
		"huge number":        {"AdminService/RevokeApiKey", "application/json", `{"number":1e400}`, 400, "JSON of"},
		"a form":             {check, "application/x-www-form-urlencoded", "topic=news", 415, "application/json"},
		"XML":                {check, "application/xml", "<x/>", 415, "application/json"},
		"gRPC":               {check, "application/grpc", "\x00\x00\x00\x00\x00", 415, "application/json"},
		"gRPC-Web":           {check, "application/grpc-web+proto", "\x00\x00\x00\x00\x00", 415, "application/json"},
		"too large":          {check, "application/json", `{"topic":"` + strings.Repeat("x", 5<<20) + `"}`, 413, "split"},
		"NUL":                {check, "application/json", "{\"topic\":\"a\x00b\"}", 400, "JSON of"},
		"unknown topic":      {check, "application/json", `{"topic":"nix","address":"a@example.com"}`, 404, "nix"},
		"malformed address":  {check, "application/json", `{"topic":"news","address":"secret"}`, 400, ""},
		"no content type":    {check, "", `{"topic":"news","address":"ann@example.com"}`, 200, "VERDICT_SEND"},
		"as curl -d says it": {check, "application/x-www-form-urlencoded", `{"topic":"news","address":"ann@example.com"}`, 200, "VERDICT_SEND"},
		"lower camel case":   {"SuppressionService/BatchCheckSend", "application/json", `{"topic":"news","addresses":["ann@example.com"],"wantHeaders":true}`, 200, "List-Unsubscribe"},
	} {
		code, _, text := r.post(t, r.secret, c.method, c.contentType, []byte(c.body))
		said := text
		if code != 200 {
			said = errorOf(t, text).Message
		}
		if code != c.code || !strings.Contains(said, c.words) || strings.Contains(text, "secret") {
			t.Errorf("%s: %d %.300s, want %d %s", name, code, text, c.code, c.words)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
		req, _ := http.NewRequest(method, r.url+"/optout.v1."+check, nil)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", method, resp.StatusCode, resp.Header)
		}
	}
}

// With curl, as the documentation has it.
func TestJSONByCurl(t *testing.T) {
	r := newJSONRig(t)
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	out, err := exec.Command("curl", "-sS", "-H", "Authorization: Bearer "+r.secret, "-d", `{"topic":"news","address":"a@example.com"}`, r.url+"/optout.v1.SuppressionService/CheckSend").CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"verdict":"VERDICT_SEND"`) || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%s %v", out, err)
	}
}

// Whatever the body, an answer comes, and it is JSON.
func FuzzJSON(f *testing.F) {
	r := newRig(f, nil)
	h := r.server.JSON(false)
	for _, s := range []string{`{}`, `{"topic":"news","addresses":["a@example.com"]}`, `{"at_least":{"number":"1"}}`, `{"in_answer_to":{"at":"2026-01-01T00:00:00Z"}}`, "[", "\"", `{"topic":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, m := range []string{"CheckSend", "BatchCheckSend", "ListSuppressions"} {
			req := httptest.NewRequest(http.MethodPost, "/optout.v1.SuppressionService/"+m, bytes.NewReader(body))
			req.Header.Set("Authorization", "Bearer "+r.secret)
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if !json.Valid(w.Body.Bytes()) || w.Code >= 500 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
	})
}
