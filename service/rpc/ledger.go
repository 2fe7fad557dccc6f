package rpc

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

// ListEntries lists entries in order of position.
func (h *handlers) ListEntries(ctx context.Context, r *optoutv1.ListEntriesRequest) (*optoutv1.ListEntriesResponse, error) {
	p, err := h.pageIn(r)
	if err != nil {
		return nil, err
	}
	if r.Sender != "" {
		if _, err := h.sender("sender", r.Sender); err != nil {
			return nil, err
		}
	}
	if p.page.Next == 0 {
		p.page.Next = min(r.After, h.Ledger.Position().Number) + 1
	}
	reg, k := h.Ledger.Registry(), caller(ctx)
	mine := func(n uint32) bool {
		s, _, _, ok := reg.Scope(n)
		if !ok { // an entry of the whole installation
			return r.Sender == "" && len(k.Senders) == 0
		}
		return (r.Sender == "" || s.Name == r.Sender) && k.MayUseSender(s.Name)
	}
	kinds := make([]ledger.Kind, len(r.Kinds))
	for i, x := range r.Kinds {
		kinds[i] = ledger.Kind(x)
	}
	lines, next, err := h.Ledger.Entries(ctx, p.page, mine, kinds)
	if err != nil {
		return nil, err
	}
	see := sights[k.Role].ledger
	resp := &optoutv1.ListEntriesResponse{NextPageToken: p.next(next), Position: h.position(h.Ledger.Position().Number)}
	for i := range lines {
		resp.Entries = append(resp.Entries, entryOut(reg, &lines[i], see, false))
	}
	return resp, nil
}

// GetCheckpoint gives the newest tree head.
func (h *handlers) GetCheckpoint(ctx context.Context, _ *optoutv1.GetCheckpointRequest) (*optoutv1.GetCheckpointResponse, error) {
	head := h.Ledger.Head()
	resp := &optoutv1.GetCheckpointResponse{Position: h.position(head.Size), RootHash: head.Root[:],
		Text: fmt.Sprintf("optout/%s\n%d\n%s\n", h.Ledger.ID(), head.Size, base64.StdEncoding.EncodeToString(head.Root[:]))}
	if head.Size > 0 {
		l, err := h.Ledger.Line(ctx, head.Size)
		if err != nil {
			return nil, err
		}
		resp.At = stampMillis(l.At)
	}
	return resp, nil
}

// progressEvery is how often long calls tell how far they are.
const progressEvery = 200 * time.Millisecond

// Verify recomputes everything, telling its progress.
func (h *handlers) Verify(_ *optoutv1.VerifyRequest, s grpc.ServerStreamingServer[optoutv1.VerifyResponse]) error {
	release, err := take(h.verifying)
	if err != nil {
		return err
	}
	defer release()
	last := time.Now()
	rep, err := h.Ledger.Verify(s.Context(), func(done, total uint64) {
		if time.Since(last) >= progressEvery {
			last = time.Now()
			s.Send(&optoutv1.VerifyResponse{Verified: done, Total: total}) // a caller who went away ends the context
		}
	})
	if err != nil {
		return err
	}
	if rep.FirstBad != 0 {
		h.Log.Error("the ledger does not verify", "entry", rep.FirstBad, "fault", rep.Fault)
	}
	return s.Send(&optoutv1.VerifyResponse{Verified: rep.Entries, Total: rep.Head.Size, Done: true, FirstBad: rep.FirstBad, Fault: rep.Fault, Position: h.position(rep.Head.Size)})
}

// Backup writes a copy, telling its progress.
func (h *handlers) Backup(r *optoutv1.BackupRequest, s grpc.ServerStreamingServer[optoutv1.BackupResponse]) error {
	if !filepath.IsAbs(r.Directory) {
		return invalid("directory", "it is not an absolute path on the service's machine")
	}
	release, err := take(h.backingUp)
	if err != nil {
		return err
	}
	defer release()
	last := time.Now()
	at, root, err := h.Options.Backup(s.Context(), r.Directory, r.WithKeys, func(copied, total uint64) {
		if time.Since(last) >= progressEvery {
			last = time.Now()
			s.Send(&optoutv1.BackupResponse{Copied: copied, Total: total})
		}
	})
	var about *ledger.Error
	if errors.As(err, &about) && about.Kind == ledger.ErrInvalidField {
		return &ledger.Error{Kind: errBackupTarget, Field: "directory", Problem: about.Problem, Remedy: about.Remedy}
	}
	if err != nil {
		return err
	}
	return s.Send(&optoutv1.BackupResponse{Done: true, Position: h.position(at.Number), RootHash: root[:]})
}
