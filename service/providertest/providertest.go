// Package providertest is what tests need of email service providers: small real HTTP servers that speak the documented APIs of
// their suppression lists (paging, authentication, rate limits, faults), and webhook requests signed as the providers sign them.
package providertest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Listed is an address on a suppression list.
type Listed struct {
	// List is the list: the last part of the API's path, or "groups"; for SES and Postmark there is one.
	List    string
	Address string
	Created time.Time
	// Reason is the provider's: BOUNCE, COMPLAINT, HardBounce, SpamComplaint, ManualSuppression, or the words of a server.
	Reason string
	// Origin is Postmark's, Group SendGrid's, Tags Mailgun's.
	Origin string
	Group  int
	Tags   []string
}

// API is the server of a provider's API.
type API struct {
	// URL is its base.
	URL string
	// PageSize bounds the pages of the lists.
	PageSize int
	// Now is the clock by which what is pushed is dated.
	Now func() time.Time

	mu     sync.Mutex
	lists  []Listed
	calls  []string
	status []int // what the next calls answer instead; 0 lets one through
	after  string
	kind   string // X-Amzn-ErrorType of those answers
}

// serve starts an API that answers by handler once the credential is right.
func serve(t testing.TB, authentic func(*http.Request) bool, answer func(*API, http.ResponseWriter, *http.Request)) *API {
	a := &API{PageSize: 1000, Now: time.Now}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.calls = append(a.calls, r.Method+" "+r.URL.RequestURI())
		if len(a.status) > 0 {
			status := a.status[0]
			if a.status = a.status[1:]; status != 0 {
				if a.after != "" {
					w.Header().Set("Retry-After", a.after)
				}
				if a.kind != "" {
					w.Header().Set("X-Amzn-ErrorType", a.kind)
				}
				http.Error(w, "an error that names person@example.com", status)
				return
			}
		}
		if !authentic(r) {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		answer(a, w, r)
	}))
	t.Cleanup(s.Close)
	a.URL = s.URL
	return a
}

// Add puts addresses on lists, as the provider would by itself.
func (a *API) Add(l ...Listed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lists = append(a.lists, l...)
}

// Remove takes an address off every list, as its owner would by hand.
func (a *API) Remove(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lists = slices.DeleteFunc(a.lists, func(l Listed) bool { return l.Address == address })
}

// Fail makes the next calls answer these statuses; after, if given, is their Retry-After. 0 lets a call through.
func (a *API) Fail(after string, statuses ...int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.after, a.status, a.kind = after, statuses, ""
}

// FailAs is Fail with the name that AWS gives to what is wrong.
func (a *API) FailAs(kind string, statuses ...int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.after, a.status, a.kind = "", statuses, kind
}

// Calls are the requests that came, and forgets them.
func (a *API) Calls() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.calls
	a.calls = nil
	return c
}

// Addresses are those on a list ("" for every list), sorted.
func (a *API) Addresses(list string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for _, l := range a.lists {
		if list == "" || l.List == list {
			all = append(all, l.Address)
		}
	}
	slices.Sort(all)
	return all
}

// put adds what was pushed, unless it is there.
func (a *API) put(l Listed) {
	for _, x := range a.lists {
		if x.List == l.List && x.Address == l.Address && x.Group == l.Group {
			return
		}
	}
	l.Created = a.Now()
	a.lists = append(a.lists, l)
}

// of are the items of a list since a moment, from an offset, and whether there are more.
func (a *API) of(list string, since time.Time, from int) (items []Listed, more bool) {
	var all []Listed
	for _, l := range a.lists {
		if l.List == list && !l.Created.Before(since) {
			all = append(all, l)
		}
	}
	all = all[min(from, len(all)):]
	return all[:min(len(all), a.PageSize)], len(all) > a.PageSize
}

// odd addresses are valid, but none to the providers: they answer 400 to the whole call.
func odd(address string) bool { return strings.HasPrefix(address, "odd") }

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// NewSendGrid starts the v3 API of SendGrid.
func NewSendGrid(t testing.TB, key string) *API {
	authentic := func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+key }
	return serve(t, authentic, func(a *API, w http.ResponseWriter, r *http.Request) {
		list, found := strings.CutPrefix(r.URL.Path, "/v3/suppression/")
		switch {
		case r.Method == http.MethodPost && r.URL.Path == "/v3/asm/suppressions/global":
			var in struct {
				Emails []string `json:"recipient_emails"`
			}
			if json.NewDecoder(r.Body).Decode(&in) != nil || len(in.Emails) == 0 || slices.ContainsFunc(in.Emails, odd) {
				http.Error(w, "{}", http.StatusBadRequest)
				return
			}
			for _, e := range in.Emails {
				a.put(Listed{List: "unsubscribes", Address: e})
			}
			w.WriteHeader(http.StatusCreated)
			write(w, in)
		case r.Method == http.MethodGet && r.URL.Path == "/v3/asm/suppressions":
			out := []map[string]any{}
			for _, l := range a.lists {
				if l.List == "groups" {
					out = append(out, map[string]any{"email": l.Address, "group_id": l.Group, "group_name": "g", "created_at": l.Created.Unix()})
				}
			}
			write(w, out)
		case r.Method == http.MethodGet && found:
			q := r.URL.Query()
			limit, _ := strconv.Atoi(q.Get("limit"))
			offset, err := strconv.Atoi(q.Get("offset"))
			start, _ := strconv.ParseInt(q.Get("start_time"), 10, 64)
			if err != nil || limit < 1 || limit > 500 {
				http.Error(w, "{}", http.StatusBadRequest)
				return
			}
			a.PageSize = limit
			items, _ := a.of(list, time.Unix(start, 0), offset)
			out := []map[string]any{}
			for _, l := range items {
				m := map[string]any{"created": l.Created.Unix(), "email": l.Address}
				if l.Reason != "" {
					m["reason"], m["status"] = l.Reason, strings.Fields(l.Reason + " x x")[1]
				}
				out = append(out, m)
			}
			write(w, out)
		default:
			http.NotFound(w, r)
		}
	})
}

// NewMailgun starts the v3 API of Mailgun for a domain.
func NewMailgun(t testing.TB, key, domain string) *API {
	authentic := func(r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		return user == "api" && password == key
	}
	return serve(t, authentic, func(a *API, w http.ResponseWriter, r *http.Request) {
		list, found := strings.CutPrefix(r.URL.Path, "/v3/"+domain+"/")
		switch {
		case !found:
			http.NotFound(w, r)
		case r.Method == http.MethodPost && list == "unsubscribes":
			var in []struct {
				Address string
				Tags    []string
			}
			bad := json.NewDecoder(r.Body).Decode(&in) != nil || len(in) == 0 || len(in) > 1000
			for _, e := range in {
				bad = bad || odd(e.Address)
			}
			if bad {
				http.Error(w, "{}", http.StatusBadRequest)
				return
			}
			for _, e := range in {
				a.put(Listed{List: list, Address: e.Address, Tags: e.Tags})
			}
			write(w, map[string]string{"message": "addresses have been added to the unsubscribes table"})
		case r.Method == http.MethodGet:
			from, _ := strconv.Atoi(r.URL.Query().Get("page"))
			items, more := a.of(list, time.Time{}, from)
			out := []map[string]any{}
			for _, l := range items {
				m := map[string]any{"address": l.Address, "created_at": l.Created.UTC().Format("Mon, 02 Jan 2006 15:04:05 MST")}
				if list == "unsubscribes" {
					m["tags"] = l.Tags
				} else if l.Reason != "" {
					m["code"], m["error"] = "550", l.Reason
				}
				out = append(out, m)
			}
			next := a.URL + r.URL.Path + "?page=" + strconv.Itoa(from+len(items))
			if !more && len(items) == 0 { // Mailgun always gives a next page; the last one is empty
				next = a.URL + r.URL.Path + "?page=" + strconv.Itoa(from)
			}
			write(w, map[string]any{"items": out, "paging": map[string]string{"next": next}})
		}
	})
}

// NewPostmark starts the API of Postmark for a message stream.
func NewPostmark(t testing.TB, token, stream string) *API {
	authentic := func(r *http.Request) bool { return r.Header.Get("X-Postmark-Server-Token") == token }
	path := "/message-streams/" + stream + "/suppressions"
	return serve(t, authentic, func(a *API, w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost && r.URL.Path == path:
			var in struct {
				Suppressions []struct{ EmailAddress string }
			}
			if json.NewDecoder(r.Body).Decode(&in) != nil || len(in.Suppressions) == 0 || len(in.Suppressions) > 50 {
				http.Error(w, "{}", http.StatusUnprocessableEntity)
				return
			}
			var out struct{ Suppressions []map[string]string }
			for _, e := range in.Suppressions {
				status := "Suppressed"
				if strings.HasPrefix(e.EmailAddress, "refused") {
					status = "Failed"
				} else {
					a.put(Listed{List: "suppressions", Address: e.EmailAddress, Reason: "ManualSuppression", Origin: "Customer"})
				}
				out.Suppressions = append(out.Suppressions, map[string]string{"EmailAddress": e.EmailAddress, "Status": status})
			}
			write(w, out)
		case r.Method == http.MethodGet && r.URL.Path == path+"/dump":
			since, _ := time.Parse(time.DateOnly, r.URL.Query().Get("fromdate"))
			var out struct{ Suppressions []map[string]string }
			for _, l := range a.lists {
				if !l.Created.Before(since) {
					out.Suppressions = append(out.Suppressions, map[string]string{"EmailAddress": l.Address, "SuppressionReason": l.Reason, "Origin": l.Origin,
						"CreatedAt": l.Created.Format("2006-01-02T15:04:05-07:00")})
				}
			}
			write(w, out)
		default:
			http.NotFound(w, r)
		}
	})
}
