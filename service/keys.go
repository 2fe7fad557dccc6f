package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"optout/service/keydir"
	"optout/service/ledger"
	"optout/service/link"
	"optout/service/receipt"
	"optout/service/rpc"
)

// bootstrap sets up what a new installation needs, step by step, each only if it is missing: a start that was cut short goes
// on where it stopped.
func (s *Service) bootstrap(ctx context.Context) error {
	by := ledger.By{Channel: ledger.BySystem, Role: ledger.RoleAdmin}
	l := s.ledger
	known := map[uint16]bool{}
	for _, k := range l.Registry().Secrets(string(keydir.Address)) {
		known[k.ID] = true
	}
	newest := uint16(0)
	for _, k := range s.keys.Keys(keydir.Address) {
		newest = max(newest, k.ID)
		if known[k.ID] {
			continue
		}
		if len(known) > 0 {
			return fmt.Errorf("address key %d in %s is not one that this ledger knows: take it away", k.ID, s.cfg.Keys)
		}
		if _, err := l.RegisterSecret(ctx, by, ledger.Secret{Kind: string(keydir.Address), ID: k.ID, Check: fmt.Sprintf("%x", s.addressCheck(k.ID))}); err != nil {
			return err
		}
	}
	if len(l.Registry().Secrets(string(keydir.Link))) == 0 {
		if len(s.keys.Keys(keydir.Link)) == 0 {
			if _, err := s.keys.Create(keydir.Link, 1, s.cfg.Random, s.cfg.Now()); err != nil {
				return err
			}
		}
		if err := s.registerLinkKey(ctx, by, s.keys.Keys(keydir.Link)[0], newest); err != nil {
			return err
		}
	}
	if l.Registry().Sender(ledger.DefaultSender) == nil {
		if _, err := l.CreateSender(ctx, by, ledger.DefaultSender, ledger.SenderSettings{}); err != nil {
			return err
		}
	}
	if len(l.Registry().APIKeys()) == 0 {
		return s.firstAdminKey(ctx, by)
	}
	return nil
}

func (s *Service) addressCheck(id uint16) [16]byte {
	ring, err := addressKeys(s.keys)
	if err != nil {
		return [16]byte{}
	}
	check, _ := ring.CheckValue(id)
	return check
}

func (s *Service) registerLinkKey(ctx context.Context, by ledger.By, k keydir.Key, generation uint16) error {
	_, err := s.ledger.RegisterSecret(ctx, by, ledger.Secret{Kind: string(keydir.Link), ID: k.ID, Check: fmt.Sprintf("%x", k.CheckValue()), Generation: generation})
	return err
}

// firstAdminKey makes the first API key. The file is written and flushed before the ledger knows the key, so that a cut in
// between leaves a key that opens nothing, never a ledger that nobody can open.
func (s *Service) firstAdminKey(ctx context.Context, by ledger.By) error {
	secret, err := rpc.NewSecret(s.cfg.Random)
	if err != nil {
		return err
	}
	path := filepath.Join(s.cfg.Data, adminKeyFile)
	if err := writeSecret(path, secret+"\n"); err != nil {
		return err
	}
	if _, _, err := s.ledger.CreateAPIKey(ctx, by, ledger.NewAPIKey{Label: "first admin key", Role: ledger.RoleAdmin}, secret); err != nil {
		return err
	}
	s.FirstStart = path
	return nil
}

// writeSecret replaces a file of mode 0600 durably.
func writeSecret(path, text string) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	return err
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// receipt makes the receipt of mail that may be sent now.
func (s *Service) receipt(sender, topic uint32, keys [][16]byte, position uint64) string {
	return s.receipts.Sign(receipt.Claims{Sender: sender, Topic: topic, Key: receipt.JoinKeys(keys), Position: position, Minute: uint32(s.cfg.Now().Unix() / 60)})
}

// loadRing makes the ring of every link key that the ledger knows: a missing one would kill the links it signed.
func (s *Service) loadRing() error {
	folder := map[uint16]keydir.Key{}
	for _, k := range s.keys.Keys(keydir.Link) {
		folder[k.ID] = k
	}
	var keys []link.Key
	var current uint8
	for _, known := range s.ledger.Registry().Secrets(string(keydir.Link)) {
		k, ok := folder[known.ID]
		if !ok || fmt.Sprintf("%x", k.CheckValue()) != known.Check {
			return fmt.Errorf("link key %d in %s is missing or another one than the ledger knows: bring it back, links that it signed are in people's mailboxes", known.ID, s.cfg.Keys)
		}
		keys = append(keys, link.Key{ID: uint8(k.ID), Secret: k.Secret})
		current = uint8(k.ID)
	}
	ring, err := link.NewRing(current, keys...)
	if err != nil {
		return err
	}
	s.ring.Store(ring)
	return nil
}

// loadReceipts makes the signer of receipts from the newest receipt key. A folder without one gets one, also if it had one
// before: receipt keys protect no standing, and a lost one only makes old receipts unverifiable.
func (s *Service) loadReceipts() error {
	keys := s.keys.Keys(keydir.Receipt)
	if len(keys) == 0 {
		k, err := s.keys.Create(keydir.Receipt, 1, s.cfg.Random, s.cfg.Now())
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	for _, k := range keys {
		if k.ID > maxReceiptKeys {
			return fmt.Errorf("%v in %s: a receipt has one octet for the id, so it is 1 to %d: take the file away", k, s.cfg.Keys, maxReceiptKeys)
		}
		var err error
		if s.receipts, err = receipt.NewSigner(byte(k.ID), k.Secret[:]); err != nil {
			return err
		}
		s.receiptKeys = append(s.receiptKeys, rpc.ReceiptKey{ID: byte(k.ID), Created: k.Created, Public: s.receipts.Public()})
	}
	return nil
}

// maxReceiptKeys: a receipt has one octet for the key's id.
const maxReceiptKeys = 255

// maxLinkKeys: a token has one octet for the key's id.
const maxLinkKeys = 255

// rotateLinkKey makes a new link key: its file is durable before the ledger knows it, the ledger knows it before it signs.
func (s *Service) rotateLinkKey(ctx context.Context, by ledger.By) (ledger.Secret, ledger.Outcome, error) {
	s.rotate.Lock()
	defer s.rotate.Unlock()
	next := uint16(1)
	for _, k := range s.keys.Keys(keydir.Link) {
		next = max(next, k.ID+1)
	}
	if next > maxLinkKeys {
		return ledger.Secret{}, ledger.Outcome{}, &ledger.Error{Kind: ledger.ErrTooManyItems, Problem: fmt.Sprintf("there are %d link keys already", maxLinkKeys), Remedy: "keys are never dropped; rotate less often"}
	}
	k, err := s.keys.Create(keydir.Link, next, s.cfg.Random, s.cfg.Now())
	if err != nil {
		return ledger.Secret{}, ledger.Outcome{}, err
	}
	addressKeys := s.keys.Keys(keydir.Address)
	secret := ledger.Secret{Kind: string(keydir.Link), ID: k.ID, Check: fmt.Sprintf("%x", k.CheckValue()), Generation: addressKeys[len(addressKeys)-1].ID}
	o, err := s.ledger.RegisterSecret(ctx, by, secret)
	if err != nil {
		return ledger.Secret{}, o, err
	}
	all := s.ledger.Registry().Secrets(string(keydir.Link))
	return all[len(all)-1], o, s.loadRing()
}
