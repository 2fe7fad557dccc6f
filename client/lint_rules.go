package client

// Rule is one rule of LintMessage.
type Rule struct {
	// ID names the rule; it never changes its meaning.
	ID string `json:"rule"`
	// Level is how bad breaking it is for commercial mail; other classes may be judged less hard.
	Level Level `json:"level"`
	// Description is what the rule demands, Remedy what to do about a message that breaks it, Reference who says so.
	Description string `json:"description"`
	Remedy      string `json:"remedy"`
	Reference   string `json:"reference"`
}

// LintRules lists every rule of LintMessage, in the order of its findings.
func LintRules() []Rule {
	const e, w = LevelError, LevelWarning
	return []Rule{
		// The message.
		{"message-size", e, "The message has at most 50 MiB.", "send a link to what is large", "no server is known to take more"},
		{"line-ending", e, "Lines end with CRLF; there is no CR or LF elsewhere, and no NUL.", "end every line with CRLF, and encode what is not text", "RFC 5322 section 2.3, RFC 5321 section 2.3.8"},
		{"line-length", e, "No line is longer than 998 octets.", "fold header fields between words, and encode the body as quoted-printable or base64", "RFC 5322 section 2.1.1"},
		{"line-length-78", w, "No line is longer than 78 octets, if it can be broken.", "fold header fields between words, and encode the body as quoted-printable", "RFC 5322 section 2.1.1"},
		{"header-size", e, "The header has at most 1 MiB.", "take out what does not belong into a header", "no server is known to take more"},
		{"header-syntax", e, "The header is a list of fields: a name, a colon, a value, folded lines after it.", "make headers with a library for mail", "RFC 5322 section 2.2"},
		{"header-ascii", w, "The header is ASCII.", "encode the text (RFC 2047), or make sure that every server on the way knows SMTPUTF8", "RFC 5322 section 2.2, RFC 6532"},
		{"from-once", e, "There is one From field, and it has an address.", "set From once", "RFC 5322 section 3.6"},
		{"date-once", e, "There is one Date field, and it can be read.", "set Date once, to the moment of writing", "RFC 5322 section 3.6.1"},
		{"message-id", e, "There is one Message-ID field, as an identifier in angle brackets.", "set Message-ID once: <something unique@your domain>", "RFC 5322 section 3.6.4"},
		{"sender-field", e, "When From has several addresses, Sender has one.", "set Sender to the one who sends", "RFC 5322 section 3.6.2"},
		{"field-once", e, "To, Cc, Reply-To, Sender, Subject, In-Reply-To, References, and the fields of MIME stand at most once.", "set each of them once", "RFC 5322 section 3.6, RFC 2045 section 4"},
		{"bcc", e, "There is no Bcc field.", "take it out before the message leaves: it shows everybody who was to be hidden", "RFC 5322 section 3.6.3"},

		// List-Unsubscribe.
		{"list-unsubscribe-missing", e, "There is a List-Unsubscribe field (not on mail of class required).", "set the headers that \"optout link\" prints, or send with client.Mailer", "RFC 8058 section 3.1; Google and Yahoo demand it of bulk senders"},
		{"list-unsubscribe-unwanted", e, "Mail of class required has no List-Unsubscribe and no List-Unsubscribe-Post.", "take them out: pressing the link would not stop this mail", "RFC 8058 section 3.1"},
		{"list-unsubscribe-once", e, "List-Unsubscribe stands once.", "put all its URIs into one field", "RFC 2369 section 3, RFC 8058 section 3.1"},
		{"list-unsubscribe-ascii", e, "List-Unsubscribe is printable ASCII.", "percent-encode the URI, and write the host in its ASCII form", "RFC 2369 section 2, RFC 3986 section 2"},
		{"list-unsubscribe-syntax", e, "List-Unsubscribe begins with \"<\"; each URI stands in angle brackets, without white space, folding or commas within, and commas stand between them.", "write it as <https://…>, <mailto:…> and fold after the comma only", "RFC 2369 section 2"},
		{"list-unsubscribe-https", e, "List-Unsubscribe has exactly one https URI.", "give one https URI, the one-click link", "RFC 8058 section 3.1"},
		{"list-unsubscribe-http", e, "List-Unsubscribe has no http URI.", "serve the link over https (--public-url), and give only that", "RFC 8058 section 3.1"},
		{"list-unsubscribe-mailto", w, "List-Unsubscribe has a mailto URI too.", "give the service a mail domain (--mail-domain): some mailbox providers use mail only", "RFC 2369 section 3.2; Microsoft's postmaster rules"},
		{"list-unsubscribe-post-missing", e, "There is a List-Unsubscribe-Post field where List-Unsubscribe has an https URI.", "add \"List-Unsubscribe-Post: List-Unsubscribe=One-Click\"", "RFC 8058 section 3.1"},
		{"list-unsubscribe-post-once", e, "List-Unsubscribe-Post stands once.", "set it once", "RFC 8058 section 3.1"},
		{"list-unsubscribe-post-value", e, "List-Unsubscribe-Post is \"List-Unsubscribe=One-Click\", octet for octet.", "write it so, in this case, with nothing around it", "RFC 8058 section 5"},
		{"list-unsubscribe-post-fold", e, "List-Unsubscribe-Post is not folded.", "write it on one line", "RFC 8058 section 5"},
		{"list-unsubscribe-post-alone", e, "List-Unsubscribe-Post stands only beside a List-Unsubscribe with an https URI.", "add the https URI, or take the field out", "RFC 8058 section 3.1"},

		// Other list fields.
		{"list-id-once", e, "List-Id stands at most once.", "set it once", "RFC 2919 section 3"},
		{"list-id-syntax", e, "List-Id is a phrase, if any, and an identifier of at most 255 octets in angle brackets: dot-atoms, at least two labels.", "write it as: Our Letter <letter.example.com>", "RFC 2919 section 2"},
		{"feedback-id-syntax", w, "Feedback-ID stands at most once and is one to four parts with colons between, the last one the sender's, which is not empty.", "write it as campaign:customer:kind:sender", "Google, \"Feedback loop\""},
		{"auto-submitted", w, "Auto-Submitted, if it is there, stands once and is no, auto-generated or auto-replied; mail of a topic that one can stop is not auto-replied.", "take it out, or say auto-generated", "RFC 3834 section 5"},

		// DKIM.
		{"dkim-missing", e, "There is a DKIM-Signature.", "sign with client.WithDKIM, or let the server sign and lint before it with the option for unsigned messages", "RFC 8058 section 4; Google and Yahoo demand it of bulk senders"},
		{"dkim-syntax", e, "Each DKIM-Signature has the tags v=1, a, b, bh, d, h and s, each once.", "sign with a library for DKIM, and let nothing change the message afterwards", "RFC 6376 section 3.5"},
		{"dkim-headers", e, "One signature's h= names From and, where they are there, List-Unsubscribe and List-Unsubscribe-Post. (Naming them once more than they occur also keeps others from being added.)", "add the names that client.DKIMHeaders lists to those that your signer covers: its default misses List-Unsubscribe-Post", "RFC 8058 sections 3.1 and 4, RFC 6376 section 5.4"},
		{"dkim-length", e, "No signature has l=.", "sign the whole body: whatever is added after that length passes as signed", "RFC 6376 section 8.2"},
		{"dkim-sha1", e, "No signature is of rsa-sha1.", "sign with rsa-sha256 or ed25519-sha256", "RFC 8301 section 3.1"},
		{"dkim-alignment", w, "One signature's d= is of the same organisation as From.", "sign for the domain of From, so that DMARC passes", "RFC 7489 section 3.1.1; Google demands it of bulk senders"},
		{"dkim-invalid", e, "One signature that covers what it must holds, by the key in DNS. (Only where looking up was asked for.)", "look at the key in DNS, and at what changes the message after it is signed", "RFC 6376 section 6, RFC 8058 section 4"},

		// What people see.
		{"mime-structure", e, "The parts of the message can be read, are at most 100, and at most 8 deep.", "make messages with a library for mail", "RFC 2045, RFC 2046 section 5.1"},
		{"body-missing", e, "There is a text or HTML part to read.", "add one: what the law demands must be seen", "15 USC 7704(a)(5)(A)"},
		{"body-placeholder", e, "No placeholder for the unsubscribe link is left.", "send with client.Mailer, which puts the link in its place", "15 USC 7704(a)(3)(A)(i)"},
		{"body-link-text", e, "The text part shows an unsubscribe link.", "send with client.WithFooter, or put client.UnsubscribeURLPlaceholder into the text", "15 USC 7704(a)(3)(A) and (5)(A)(ii)"},
		{"body-link-html", e, "The HTML part shows an unsubscribe link: with the URL of List-Unsubscribe, or with a word for it.", "send with client.WithFooter, or put client.UnsubscribeURLPlaceholder into the template", "15 USC 7704(a)(3)(A) and (5)(A)(ii)"},
		{"postal-address", e, "Every text and HTML part shows the sender's postal address.", "send with client.WithFooter, or put the address into the template", "15 USC 7704(a)(5)(A)(iii), 16 CFR 316.2(p)"},
		{"postal-address-unsure", w, "There is something that looks like a postal address. (Only where the sender's was not given.)", "give the sender's postal address, to be sure", "15 USC 7704(a)(5)(A)(iii)"},
	}
}
