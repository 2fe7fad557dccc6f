package imapin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// client is what an OAuth file says: who asks whom for tokens, and by what right (RFC 6749). The file is one JSON object of texts.
type client struct {
	// TokenURL is the provider's token endpoint: https, or http on loopback.
	TokenURL string `json:"token_url"`
	// ID and Secret name and prove the client.
	ID     string `json:"client_id"`
	Secret string `json:"client_secret,omitempty"`
	// RefreshToken is traded in for tokens (section 6). Without one the client asks in its own name (section 4.4).
	RefreshToken string `json:"refresh_token,omitempty"`
	// Scope is what is asked for; empty leaves it to the provider.
	Scope string `json:"scope,omitempty"`
}

// maxClient is the size in octets of the largest OAuth file.
const maxClient = 64 << 10

// readClient reads an OAuth file, which nobody but its owner may read or write.
func readClient(f *os.File) (client, error) {
	info, err := f.Stat()
	if err != nil {
		return client{}, err
	}
	if !info.Mode().IsRegular() {
		return client{}, fault(f.Name() + " is no file")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return client{}, fault(fmt.Sprintf("%s: others may read or write it (mode %#o): chmod 0600 it", f.Name(), info.Mode().Perm()))
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxClient+1))
	if err != nil {
		return client{}, err
	}
	c, err := parseClient(text)
	if err != nil {
		return client{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return c, nil
}

// parseClient reads the text of an OAuth file. It knows no field but those of client and takes none twice: a name that is misspelt
// would otherwise be a setting that is silently not there. Its errors repeat no value.
func parseClient(text []byte) (client, error) {
	switch {
	case len(text) > maxClient:
		return client{}, fault("it is too large for an OAuth file")
	case !utf8.Valid(text):
		return client{}, fault("it is not in UTF-8")
	}
	var c client
	fields := map[string]*string{"token_url": &c.TokenURL, "client_id": &c.ID, "client_secret": &c.Secret, "refresh_token": &c.RefreshToken, "scope": &c.Scope}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return client{}, fault(`it must be a JSON object: {"token_url": "…", "client_id": "…", …}`)
	}
	broken := func() error {
		return fault(fmt.Sprintf("it is no valid JSON in line %d", 1+bytes.Count(text[:d.InputOffset()], []byte("\n"))))
	}
	for d.More() {
		t, err := d.Token()
		name, _ := t.(string)
		if err != nil {
			return client{}, broken()
		}
		to := fields[name]
		switch {
		case to == nil:
			return client{}, fault(fmt.Sprintf("it has a field %q: there are token_url, client_id, client_secret, refresh_token and scope", clip(name)))
		case *to != "":
			return client{}, fault("it gives " + name + " more than once")
		}
		t, err = d.Token()
		if err != nil {
			return client{}, broken()
		}
		value, ok := t.(string)
		switch {
		case !ok:
			return client{}, fault(name + " must be a text in quotes")
		case value == "":
			return client{}, fault(name + " is empty: fill it in, or leave it out")
		case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }):
			return client{}, fault(name + " holds a control character, such as the end of a line: take it out")
		}
		*to = value
	}
	if _, err := d.Token(); err != nil {
		return client{}, broken()
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return client{}, fault("something follows the JSON object: take it out")
	}
	switch {
	case c.TokenURL == "":
		return client{}, fault("token_url is missing: give the address at which the provider gives tokens")
	case c.ID == "":
		return client{}, fault("client_id is missing: give the id under which the provider knows the client")
	case c.Secret == "" && c.RefreshToken == "":
		return client{}, fault("client_secret is missing: without a refresh_token it is all that proves who asks")
	}
	u, err := url.Parse(c.TokenURL)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return client{}, fault("token_url must be an https URL without user and fragment: secrets go there")
	}
	return c, nil
}

// text is what parseClient reads.
func (c client) text() ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(c)
	return text.Bytes(), err
}

// write puts the file in the place of the one of that name, whole or not at all; a symbolic link stays and leads to the new one.
func (c client) write(path string) (err error) {
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	text, err := c.text()
	if err != nil {
		return err
	}
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
