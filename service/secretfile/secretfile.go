// Package secretfile reads the secrets that operators give in files: passwords, signing keys, tokens of APIs.
package secretfile

import (
	"fmt"
	"io"
	"os"
	"strings"
)

const maxSecret = 16 << 10

// Read reads the secret in a file, without the line ends after it. The file must be one that nobody but its owner and group may read or
// write, of at most 16 KiB, and not empty. Errors name the file and the remedy, and nothing of what is in it.
func Read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file", path)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%s may be read or written by everybody (mode %#o): chmod 600 it", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" || len(text) > maxSecret {
		return "", fmt.Errorf("%s must hold the secret and nothing else", path)
	}
	return secret, nil
}
