// Package ledger is the core of optout: the append-only subscription ledger, the fold of its entries into the standing of
// each address, the verdict on each send, and the use cases by which anything changes. Every adapter (RPC, page, mail,
// import, console) ends in its few methods; there is no other write path.
//
// It owns what is true and why. It knows nothing of gRPC, HTTP, SMTP or SQL: it reads and writes through [Store], learns
// addresses through package address, and holds standing in memory through package standing.
//
// How a write goes: the caller's goroutine reads and checks the request and proposes a decision. One commit loop takes all
// the proposals that wait, lets each decide on the standing as it is with all earlier decisions in force, appends the
// entries of all of them in one transaction (one fsync), then advances standing and answers each. So an acknowledged write
// is durable and in force, and a failed one has changed nothing that anybody was told of.
package ledger
