package cli

import (
	"github.com/cheggaaa/pb/v3"
)

// progress is a bar on standard error, or nothing when that is no terminal.
type progress struct{ bar *pb.ProgressBar }

// startProgress shows a bar; octets says that it counts octets. A total of 0 is not known yet.
func (p *program) startProgress(label string, total int64, octets bool) *progress {
	if !p.Terminal || p.json {
		return &progress{}
	}
	bar := pb.New64(total).Set("prefix", label).SetWriter(p.Stderr).Set(pb.Bytes, octets).Set(pb.Terminal, true)
	return &progress{bar.Start()}
}

// set tells how far it is.
func (g *progress) set(done, total uint64) {
	if g.bar != nil {
		g.bar.SetTotal(int64(total)).SetCurrent(int64(done))
	}
}

// finish ends the bar; more than once does no harm.
func (g *progress) finish() {
	if g.bar != nil {
		g.bar.Finish()
	}
}
