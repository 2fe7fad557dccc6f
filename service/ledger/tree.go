package ledger

import (
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is the growing Merkle tree (RFC 6962 section 2.1): only the roots of its complete subtrees, largest first, are kept.
type tree struct {
	size uint64
	edge []Hash
}

func newTree(size uint64, edge []Hash) (tree, bool) {
	return tree{size: size, edge: append([]Hash(nil), edge...)}, len(edge) == bits.OnesCount64(size)
}

// add appends a leaf. Every subtree that it completes is folded into its parent.
func (t *tree) add(leaf Hash) {
	h := leaf
	for n := t.size; n&1 == 1; n >>= 1 {
		last := len(t.edge) - 1
		h = Hash(tlog.NodeHash(tlog.Hash(t.edge[last]), tlog.Hash(h)))
		t.edge = t.edge[:last]
	}
	t.edge = append(t.edge, h)
	t.size++
}

// root folds the edge from the right. The root of the empty tree is SHA-256 of nothing.
func (t *tree) root() Hash {
	if t.size == 0 {
		h, _ := tlog.TreeHash(0, nil)
		return Hash(h)
	}
	h := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		h = Hash(tlog.NodeHash(tlog.Hash(t.edge[i]), tlog.Hash(h)))
	}
	return h
}

func (t *tree) head() Head { return Head{Size: t.size, Root: t.root()} }

// clone copies the tree, reusing into's memory.
func (t *tree) clone(into *tree) {
	into.size = t.size
	into.edge = append(into.edge[:0], t.edge...)
}
