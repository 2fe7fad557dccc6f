package sqlite

import (
	"embed"
	"errors"
	"fmt"
)

// applicationID marks the file as ours ("opto"); migration 1 sets it.
const applicationID = 0x6f70746f

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrations returns the migrations in order; the first is number 1.
func migrations() ([]string, error) {
	dir, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		return nil, err
	}
	var all []string
	for i, f := range dir { // sorted by name
		var n int
		if _, err := fmt.Sscanf(f.Name(), "%04d_", &n); err != nil || n != i+1 {
			return nil, fmt.Errorf("sqlite: migration %s is not number %d", f.Name(), i+1)
		}
		text, err := migrationFiles.ReadFile("migrations/" + f.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, string(text))
	}
	return all, nil
}

// inspect looks at the file before anything is changed in it, and refuses one that is not ours or is too new. The connection
// it returns is to be closed once another one is open.
func inspect(path string, o *Options) (_ *conn, err error) {
	c, err := open(path, parameters(o, queryOnly))
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	var got [3]any
	for i, q := range []string{"PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema"} {
		if got[i], err = c.value(q); err != nil {
			return nil, unreadable(path, err)
		}
	}
	all, err := migrations()
	if err != nil {
		return nil, err
	}
	switch version := got[1].(int64); {
	case got == [3]any{int64(0), int64(0), int64(0)}:
		return c, nil // new
	case got[0] != int64(applicationID):
		return nil, fmt.Errorf("sqlite: %s is not an optout database: name another data folder", path)
	case version > int64(len(all)):
		return nil, fmt.Errorf("sqlite: %s was written by a newer optout (schema %d, this program knows %d): use that program, or restore a backup made before the upgrade",
			path, version, len(all))
	}
	return c, nil
}

func unreadable(path string, err error) error {
	return fmt.Errorf("sqlite: %s is damaged or is not an optout database; restore a backup or name another data folder: %w", path, err)
}

// migrate brings the schema up to date, one transaction a step. There is no way back but a backup.
func migrate(c *conn) error {
	all, err := migrations()
	if err != nil {
		return err
	}
	v, err := c.value("PRAGMA user_version")
	if err != nil {
		return fmt.Errorf("sqlite: schema version: %w", err)
	}
	for n := int(v.(int64)); n < len(all); n++ {
		if err := c.exec(fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA user_version = %d; COMMIT", all[n], n+1)); err != nil {
			if !c.AutoCommit() {
				err = errors.Join(err, c.exec("ROLLBACK"))
			}
			return fmt.Errorf("sqlite: migration %d: %w", n+1, err)
		}
	}
	return nil
}
