package standing

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func drawFact(t *rapid.T) Fact {
	position := rapid.OneOf(rapid.Uint64Range(1, 50), rapid.Uint64()).Draw(t, "position")
	f := Fact{Kind: Kind(rapid.Uint8Range(1, 255).Draw(t, "kind")), Flags: rapid.Byte().Draw(t, "flags"), Scope: rapid.Uint32().Draw(t, "scope"),
		Position: position, Entry: position, At: rapid.OneOf(rapid.Int64Range(epoch-1, epoch+limit40+1), rapid.Int64()).Draw(t, "at")}
	if rapid.Bool().Draw(t, "odd") {
		f.Entry = rapid.Uint64().Draw(t, "entry")
		f.Occurred, f.Until = rapid.Int64().Draw(t, "occurred"), rapid.Int64().Draw(t, "until")
		f.Consent = rapid.Uint64().Draw(t, "consent")
	}
	return f
}

func drawRecord(t *rapid.T) Record {
	r := Record{}
	if rapid.Bool().Draw(t, "joined") {
		copy(r.Person[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "person"))
	}
	for range rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3, 9, 300}).Draw(t, "facts") {
		r.Facts = append(r.Facts, drawFact(t))
	}
	r.Last = rapid.Uint64().Draw(t, "last")
	if len(r.Facts) == 1 && rapid.Bool().Draw(t, "simple") {
		r.Last = r.Facts[0].Position
	}
	return r
}

// The table answers as a map does, whatever was set over whatever, with few keys so that values replace one another, and with
// so small a limit of classes that it is reached.
func TestTableIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newTable(rapid.SampledFrom([]int{0, 2, maxClasses}).Draw(t, "classes"))
		model := map[Key]Record{}
		var got Record
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k := Key{0: rapid.Byte().Draw(t, "shard") & 1, 15: rapid.Byte().Draw(t, "key")}
				r := drawRecord(t)
				table.Set(k, &r)
				model[k] = r
			},
			"": func(t *rapid.T) {
				for k, want := range model {
					if !table.Get(k, &got) || got.Last != want.Last || got.Person != want.Person || len(got.Facts) != len(want.Facts) ||
						len(want.Facts) > 0 && !reflect.DeepEqual(got.Facts, want.Facts) {
						t.Fatalf("key %x: got %+v, want %+v", k, got, want)
					}
				}
				if table.Get(Key{1: 9}, &got) || got.Last != 0 || len(got.Facts) != 0 || table.Len() != len(model) {
					t.Fatalf("an unknown key is known, or %d keys are not %d", table.Len(), len(model))
				}
			},
		})
	})
}

func TestPersonsAreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewPersons()
		model := map[Key][]Key{}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k := Key{15: rapid.ByteRange(0, 5).Draw(t, "person")}
				members := make([]Key, rapid.IntRange(0, 40).Draw(t, "members"))
				for i := range members {
					members[i] = Key{3: rapid.Byte().Draw(t, "member")}
				}
				p.Set(k, members)
				model[k] = members
			},
			"": func(t *rapid.T) {
				for k, want := range model {
					if got := p.Members(k, nil); len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
						t.Fatalf("got %x, want %x", got, want)
					}
				}
				if len(p.Members(Key{1: 1}, nil)) != 0 {
					t.Fatal("an unknown person has members")
				}
			},
		})
	})
}

// randomKey makes the nth key of a uniformly random sequence.
func randomKey(r *rand.Rand) (k Key) {
	binary.LittleEndian.PutUint64(k[:], r.Uint64())
	binary.LittleEndian.PutUint64(k[8:], r.Uint64())
	return k
}

// A reader sees a record wholly before or wholly after a Set: every fact of a record carries the same number here.
func TestReadersSeeWholeRecords(t *testing.T) {
	table := New()
	keys := make([]Key, 200)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range keys {
		keys[i] = randomKey(r)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			var rec Record
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if table.Get(keys[i%len(keys)], &rec) {
					for _, f := range rec.Facts {
						if f.Position != rec.Last || f.At != int64(rec.Last)+epoch {
							t.Errorf("torn record %+v", rec)
							return
						}
					}
				}
			}
		})
	}
	for n := range 50000 {
		last := uint64(n + 1)
		rec := Record{Last: last}
		for range r.IntN(5) {
			rec.Facts = append(rec.Facts, Fact{Kind: 1, Position: last, Entry: last, At: int64(last) + epoch})
		}
		table.Set(keys[r.IntN(len(keys))], &rec)
		if n%10 == 0 { // grow the shards too
			table.Set(randomKey(r), &rec)
		}
	}
	close(stop)
	readers.Wait()
}

// perAddress fills a table with plain opt-outs and returns the most octets an address ever took from size n on.
func perAddress(n, until int) (worst float64) {
	table := New()
	r := rand.New(rand.NewPCG(3, 4))
	rec := Record{Facts: make([]Fact, 1)}
	for i := 1; i <= until; i++ {
		rec.Last = uint64(i)
		rec.Facts[0] = Fact{Kind: 1, Scope: 1, Position: rec.Last, Entry: rec.Last, At: epoch + int64(i)}
		table.Set(randomKey(r), &rec)
		if i >= n && i%(until/200) == 0 {
			worst = math.Max(worst, float64(table.Bytes())/float64(i))
		}
	}
	return worst
}

// A suppressed address takes at most 35 octets, half of what a Redis set needs, wherever in its growth a table is.
func TestOctetsPerAddress(t *testing.T) {
	if worst := perAddress(1_000_000, 1_800_000); worst > 35 {
		t.Errorf("%.1f octets an address, want at most 35", worst)
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"1M", 1_000_000}, {"10M", 10_000_000}} {
		table := New()
		keys := make([]Key, 1<<20)
		r := rand.New(rand.NewPCG(5, 6))
		rec := Record{Facts: make([]Fact, 1)}
		for i := range size.n {
			k := randomKey(r)
			keys[i&(len(keys)-1)] = k
			rec.Last = uint64(i + 1)
			rec.Facts[0] = Fact{Kind: 1, Scope: 1, Position: rec.Last, Entry: rec.Last, At: epoch}
			table.Set(k, &rec)
		}
		b.Run(size.name+"/hit", func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				table.Get(keys[i&(size.n-1)&(len(keys)-1)], &rec)
			}
			b.ReportMetric(float64(table.Bytes())/float64(size.n), "B/address")
		})
		b.Run(size.name+"/miss", func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				table.Get(randomKey(r), &rec)
			}
		})
		b.Run(size.name+"/three-facts", func(b *testing.B) {
			three := Record{Last: 9, Facts: []Fact{{Kind: 1, Position: 7, Entry: 7}, {Kind: 2, Position: 8, Entry: 8}, {Kind: 3, Position: 9, Entry: 9}}}
			for i := range 1 << 12 {
				table.Set(keys[i], &three)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				table.Get(keys[i&(1<<12-1)], &three)
			}
		})
	}
}

func BenchmarkSet(b *testing.B) {
	table := New()
	r := rand.New(rand.NewPCG(7, 8))
	rec := Record{Facts: make([]Fact, 1)}
	for i := range b.N {
		rec.Last = uint64(i + 1)
		rec.Facts[0] = Fact{Kind: 1, Scope: 1, Position: rec.Last, Entry: rec.Last, At: epoch}
		table.Set(randomKey(r), &rec)
	}
	b.ReportMetric(float64(table.Bytes())/float64(b.N), "B/address")
}
