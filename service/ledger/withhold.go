package ledger

import "context"

// Withhold records that a message on its way was withheld from a recipient who was not refused when first named. v is the
// verdict that withheld it; by names the key that sent. The entry changes no standing. Errors: those of a write.
func (l *Ledger) Withhold(ctx context.Context, by By, v *Verdict) (Outcome, error) {
	if v.Send || v.Topic == nil || len(v.Denials) == 0 {
		return Outcome{}, invalid("verdict", "only what is denied can be withheld", "")
	}
	e := Entry{Kind: Withheld, Channel: by.Channel, Reason: v.Denials[0].Reason, Generation: v.Generation, Sender: v.Sender.Number,
		Scope: v.Topic.Number, Mailing: by.Mailing, Actor: by.Key, Key: v.Key, Ref: v.Denials[0].Entry, Detail: map[string]string{"topic": v.Topic.Name}}
	return l.write(ctx, nil, func(t *tx) (uint64, bool, error) {
		at, err := t.add(&e, nil)
		return at, true, err
	}, false)
}
