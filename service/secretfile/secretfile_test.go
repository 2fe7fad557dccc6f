package secretfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string
		err  string
	}{
		{"correct horse\r\n", 0o600, "correct horse", ""},
		{" a blank \n", 0o400, " a blank ", ""},
		{"of a group", 0o640, "of a group", ""},
		{"secret", 0o644, "", "chmod 600"},
		{"secret", 0o602, "", "chmod 600"},
		{"\n", 0o600, "", "must hold the secret"},
		{strings.Repeat("x", maxSecret), 0o600, strings.Repeat("x", maxSecret), ""},
		{strings.Repeat("x", maxSecret+1), 0o600, "", "nothing else"},
	} {
		os.Remove(path)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "xxx")) {
			t.Errorf("%.20q, %v: %.20q, %v", c.text, c.mode, got, err)
		}
	}
	if _, err := Read(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "no file") {
		t.Error(err)
	}
}
