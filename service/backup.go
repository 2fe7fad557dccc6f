package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"optout/service/anchor"
	"optout/service/keydir"
	"optout/service/ledger"
	"optout/service/sqlite"
)

// backup writes a copy of the store, its checkpoint and, if asked, the keys into dir.
func (s *Service) backup(ctx context.Context, dir string, withKeys bool, progress func(copied, total uint64)) (ledger.Position, ledger.Hash, error) {
	target := func(problem string) error {
		return &ledger.Error{Kind: ledger.ErrInvalidField, Field: "directory", Problem: problem, Remedy: "name an absolute path on the service's machine that is empty or does not exist"}
	}
	if !filepath.IsAbs(dir) {
		return ledger.Position{}, ledger.Hash{}, target("it is not an absolute path")
	}
	if err := emptyFolder(dir); err != nil {
		return ledger.Position{}, ledger.Hash{}, target(err.Error())
	}
	tip, err := s.store.Backup(ctx, dir, progress)
	if err != nil {
		return ledger.Position{}, ledger.Hash{}, err
	}
	if err := anchor.At(filepath.Join(dir, anchorFile)).Save(tip.LedgerID, tip.Head); err != nil {
		return ledger.Position{}, ledger.Hash{}, err
	}
	if withKeys {
		if err := s.keys.CopyTo(filepath.Join(dir, keysFolder)); err != nil {
			return ledger.Position{}, ledger.Hash{}, err
		}
	}
	return ledger.Position{LedgerID: tip.LedgerID, Number: tip.Head.Size}, tip.Head.Root, nil
}

// emptyFolder makes the folder 0700, or finds it empty.
func emptyFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errors.New("it cannot be made")
	}
	d, err := os.Open(dir)
	if err != nil {
		return errors.New("it cannot be opened")
	}
	defer d.Close()
	if _, err := d.Readdirnames(1); !errors.Is(err, io.EOF) {
		return errors.New("it is not empty")
	}
	return nil
}

// Restore copies a backup into a data folder that is empty or does not exist, with the keys of the backup or of the folder
// keys, and verifies it. Errors: the target is not empty, the keys are missing or others, the backup does not verify.
func Restore(ctx context.Context, from, data, keys string) (ledger.Report, error) {
	if err := emptyFolder(data); err != nil {
		return ledger.Report{}, fmt.Errorf("%s: %w: restore into a new folder", data, err)
	}
	for _, name := range []string{databaseFile, anchorFile} {
		if err := copyFile(filepath.Join(from, name), filepath.Join(data, name)); err != nil {
			return ledger.Report{}, err
		}
	}
	if keys == "" {
		if _, err := os.Stat(filepath.Join(from, keysFolder)); err != nil {
			return ledger.Report{}, fmt.Errorf("%s was made without keys: give --keys with the folder of the installation's keys", from)
		}
		dir, err := keydir.Open(filepath.Join(from, keysFolder))
		if err != nil {
			return ledger.Report{}, err
		}
		if err := dir.CopyTo(filepath.Join(data, keysFolder)); err != nil {
			return ledger.Report{}, err
		}
	}
	if err := syncFolder(data); err != nil {
		return ledger.Report{}, err
	}
	return VerifyData(ctx, data, keys, nil)
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Sync(), w.Close())
}

// VerifyData verifies the ledger in a data folder that no service has open, and that the keys are the ones it was made with.
// keys is the key folder; empty means the one in data.
func VerifyData(ctx context.Context, data, keys string, progress func(done, total uint64)) (rep ledger.Report, err error) {
	database := filepath.Join(data, databaseFile)
	if _, err := os.Stat(database); err != nil {
		return rep, fmt.Errorf("%s holds no ledger: %w", data, err)
	}
	if keys == "" {
		keys = filepath.Join(data, keysFolder)
	}
	if _, err := os.Stat(keys); err != nil {
		return rep, fmt.Errorf("no key folder: %w: give --keys", err)
	}
	dir, err := keydir.Open(keys)
	if err != nil {
		return rep, err
	}
	ring, err := addressKeys(dir)
	if err != nil {
		return rep, err
	}
	store, err := sqlite.Open(ctx, database, sqlite.Options{})
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return ledger.VerifyStore(ctx, store, anchor.At(filepath.Join(data, anchorFile)), ring, progress)
}
