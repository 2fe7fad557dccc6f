package rpc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/proto"

	"optout/service/ledger"
)

// A page token is the position to go on from and the bound of the listing, tied to the ledger, the method and the filters by a
// digest. It holds no secret and grants nothing: every page is admitted and filtered anew.

// defaultPage is how many items a page holds unless the caller says.
const defaultPage = 100

// listing is a request for one page of a listing.
type listing interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

// pager reads the page tokens of one listing and writes the next.
type pager struct {
	digest [8]byte
	// page is the page to give.
	page ledger.Page
}

// pageIn reads page size and token of a request.
func (h *handlers) pageIn(r listing) (*pager, error) {
	size := r.GetPageSize()
	switch {
	case size < 0 || size > ledger.MaxPage:
		return nil, invalid("page_size", "it must be 1 to %d", ledger.MaxPage)
	case size == 0:
		size = defaultPage
	}
	p := &pager{digest: h.filters(r), page: ledger.Page{Size: int(size)}}
	if r.GetPageToken() == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil || len(b) < 16 {
		return nil, errPageToken
	}
	p.page.Next, p.page.Bound = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if p.page.Next > p.page.Bound || p.page.Bound > h.Ledger.Position().Number || p.next(p.page) != r.GetPageToken() {
		return nil, errPageToken // the last: of other filters, or not spelt as we do
	}
	return p, nil
}

var errPageToken = &ledger.Error{Kind: ledger.ErrInvalidPageToken, Field: "page_token", Problem: "it is not a token of this listing",
	Remedy: "give the token of the previous page, with the same filters"}

// next is the token of the page after p; empty at the end.
func (p *pager) next(after ledger.Page) string {
	if after.Next == 0 {
		return ""
	}
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, after.Next), after.Bound)
	return base64.RawURLEncoding.EncodeToString(append(b, p.digest[:]...))
}

// filters is a digest of everything in a request but its page: size and token may differ from page to page.
func (h *handlers) filters(r listing) [8]byte {
	m := proto.Clone(r).ProtoReflect()
	fields := m.Descriptor().Fields()
	m.Clear(fields.ByName("page_size"))
	m.Clear(fields.ByName("page_token"))
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface()) // it was unmarshalled a moment ago, so it can be marshalled
	sum := sha256.Sum256(slices.Concat([]byte(h.Ledger.ID()), []byte(m.Descriptor().FullName()), b))
	return [8]byte(sum[:])
}
