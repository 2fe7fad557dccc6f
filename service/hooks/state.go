package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"optout/service/ledger"
)

// state is how far an account has come.
type state struct {
	// Ledger and Position are the ledger's identity and head when it was saved. Another ledger, or one that was set back to an
	// older backup, has not heard what was read: then everything begins anew.
	Ledger   string `json:"ledger"`
	Position uint64 `json:"position"`
	// Pushed is the position up to which opt-outs were put on the provider's list.
	Pushed uint64 `json:"pushed"`
	// Lists tells, by list, how far it was read.
	Lists map[string]pass `json:"lists"`
}

// pass is how far a list was read.
type pass struct {
	// Complete is when the newest pass that was completed began; zero for none.
	Complete time.Time `json:"complete,omitzero"`
	// Since, Began and Cursor are those of the pass under way.
	Since  time.Time `json:"since,omitzero"`
	Began  time.Time `json:"began,omitzero"`
	Cursor string    `json:"cursor,omitempty"`
}

// stateFile keeps a state on disk.
type stateFile struct {
	path   string
	ledger *ledger.Ledger
	mu     sync.Mutex
	now    state
}

// maxState bounds the file.
const maxState = 1 << 20

func openState(path string, l *ledger.Ledger) (*stateFile, error) {
	s := &stateFile{path: path, ledger: l, now: state{Lists: map[string]pass{}}}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return nil, err
	}
	var read state
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, fmt.Errorf("%s cannot be read: delete it, and the lists are read and the opt-outs pushed from the beginning, which changes nothing that is done already", path)
	}
	if read.Ledger == l.ID() && read.Position <= l.Position().Number && read.Pushed <= read.Position {
		s.now = read
		if s.now.Lists == nil {
			s.now.Lists = map[string]pass{}
		}
	}
	return s, nil
}

// change changes the state, on disk before it returns.
func (s *stateFile) change(f func(*state)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.now
	next.Lists = map[string]pass{}
	for k, v := range s.now.Lists {
		next.Lists[k] = v
	}
	f(&next)
	at := s.ledger.Position()
	next.Ledger, next.Position = s.ledger.ID(), at.Number
	text, err := json.Marshal(&next)
	if err != nil {
		return err
	}
	if err := replaceFile(s.path, append(text, '\n')); err != nil {
		return err
	}
	s.now = next
	return nil
}

func (s *stateFile) pushed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Pushed
}

func (s *stateFile) list(name string) pass {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Lists[name]
}
