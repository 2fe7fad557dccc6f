package imapin

import (
	"net"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"
)

// xoauth2Mechanism is Google's and Microsoft's own, older than the standard's OAUTHBEARER. Exchange Online has no other.
const xoauth2Mechanism = "XOAUTH2"

// xoauth2 is the client's side of XOAUTH2.
type xoauth2 struct{ user, token string }

func (x xoauth2) Start() (string, []byte, error) {
	return xoauth2Mechanism, []byte("user=" + x.user + "\x01auth=Bearer " + x.token + "\x01\x01"), nil
}

func (x xoauth2) Next([]byte) ([]byte, error) { return endOfExchange, nil }

// oauthBearer is the client's side of OAUTHBEARER (RFC 7628).
type oauthBearer struct{ sasl.Client }

// newOAuthBearer makes the client's side for a server at host:port. In the user's name a comma and an equals sign are escaped
// (RFC 5801 section 4), which the library leaves to its caller.
func newOAuthBearer(user, token, address string) oauthBearer {
	host, digits, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(digits)
	return oauthBearer{sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{
		Username: strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user), Token: token, Host: host, Port: port})}
}

// Next ends the exchange, for the library would leave the command unanswered.
func (oauthBearer) Next([]byte) ([]byte, error) { return endOfExchange, nil }

// endOfExchange answers what a server sends when it refuses a token: a challenge that says why, after which it waits for a response
// before it ends the command. RFC 7628 section 3.2.3 has this octet for it. For XOAUTH2 it is an empty response, but the IMAP library writes
// that as "=", which is right only for an initial one (RFC 4959) and is answered with BAD; what the response holds, nobody looks at.
var endOfExchange = []byte{1}
