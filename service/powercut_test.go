package service_test

import (
	"bufio"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // the control's driver

	"optout/service/ledgertest"
)

// disk is a block device whose write cache can be lost: every block that was not flushed is gone, as in a power cut. It is a
// file behind nbdkit's write-back cache, brought to a loop device by nbdfuse.
type disk struct {
	dir, image, loop string
	nbdkit, fuse     *exec.Cmd
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	ledgertest.Require(t, "power cuts need root, nbdkit, nbdfuse, losetup and mkfs.ext4", os.Getuid() == 0 && haveAll("nbdkit", "nbdfuse", "losetup", "mkfs.ext4", "mount"))
	d := &disk{dir: t.TempDir()}
	d.image = filepath.Join(d.dir, "image")
	must(t, "truncate", "-s", "512M", d.image)
	must(t, "mkfs.ext4", "-q", "-F", d.image)
	for _, name := range []string{"fuse", "mnt"} {
		if err := os.Mkdir(filepath.Join(d.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(d.device(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.cut() })
	return d
}

func haveAll(names ...string) bool {
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			return false
		}
	}
	return true
}

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (d *disk) device() string { return filepath.Join(d.dir, "fuse", "disk") }
func (d *disk) mount() string  { return filepath.Join(d.dir, "mnt") }

// powerOn brings the disk up with an empty cache; the file system replays its journal.
func (d *disk) powerOn(t *testing.T) {
	t.Helper()
	socket := filepath.Join(d.dir, "socket")
	os.Remove(socket)
	d.nbdkit = exec.Command("nbdkit", "-f", "-U", socket, "--filter=cache", "file", d.image, "cache=writeback", "cache-max-size=1G")
	if err := d.nbdkit.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { _, err := os.Stat(socket); return err == nil })
	d.fuse = exec.Command("nbdfuse", d.device(), "nbd+unix:///?socket="+socket)
	if err := d.fuse.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { i, err := os.Stat(d.device()); return err == nil && i.Size() > 0 })
	d.loop = must(t, "losetup", "-f", "--show", d.device())
	must(t, "mount", "-t", "ext4", d.loop, d.mount())
}

// cut is the power cut: what the disk was not made to flush is gone.
func (d *disk) cut() {
	if d.nbdkit == nil {
		return
	}
	d.nbdkit.Process.Kill()
	d.nbdkit.Wait()
}

// clear takes the dead device away. Everything that used it must have ended.
func (d *disk) clear(t *testing.T) {
	t.Helper()
	exec.Command("umount", "-l", d.mount()).Run()
	exec.Command("losetup", "-d", d.loop).Run()
	exec.Command("umount", "-l", d.device()).Run()
	d.fuse.Process.Kill()
	d.fuse.Wait()
	d.nbdkit = nil
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timed out")
		}
	}
}

// No acknowledged opt-out is lost in a power cut: over one-click and RPC, at least 30 cuts and 10 000 acknowledgements.
func TestPowerCutLosesNoAcknowledgedOptOut(t *testing.T) {
	cuts, acks := 30, 10000
	if testing.Short() {
		cuts, acks = 3, 300
	}
	d := newDisk(t)
	random, seed := newSeed(t)
	people := recipients{seed: seed}
	var all []string
	for n := 0; n < cuts || len(all) < acks; n++ {
		d.powerOn(t)
		data := filepath.Join(d.mount(), "data")
		var p *process
		if n == 0 {
			p = newInstallation(t, data)
			// What the installation needs is durable too; nothing but its own fsyncs may be relied on.
		} else {
			var err error
			if p, err = serve(t, data); err != nil {
				t.Fatalf("after cut %d: %v", n, err)
			}
			if lost := p.inForce(t, all); len(lost) > 0 {
				t.Fatalf("cut %d: %d of %d acknowledged opt-outs were lost", n, len(lost), len(all))
			}
		}
		addresses, tokens := people.take(t, p, 10000)
		stop := make(chan struct{})
		acked := make(chan []string)
		go func() { acked <- p.load(addresses, tokens, 32, stop) }()
		time.Sleep(time.Duration(100+random.IntN(300)) * time.Millisecond)
		d.cut()
		close(stop)
		p.kill()
		all = append(all, <-acked...)
		d.clear(t)
		if n > 10*cuts {
			t.Fatalf("only %d acknowledgements in %d cuts: the load is too light to show anything", len(all), n)
		}
	}
	d.powerOn(t)
	data := filepath.Join(d.mount(), "data")
	p, err := serve(t, data)
	if err != nil {
		t.Fatal(err)
	}
	if lost := p.inForce(t, all); len(lost) > 0 {
		t.Fatalf("%d of %d acknowledged opt-outs were lost", len(lost), len(all))
	}
	p.kill()
	verified(t, data)
	d.cut()
	d.clear(t)
	t.Logf("%d acknowledged opt-outs survived", len(all))
}

const controlEnv = "OPTOUT_POWERCUT_CONTROL"

// controlWriter commits rows with synchronous=NORMAL, the driver's default, and prints each number once it is "committed".
func controlWriter() {
	db, err := sql.Open("sqlite3", "file:"+os.Getenv(controlEnv)+"?_journal_mode=WAL&_synchronous=NORMAL")
	if err != nil {
		panic(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)"); err != nil {
		panic(err)
	}
	var first int
	if err := db.QueryRow("SELECT coalesce(max(n), 0) FROM t").Scan(&first); err != nil {
		panic(err)
	}
	for n := first + 1; ; n++ {
		if _, err := db.Exec("INSERT INTO t VALUES (?)", n); err != nil {
			return
		}
		fmt.Println(n)
	}
}

// The control: the same cut with synchronous=NORMAL must lose acknowledged rows, or the rig shows nothing.
func TestPowerCutControlLosesRows(t *testing.T) {
	d := newDisk(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		d.powerOn(t)
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), controlEnv+"="+filepath.Join(d.mount(), "control.db"))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked, lines := 0, bufio.NewScanner(out)
		var begun time.Time
		for lines.Scan() && (begun.IsZero() || time.Since(begun) < 300*time.Millisecond) {
			if acked, _ = strconv.Atoi(lines.Text()); begun.IsZero() {
				begun = time.Now() // how long the program takes to start says nothing
			}
		}
		d.cut()
		cmd.Process.Kill()
		cmd.Wait()
		d.clear(t)

		d.powerOn(t)
		db, err := sql.Open("sqlite3", "file:"+filepath.Join(d.mount(), "control.db"))
		if err != nil {
			t.Fatal(err)
		}
		kept := 0
		err = db.QueryRow("SELECT coalesce(max(n), 0) FROM t").Scan(&kept)
		db.Close()
		d.cut()
		d.clear(t)
		if err != nil || kept < acked {
			t.Logf("cut %d: %d rows acknowledged, %d kept (%v): the rig loses what was not flushed", n+1, acked, kept, err)
			return
		}
	}
	t.Fatal("ten cuts at synchronous=NORMAL lost nothing: the rig does not cut the power")
}
