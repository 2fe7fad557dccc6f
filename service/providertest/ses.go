package providertest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// SESAccess is a pair of AWS keys.
type SESAccess struct{ ID, Secret, Region string }

// NewSES starts the v2 API of Amazon SES. It checks Signature Version 4.
func NewSES(t testing.TB, access SESAccess) *API {
	return serve(t, access.authentic, func(a *API, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/email/suppression/addresses" {
			http.NotFound(w, r)
			return
		}
		switch r.Method {
		case http.MethodPut:
			var in struct{ EmailAddress, Reason string }
			if json.NewDecoder(r.Body).Decode(&in) != nil || !strings.Contains(in.EmailAddress, "@") || odd(in.EmailAddress) || in.Reason != "BOUNCE" && in.Reason != "COMPLAINT" {
				http.Error(w, "{}", http.StatusBadRequest)
				return
			}
			a.put(Listed{List: "suppressed", Address: in.EmailAddress, Reason: in.Reason})
			write(w, struct{}{})
		case http.MethodGet:
			q := r.URL.Query()
			since, _ := time.Parse(time.RFC3339, q.Get("StartDate"))
			from := 0
			if token := q.Get("NextToken"); token != "" {
				n, err := strconv.Atoi(strings.TrimPrefix(token, "token-"))
				if err != nil {
					http.Error(w, "{}", http.StatusBadRequest)
					return
				}
				from = n
			}
			items, more := a.of("suppressed", since, from)
			out := map[string]any{}
			var list []map[string]any
			for _, l := range items {
				list = append(list, map[string]any{"EmailAddress": l.Address, "Reason": l.Reason, "LastUpdateTime": float64(l.Created.UnixMilli()) / 1000})
			}
			out["SuppressedDestinationSummaries"] = list
			if more {
				out["NextToken"] = fmt.Sprintf("token-%d", from+len(items))
			}
			write(w, out)
		}
	})
}

// authentic checks Signature Version 4 as AWS documents it.
func (k SESAccess) authentic(r *http.Request) bool {
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	part := map[string]string{}
	for f := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
		part[name] = value
	}
	credential := strings.Split(part["Credential"], "/")
	if !ok || len(credential) != 5 || credential[0] != k.ID || credential[2] != k.Region || credential[3] != "ses" || credential[4] != "aws4_request" {
		return false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	names := strings.Split(part["SignedHeaders"], ";")
	if !slices.Contains(names, "host") || !slices.Contains(names, "x-amz-date") {
		return false
	}
	var headers strings.Builder
	for _, n := range names {
		value := r.Header.Get(n)
		switch n {
		case "host":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		}
		headers.WriteString(n + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	query := strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20")
	canonical := strings.Join([]string{r.Method, (&url.URL{Path: r.URL.Path}).EscapedPath(), query, headers.String(), part["SignedHeaders"], hexSum(body)}, "\n")
	date := r.Header.Get("X-Amz-Date")
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", date, strings.Join(credential[1:], "/"), hexSum([]byte(canonical))}, "\n")
	key := []byte("AWS4" + k.Secret)
	for _, s := range credential[1:] {
		key = mac(key, s)
	}
	return hmac.Equal([]byte(hex.EncodeToString(mac(key, toSign))), []byte(part["Signature"])) && strings.HasPrefix(date, credential[1])
}

func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
