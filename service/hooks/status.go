package hooks

import (
	"time"

	"optout/service/ledger"
)

// Status is how a provider is set up and how far it is.
type Status struct {
	ID, Kind, Sender string
	// Scope is what an unsubscribe covers: ALL, COMMERCIAL or the name of a topic.
	Scope string
	// Webhook tells that webhooks are taken, at Path.
	Webhook bool
	Path    string
	// Poll is how often its lists are read; 0: only by sync. API tells that they can be.
	Poll time.Duration
	API  bool
	// Push tells that opt-outs are put on its list.
	Push bool

	// Recorded counts the entries since the start that it told of. LastEvent is when a webhook was taken last, LastControl what was
	// said last about the webhook itself.
	Recorded    uint64
	LastEvent   time.Time
	LastControl string
	// LastPoll is when its lists were read to the end, PollError why that failed last.
	LastPoll  time.Time
	PollError string
	// LastPush is when pushing was up to date, PushError why it failed last.
	LastPush  time.Time
	PushError string
	// PushedTo is the position that pushing has reached, Behind how many entries are after it.
	PushedTo, Behind uint64
	// Pushed and Refused count addresses since the start; Unknown those that could not be pushed, for only their key is known.
	Pushed, Refused, Unknown uint64
}

// List tells how every provider is, in the order of the configuration.
func (s *Server) List() []Status {
	var all []Status
	for _, r := range s.accounts {
		r.mu.Lock()
		st := r.status
		r.mu.Unlock()
		st.API = r.lister != nil
		st.Scope = scopeName(r.account)
		if r.push {
			st.PushedTo = r.state.pushed()
			st.Behind = s.opt.Ledger.Position().Number - min(st.PushedTo, s.opt.Ledger.Position().Number)
		}
		all = append(all, st)
	}
	return all
}

// Find tells how one provider is.
func (s *Server) Find(id string) (Status, bool) {
	for _, st := range s.List() {
		if st.ID == id {
			return st, true
		}
	}
	return Status{}, false
}

func scopeName(a *account) string {
	switch a.scope.Kind {
	case ledger.ScopeCommercial:
		return "COMMERCIAL"
	case ledger.ScopeTopic:
		return a.scope.Topic
	}
	return defaultScope
}

// update changes the status.
func (r *runner) update(f func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.status)
}
