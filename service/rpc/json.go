package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	optoutv1 "optout/proto/optout/v1"
)

// JSONPrefix begins the path of every method of the API as JSON: /optout.v1.SERVICE/METHOD.
const JSONPrefix = "/optout.v1."

// JSON returns the API as JSON over HTTP, for languages without gRPC: POST a request's JSON to /optout.v1.SERVICE/METHOD with the
// API key as bearer token. The very handlers of gRPC answer, behind the same interceptors: who may call what, limits and errors are
// the same. certificates demands a client certificate that was verified, as the gRPC listener does where it asks for one.
//
// Names are those of the API, and also read in lower camel case; 64-bit numbers are texts, octets base64, times RFC 3339. Unknown
// fields are refused. A method that streams its answer writes one object a line.
func (s *Server) JSON(certificates bool) http.Handler {
	j := &jsonAPI{h: s.handlers, certificates: certificates, methods: map[string]jsonMethod{}}
	for _, d := range []*grpc.ServiceDesc{&optoutv1.SuppressionService_ServiceDesc, &optoutv1.SubscriptionService_ServiceDesc, &optoutv1.LinkService_ServiceDesc,
		&optoutv1.LedgerService_ServiceDesc, &optoutv1.FeedbackService_ServiceDesc, &optoutv1.AdminService_ServiceDesc} {
		for i := range d.Methods {
			j.methods["/"+d.ServiceName+"/"+d.Methods[i].MethodName] = jsonMethod{unary: &d.Methods[i]}
		}
		for i := range d.Streams {
			j.methods["/"+d.ServiceName+"/"+d.Streams[i].StreamName] = jsonMethod{stream: &d.Streams[i]}
		}
	}
	return j
}

type jsonAPI struct {
	h            *handlers
	certificates bool
	methods      map[string]jsonMethod
}

// jsonMethod is one of both.
type jsonMethod struct {
	unary  *grpc.MethodDesc
	stream *grpc.StreamDesc
}

// jsonTimeout bounds reading a request and writing an answer that is no stream.
const jsonTimeout = 35 * time.Second

var (
	readJSON  = protojson.UnmarshalOptions{}
	writeJSON = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}
)

// ServeHTTP answers one call.
func (j *jsonAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	m, ok := j.methods[r.URL.Path]
	switch {
	case !ok:
		fail(w, http.StatusNotFound, status.New(codes.Unimplemented, "there is no method "+clip(r.URL.Path)+": see proto/optout/v1"))
		return
	case r.Method != http.MethodPost:
		h.Set("Allow", http.MethodPost)
		fail(w, http.StatusMethodNotAllowed, status.New(codes.Unimplemented, "methods are called by POST"))
		return
	case j.certificates && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0):
		fail(w, http.StatusForbidden, status.New(codes.PermissionDenied, "this service asks for a client certificate: present one that its authority has signed"))
		return
	}
	md := metadata.MD{}
	for _, v := range r.Header.Values("Authorization") {
		md.Append("authorization", v)
	}
	ctx := metadata.NewIncomingContext(r.Context(), md)
	if _, err := j.h.admit(ctx, r.URL.Path); err != nil { // before anything is read; the interceptors ask again
		failWith(w, j.h.status(r.URL.Path, err))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			fail(w, http.StatusRequestEntityTooLarge, status.New(codes.ResourceExhausted, fmt.Sprintf("the request is larger than %d octets: split it", maxMessage)))
		} else {
			fail(w, http.StatusBadRequest, status.New(codes.InvalidArgument, "the request did not arrive whole"))
		}
		return
	}
	if !isJSON(r.Header.Get("Content-Type"), body) {
		fail(w, http.StatusUnsupportedMediaType, status.New(codes.InvalidArgument, "the body must be JSON: send it as Content-Type: application/json"))
		return
	}
	if m.stream != nil {
		j.serveStream(ctx, w, r, m.stream, body)
		return
	}
	resp, err := m.unary.Handler(j.h, ctx, decoder(body), j.h.unary)
	if err != nil {
		failWith(w, j.h.status(r.URL.Path, err))
		return
	}
	text, err := writeJSON.Marshal(resp.(proto.Message))
	if err != nil {
		failWith(w, status.Error(codes.Internal, "the answer cannot be written as JSON"))
		return
	}
	h.Set("Content-Type", "application/json")
	w.Write(line(text))
}

// isJSON takes what says that it is JSON, and what says nothing or, as curl does by itself, that it is a form, when it begins as an
// object does.
func isJSON(contentType string, body []byte) bool {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case contentType == "" || err == nil && media == "application/x-www-form-urlencoded":
		return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{"))
	case err != nil:
		return false
	}
	return media == "application/json"
}

// decoder reads the request for the generated code. Its errors are the caller's.
func decoder(body []byte) func(any) error {
	return func(m any) error {
		if len(bytes.TrimSpace(body)) == 0 {
			return status.Error(codes.InvalidArgument, "the body is empty: send a JSON object, {} at least")
		}
		if err := readJSON.Unmarshal(body, m.(proto.Message)); err != nil {
			// protojson quotes what it read, which may be somebody's address; it says where.
			return invalid("", "the request is not the JSON of %s%s", m.(proto.Message).ProtoReflect().Descriptor().Name(), whereOf(err))
		}
		return nil
	}
}

// whereOf is the part of protojson's error that holds no value of the caller's: the place, and the name of an unknown field.
func whereOf(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	i := strings.Index(text, "(line ")
	if i < 0 {
		return ""
	}
	place, rest, _ := strings.Cut(text[i:], ")")
	out := " " + place + ")"
	if name, ok := strings.CutPrefix(rest, ": unknown field "); ok {
		out += ": there is no field " + clip(name)
	}
	return out
}

func clip(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// line makes one line of JSON of protojson's, whose white space varies on purpose.
func line(text []byte) []byte {
	var b bytes.Buffer
	if json.Compact(&b, text) != nil {
		return append(text, '\n')
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// failure is an error's JSON.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Reason is a name of the API's ErrorReason.
	Reason string `json:"reason,omitempty"`
	Field  string `json:"field,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	// Metadata is the rest of the ErrorInfo.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// httpStatus maps codes as gRPC gateways do.
var httpStatus = map[codes.Code]int{
	codes.Canceled: 499, codes.InvalidArgument: 400, codes.DeadlineExceeded: 504, codes.NotFound: 404, codes.AlreadyExists: 409,
	codes.PermissionDenied: 403, codes.ResourceExhausted: 429, codes.FailedPrecondition: 400, codes.Aborted: 409, codes.OutOfRange: 400,
	codes.Unimplemented: 501, codes.Internal: 500, codes.Unavailable: 503, codes.DataLoss: 500, codes.Unauthenticated: 401, codes.Unknown: 500,
}

func failWith(w http.ResponseWriter, err error) {
	s := status.Convert(err)
	code := httpStatus[s.Code()]
	if code == 0 {
		code = http.StatusInternalServerError
	}
	switch code {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "5")
	}
	fail(w, code, s)
}

func fail(w http.ResponseWriter, code int, s *status.Status) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(failureJSON(s))
}

func failureJSON(s *status.Status) []byte {
	f := failure{Code: strings.ToLower(codeName(s.Code())), Message: s.Message()}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			f.Reason = info.Reason
			for k, v := range info.Metadata {
				switch k {
				case "field":
					f.Field = v
				case "remedy":
					f.Remedy = v
				default:
					if f.Metadata == nil {
						f.Metadata = map[string]string{}
					}
					f.Metadata[k] = v
				}
			}
		}
	}
	b, _ := json.Marshal(f) // texts cannot fail
	return append(b, '\n')
}

// codeName is a code's name in the canonical spelling, such as INVALID_ARGUMENT.
func codeName(c codes.Code) string {
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	if c == codes.OK {
		return "OK"
	}
	return strings.ToUpper(b.String())
}

// serveStream writes one object a line, as they come; an error after the first is a last line {"error":…}.
func (j *jsonAPI) serveStream(ctx context.Context, w http.ResponseWriter, r *http.Request, d *grpc.StreamDesc, body []byte) {
	control := http.NewResponseController(w)
	control.SetWriteDeadline(time.Time{}) // verifications and backups take as long as they need
	s := &jsonStream{ctx: ctx, w: w, control: control, body: body}
	err := j.h.stream(j.h, s, &grpc.StreamServerInfo{FullMethod: r.URL.Path, IsServerStream: true}, d.Handler)
	switch {
	case err == nil:
	case !s.begun:
		failWith(w, err)
	default:
		fmt.Fprintf(w, "{\"error\":%s}\n", bytes.TrimSpace(failureJSON(status.Convert(err))))
	}
}

// jsonStream is the stream of one call: a request in, any number of lines out.
type jsonStream struct {
	ctx     context.Context
	w       http.ResponseWriter
	control *http.ResponseController
	body    []byte
	read    bool
	begun   bool
}

func (s *jsonStream) SetHeader(metadata.MD) error  { return nil }
func (s *jsonStream) SendHeader(metadata.MD) error { return nil }
func (s *jsonStream) SetTrailer(metadata.MD)       {}
func (s *jsonStream) Context() context.Context     { return s.ctx }

// RecvMsg gives the one request.
func (s *jsonStream) RecvMsg(m any) error {
	if s.read {
		return io.EOF
	}
	s.read = true
	return decoder(s.body)(m)
}

// SendMsg writes a line.
func (s *jsonStream) SendMsg(m any) error {
	text, err := writeJSON.Marshal(m.(proto.Message))
	if err != nil {
		return err
	}
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	s.control.SetWriteDeadline(time.Now().Add(jsonTimeout))
	if _, err := s.w.Write(line(text)); err != nil {
		return err
	}
	return s.control.Flush()
}
