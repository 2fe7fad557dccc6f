package service_test

import (
	"path/filepath"
	"testing"
	"time"
)

// Whatever was acknowledged before kill -9 is on the ledger and in force after the restart (law 4). A killed process loses
// nothing that the kernel has, so this finds acknowledgements that leave too early, not missing fsyncs: the power-cut test does.
func TestKillLosesNoAcknowledgedOptOut(t *testing.T) {
	kills := 200
	if testing.Short() {
		kills = 10
	}
	random, seed := newSeed(t)
	data := filepath.Join(t.TempDir(), "data")
	people := recipients{seed: seed}
	p := newInstallation(t, data)
	var all []string
	for n := range kills {
		addresses, tokens := people.take(t, p, 2000)
		stop := make(chan struct{})
		acked := make(chan []string)
		go func() { acked <- p.load(addresses, tokens, 16, stop) }()
		time.Sleep(time.Duration(5+random.IntN(60)) * time.Millisecond)
		p.kill()
		close(stop)
		got := <-acked
		all = append(all, got...)
		var err error
		if p, err = serve(t, data); err != nil {
			t.Fatalf("after kill %d: %v", n+1, err)
		}
		if lost := p.inForce(t, got); len(lost) > 0 {
			t.Fatalf("kill %d lost %d of %d acknowledged opt-outs", n+1, len(lost), len(got))
		}
	}
	if lost := p.inForce(t, all); len(lost) > 0 {
		t.Fatalf("%d of %d acknowledged opt-outs were lost", len(lost), len(all))
	}
	p.kill()
	verified(t, data)
	t.Logf("%d kills, %d acknowledged opt-outs, all in force", kills, len(all))
	if len(all) < kills*10 {
		t.Errorf("only %d acknowledgements: the load was too light to show anything", len(all))
	}
}
