package service

import (
	"context"

	"optout/service/ledger"
	"optout/service/rpc"
)

// submit takes a message that was handed in as if it had come by SMTP.
func (s *Service) submit(context.Context, *rpc.Message) ([]rpc.Submitted, error) {
	return nil, ledger.ErrStorageUnavailable
}
